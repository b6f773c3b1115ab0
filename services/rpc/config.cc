#include "services/rpc/config.h"

#include <memory>
#include <vector>

#include "absl/strings/ascii.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/strings/str_split.h"
#include "google/protobuf/descriptor.h"
#include "google/protobuf/io/tokenizer.h"
#include "google/protobuf/text_format.h"
#include "google/protobuf/util/json_util.h"
#include "services/common/digest.h"
#include "services/common/files.h"
#include "services/common/status_macros.h"

namespace plumbline {
namespace {

using google::protobuf::EnumDescriptor;
using google::protobuf::FieldDescriptor;
using google::protobuf::Message;
using google::protobuf::Reflection;

constexpr int64_t kMaxConfigBytes = 4 << 20;
constexpr size_t kMaxQuotedLine = 120;

// Each error with its line: the parser names the value it stumbled over but not the field.
class FirstErrors final : public google::protobuf::io::ErrorCollector {
 public:
  explicit FirstErrors(absl::string_view text) : lines_(absl::StrSplit(text, '\n')) {}
  void AddError(int line, int column, const std::string& message) override {
    if (errors_.size() < 5) {
      const bool known = line >= 0 && static_cast<size_t>(line) < lines_.size();
      const absl::string_view source =
          known ? absl::StripAsciiWhitespace(lines_[static_cast<size_t>(line)]) : "";
      errors_.push_back(absl::StrCat("line ", line + 1, ", column ", column + 1, ": ", message,
                                     " in: ", source.substr(0, kMaxQuotedLine)));
    }
  }
  std::string Text() const { return absl::StrJoin(errors_, "; "); }

 private:
  std::vector<absl::string_view> lines_;
  std::vector<std::string> errors_;
};

std::string EnumNames(const EnumDescriptor& type) {
  std::vector<std::string> names;
  for (int i = 0; i < type.value_count(); ++i) names.push_back(type.value(i)->name());
  return absl::StrJoin(names, " ");
}

// proto3 enums are open, so both parsers let unknown numbers pass.
absl::Status CheckEnums(const Message& message, const std::string& path) {
  const Reflection& reflection = *message.GetReflection();
  std::vector<const FieldDescriptor*> fields;
  reflection.ListFields(message, &fields);
  for (const FieldDescriptor* field : fields) {
    const int count = field->is_repeated() ? reflection.FieldSize(message, field) : 1;
    for (int i = 0; i < count; ++i) {
      const std::string here =
          absl::StrCat(path, field->name(), field->is_repeated() ? absl::StrCat("[", i, "]") : "");
      if (field->cpp_type() == FieldDescriptor::CPPTYPE_MESSAGE) {
        const Message& child = field->is_repeated()
                                   ? reflection.GetRepeatedMessage(message, field, i)
                                   : reflection.GetMessage(message, field);
        PLUMB_RETURN_IF_ERROR(CheckEnums(child, here + "."));
      } else if (field->cpp_type() == FieldDescriptor::CPPTYPE_ENUM) {
        const int number = field->is_repeated() ? reflection.GetRepeatedEnumValue(message, field, i)
                                                : reflection.GetEnumValue(message, field);
        if (field->enum_type()->FindValueByNumber(number) == nullptr) {
          return absl::InvalidArgumentError(
              absl::StrCat("field '", here, "' has the unknown enum value ", number,
                           "; known: ", EnumNames(*field->enum_type())));
        }
      }
    }
  }
  return absl::OkStatus();
}

absl::Status ParseText(absl::string_view text, Message* config) {
  FirstErrors errors(text);
  google::protobuf::TextFormat::Parser parser;
  parser.RecordErrorsTo(&errors);
  if (parser.ParseFromString(std::string(text), config)) return absl::OkStatus();
  return absl::InvalidArgumentError(errors.Text());
}

absl::Status ParseJson(absl::string_view text, Message* config) {
  google::protobuf::util::JsonParseOptions options;
  options.ignore_unknown_fields = false;
  const auto status =
      google::protobuf::util::JsonStringToMessage(std::string(text), config, options);
  if (status.ok()) return absl::OkStatus();
  return absl::InvalidArgumentError(std::string(status.message()));
}

}  // namespace

ConfigFormat GuessConfigFormat(absl::string_view path, absl::string_view text) {
  if (absl::EndsWithIgnoreCase(path, ".json")) return ConfigFormat::kJson;
  for (absl::string_view extension : {".txtpb", ".textproto", ".pbtxt"}) {
    if (absl::EndsWithIgnoreCase(path, extension)) return ConfigFormat::kText;
  }
  return absl::StartsWith(absl::StripLeadingAsciiWhitespace(text), "{") ? ConfigFormat::kJson
                                                                        : ConfigFormat::kText;
}

absl::Status ParseConfig(absl::string_view name, absl::string_view text, ConfigFormat format,
                         Message* config) {
  std::unique_ptr<Message> parsed(config->New());
  const bool json = format == ConfigFormat::kJson;
  absl::Status status = json ? ParseJson(text, parsed.get()) : ParseText(text, parsed.get());
  if (status.ok()) status = CheckEnums(*parsed, "");
  if (!status.ok()) {
    return Annotate(status, absl::StrCat("config ", name, " (", config->GetTypeName(), " as ",
                                         json ? "JSON" : "text proto", ")"));
  }
  config->CopyFrom(*parsed);
  return absl::OkStatus();
}

absl::Status LoadConfigFile(const std::string& path, Message* config) {
  PLUMB_ASSIGN_OR_RETURN(std::string text, ReadFile(path, kMaxConfigBytes));
  return ParseConfig(path, text, GuessConfigFormat(path, text), config);
}

std::string ConfigText(const Message& config) {
  std::string text;
  google::protobuf::TextFormat::PrintToString(config, &text);
  return text;
}

std::string ConfigDigest(const Message& config) {
  return DigestBuilder("config/1")
      .Add("type", absl::string_view(config.GetTypeName()))
      .Add("text", absl::string_view(ConfigText(config)))
      .Finish();
}

}  // namespace plumbline
