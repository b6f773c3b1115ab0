// ApplyOverride: "a.b[2].c=value" through reflection.
#include <cerrno>
#include <cmath>
#include <cstdlib>
#include <limits>
#include <vector>

#include "absl/strings/ascii.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/strings/str_replace.h"
#include "absl/strings/str_split.h"
#include "google/protobuf/descriptor.h"
#include "services/common/status_macros.h"
#include "services/rpc/config.h"

namespace plumbline {
namespace {

using google::protobuf::Descriptor;
using google::protobuf::FieldDescriptor;
using google::protobuf::Message;
using google::protobuf::Reflection;

std::string FieldNames(const Descriptor& type) {
  std::vector<std::string> names;
  for (int i = 0; i < type.field_count(); ++i) names.push_back(type.field(i)->name());
  return absl::StrJoin(names, " ");
}

absl::Status BadValue(const FieldDescriptor& field, absl::string_view value,
                      absl::string_view wanted) {
  return absl::InvalidArgumentError(
      absl::StrCat("field '", field.name(), "' takes ", wanted, ", got '", value, "'"));
}

// Sets or adds one scalar through the pair of reflection methods of its type.
template <typename T, typename SetFn, typename AddFn>
void Put(Message* message, const FieldDescriptor* field, int index, T value, SetFn set, AddFn add,
         void (Reflection::*set_repeated)(Message*, const FieldDescriptor*, int, T) const) {
  const Reflection& reflection = *message->GetReflection();
  if (!field->is_repeated()) {
    (reflection.*set)(message, field, value);
  } else if (index == reflection.FieldSize(*message, field)) {
    (reflection.*add)(message, field, value);
  } else {
    (reflection.*set_repeated)(message, field, index, value);
  }
}

template <typename T>
absl::Status ParseInteger(const FieldDescriptor& field, absl::string_view text, T* value) {
  if (absl::SimpleAtoi(text, value)) return absl::OkStatus();
  return BadValue(field, text,
                  absl::StrCat("a whole number in ", std::numeric_limits<T>::min(), "..",
                               std::numeric_limits<T>::max()));
}

absl::Status PutNumber(Message* message, const FieldDescriptor* field, int index,
                       absl::string_view text) {
  switch (field->cpp_type()) {
    case FieldDescriptor::CPPTYPE_INT32: {
      int32_t value = 0;
      PLUMB_RETURN_IF_ERROR(ParseInteger(*field, text, &value));
      Put<int32_t>(message, field, index, value, &Reflection::SetInt32, &Reflection::AddInt32,
                   &Reflection::SetRepeatedInt32);
      return absl::OkStatus();
    }
    case FieldDescriptor::CPPTYPE_INT64: {
      int64_t value = 0;
      PLUMB_RETURN_IF_ERROR(ParseInteger(*field, text, &value));
      Put<int64_t>(message, field, index, value, &Reflection::SetInt64, &Reflection::AddInt64,
                   &Reflection::SetRepeatedInt64);
      return absl::OkStatus();
    }
    case FieldDescriptor::CPPTYPE_UINT32: {
      uint32_t value = 0;
      PLUMB_RETURN_IF_ERROR(ParseInteger(*field, text, &value));
      Put<uint32_t>(message, field, index, value, &Reflection::SetUInt32, &Reflection::AddUInt32,
                    &Reflection::SetRepeatedUInt32);
      return absl::OkStatus();
    }
    case FieldDescriptor::CPPTYPE_UINT64: {
      uint64_t value = 0;
      PLUMB_RETURN_IF_ERROR(ParseInteger(*field, text, &value));
      Put<uint64_t>(message, field, index, value, &Reflection::SetUInt64, &Reflection::AddUInt64,
                    &Reflection::SetRepeatedUInt64);
      return absl::OkStatus();
    }
    default: {
      double value = 0;
      if (!absl::SimpleAtod(text, &value) || !std::isfinite(value)) {
        return BadValue(*field, text, "a finite number");
      }
      if (field->cpp_type() == FieldDescriptor::CPPTYPE_FLOAT) {
        Put<float>(message, field, index, static_cast<float>(value), &Reflection::SetFloat,
                   &Reflection::AddFloat, &Reflection::SetRepeatedFloat);
      } else {
        Put<double>(message, field, index, value, &Reflection::SetDouble, &Reflection::AddDouble,
                    &Reflection::SetRepeatedDouble);
      }
      return absl::OkStatus();
    }
  }
}

absl::Status PutBool(Message* message, const FieldDescriptor* field, int index,
                     absl::string_view text) {
  if (text != "true" && text != "false") return BadValue(*field, text, "true or false");
  Put<bool>(message, field, index, text == "true", &Reflection::SetBool, &Reflection::AddBool,
            &Reflection::SetRepeatedBool);
  return absl::OkStatus();
}

absl::Status PutEnum(Message* message, const FieldDescriptor* field, int index,
                     absl::string_view text) {
  const auto* value = field->enum_type()->FindValueByName(std::string(text));
  if (value == nullptr) {
    std::vector<std::string> names;
    for (int i = 0; i < field->enum_type()->value_count(); ++i) {
      names.push_back(field->enum_type()->value(i)->name());
    }
    return BadValue(*field, text, absl::StrCat("one of ", absl::StrJoin(names, " ")));
  }
  Put<int>(message, field, index, value->number(), &Reflection::SetEnumValue,
           &Reflection::AddEnumValue, &Reflection::SetRepeatedEnumValue);
  return absl::OkStatus();
}

absl::Status PutString(Message* message, const FieldDescriptor* field, int index,
                       absl::string_view text) {
  const Reflection& reflection = *message->GetReflection();
  std::string value(text);
  if (!field->is_repeated()) {
    reflection.SetString(message, field, std::move(value));
  } else if (index == reflection.FieldSize(*message, field)) {
    reflection.AddString(message, field, std::move(value));
  } else {
    reflection.SetRepeatedString(message, field, index, std::move(value));
  }
  return absl::OkStatus();
}

absl::Status PutScalar(Message* message, const FieldDescriptor* field, int index,
                       absl::string_view text) {
  switch (field->cpp_type()) {
    case FieldDescriptor::CPPTYPE_MESSAGE:
      return absl::InvalidArgumentError(absl::StrCat(
          "field '", field->name(),
          "' is a message; set one of its fields: ", FieldNames(*field->message_type())));
    case FieldDescriptor::CPPTYPE_BOOL:
      return PutBool(message, field, index, text);
    case FieldDescriptor::CPPTYPE_ENUM:
      return PutEnum(message, field, index, text);
    case FieldDescriptor::CPPTYPE_STRING:
      return PutString(message, field, index, text);
    default:
      return PutNumber(message, field, index, text);
  }
}

// "a[2].b" and "a.2.b" both become {"a", "2", "b"}.
absl::StatusOr<std::vector<std::string>> SplitPath(absl::string_view path) {
  std::vector<std::string> parts =
      absl::StrSplit(absl::StrReplaceAll(path, {{"[", "."}, {"]", ""}}), '.');
  for (const std::string& part : parts) {
    if (part.empty()) {
      return absl::InvalidArgumentError(absl::StrCat("the path '", path, "' has an empty part"));
    }
  }
  return parts;
}

absl::StatusOr<int> IndexOf(const Message& message, const FieldDescriptor& field,
                            const std::vector<std::string>& parts, size_t at) {
  const int count = message.GetReflection()->FieldSize(message, &field);
  int index = -1;
  if (at >= parts.size() || !absl::SimpleAtoi(parts[at], &index) || index < 0 || index > count) {
    return absl::InvalidArgumentError(
        absl::StrCat("field '", field.name(), "' is a list of ", count, "; name an element, 0..",
                     count, " (", count, " appends): ", field.name(), "[", count, "]",
                     at < parts.size() ? absl::StrCat("; got '", parts[at], "'") : ""));
  }
  return index;
}

absl::Status Assign(absl::string_view path, absl::string_view value, Message* message) {
  PLUMB_ASSIGN_OR_RETURN(std::vector<std::string> parts, SplitPath(path));
  size_t at = 0;
  while (true) {
    const FieldDescriptor* field = message->GetDescriptor()->FindFieldByName(parts[at]);
    if (field == nullptr) {
      return absl::InvalidArgumentError(
          absl::StrCat("unknown field '", parts[at], "' in ", message->GetTypeName(),
                       "; it has: ", FieldNames(*message->GetDescriptor())));
    }
    ++at;
    int index = 0;
    if (field->is_repeated()) {
      PLUMB_ASSIGN_OR_RETURN(index, IndexOf(*message, *field, parts, at));
      ++at;
    }
    if (at >= parts.size()) return PutScalar(message, field, index, value);
    if (field->cpp_type() != FieldDescriptor::CPPTYPE_MESSAGE) {
      return absl::InvalidArgumentError(
          absl::StrCat("field '", field->name(), "' has no part '", parts[at], "'"));
    }
    const Reflection& reflection = *message->GetReflection();
    if (!field->is_repeated()) {
      message = reflection.MutableMessage(message, field);
    } else if (index == reflection.FieldSize(*message, field)) {
      message = reflection.AddMessage(message, field);
    } else {
      message = reflection.MutableRepeatedMessage(message, field, index);
    }
  }
}

}  // namespace

absl::Status ApplyOverride(absl::string_view assignment, Message* config) {
  const size_t equals = assignment.find('=');
  if (equals == absl::string_view::npos || equals == 0) {
    return absl::InvalidArgumentError(absl::StrCat(
        "--set takes path=value, such as server.listen=127.0.0.1:0; got '", assignment, "'"));
  }
  const absl::string_view path = absl::StripAsciiWhitespace(assignment.substr(0, equals));
  std::unique_ptr<Message> changed(config->New());
  changed->CopyFrom(*config);
  PLUMB_RETURN_IF_ERROR(Annotate(Assign(path, assignment.substr(equals + 1), changed.get()),
                                 absl::StrCat("--set ", assignment)));
  config->CopyFrom(*changed);
  return absl::OkStatus();
}

}  // namespace plumbline
