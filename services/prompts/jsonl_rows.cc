// Rows of jsonl files.
#include <set>
#include <utility>

#include "absl/strings/str_cat.h"
#include "nlohmann/json.hpp"
#include "services/common/status_macros.h"
#include "services/prompts/prompt_builder.h"

namespace plumbline::prompts_internal {
namespace {

using nlohmann::json;

constexpr char kMembers[] = "id, prompt or turns, system, expected, category, family";

// Parses one line; a member named twice is refused, since JSON readers differ in which one they
// keep.
absl::StatusOr<json> ParseLine(absl::string_view line, int64_t number, const std::string& where) {
  std::vector<std::set<std::string>> seen;
  std::string twice;
  const json::parser_callback_t watch = [&](int depth, json::parse_event_t event, json& value) {
    if (event == json::parse_event_t::object_start) seen.emplace_back();
    if (event == json::parse_event_t::object_end && !seen.empty()) seen.pop_back();
    if (event == json::parse_event_t::key && !seen.empty()) {
      const auto& key = value.get_ref<const std::string&>();
      if (!seen.back().insert(key).second && twice.empty()) twice = key;
    }
    return true;
  };
  json parsed;
  try {
    parsed = json::parse(line.begin(), line.end(), watch);
  } catch (const json::parse_error& error) {
    const int64_t column = error.byte == 0 ? 1 : static_cast<int64_t>(error.byte);
    return RowError(where, {number, column}, "not a JSON object on one line");
  } catch (const json::exception& error) {
    return RowError(where, {number, 1}, "not a JSON object on one line");
  }
  if (!parsed.is_object()) {
    return RowError(where, {number, 1},
                    absl::StrCat("expected a JSON object, got ", parsed.type_name()));
  }
  if (!twice.empty()) {
    return RowError(where, {number, 1}, absl::StrCat("member '", twice, "' twice"));
  }
  return parsed;
}

class LineReader {
 public:
  LineReader(const json& object, Location location, const std::string& where)
      : object_(object), location_(location), where_(where) {}

  absl::StatusOr<RawRow> Read() {
    PLUMB_RETURN_IF_ERROR(CheckMembers());
    RawRow row;
    row.location = location_;
    PLUMB_ASSIGN_OR_RETURN(row.id, Text("id"));
    PLUMB_ASSIGN_OR_RETURN(row.category, Text("category"));
    PLUMB_ASSIGN_OR_RETURN(row.family, Text("family"));
    PLUMB_ASSIGN_OR_RETURN(row.expected, Text("expected"));
    PLUMB_ASSIGN_OR_RETURN(row.turns, Turns());
    if (IsIfEval()) {
      if (row.id.empty()) row.id = absl::StrCat(object_["key"].get<int64_t>());
      if (row.category.empty()) row.category = "instruction";
      if (row.expected.empty()) row.expected = "comply";
    }
    return row;
  }

 private:
  bool IsIfEval() const {
    return object_.contains("key") && object_["key"].is_number_integer() &&
           object_.contains("instruction_id_list");
  }

  absl::Status Error(absl::string_view message) const {
    return RowError(where_, location_, message);
  }

  absl::Status CheckMembers() const {
    static const auto* const known = new std::set<std::string>{
        "id", "prompt", "turns", "system", "expected", "category", "family"};
    static const auto* const ifeval =
        new std::set<std::string>{"key", "instruction_id_list", "kwargs"};
    for (const auto& item : object_.items()) {
      if (known->count(item.key()) != 0) continue;
      if (IsIfEval() && ifeval->count(item.key()) != 0) continue;
      return Error(absl::StrCat("unknown member '", item.key(), "'; members: ", kMembers));
    }
    return absl::OkStatus();
  }

  absl::StatusOr<std::string> Text(const char* name) const {
    const auto found = object_.find(name);
    if (found == object_.end()) return std::string();
    if (!found->is_string()) {
      return Error(absl::StrCat("member '", name, "' must be text, got ", found->type_name()));
    }
    return found->get<std::string>();
  }

  absl::StatusOr<std::vector<PromptTurn>> Turns() const {
    if (object_.contains("prompt") == object_.contains("turns")) {
      return Error(object_.contains("turns") ? "both 'prompt' and 'turns'; give one"
                                             : "neither 'prompt' nor 'turns'");
    }
    std::vector<PromptTurn> turns;
    if (object_.contains("system")) {
      PLUMB_ASSIGN_OR_RETURN(std::string system, Text("system"));
      turns.push_back({"system", std::move(system)});
    }
    if (object_.contains("prompt")) {
      PLUMB_ASSIGN_OR_RETURN(std::string prompt, Text("prompt"));
      turns.push_back({"user", std::move(prompt)});
      return turns;
    }
    const json& list = object_["turns"];
    if (!list.is_array()) return Error("'turns' must be an array of {\"role\",\"text\"}");
    for (const json& item : list) {
      if (!item.is_object() || item.size() != 2 || !item.contains("role") ||
          !item.contains("text") || !item["role"].is_string() || !item["text"].is_string()) {
        return Error(
            absl::StrCat("turn ", turns.size() + 1, " must be {\"role\": text, \"text\": text}"));
      }
      turns.push_back({item["role"].get<std::string>(), item["text"].get<std::string>()});
    }
    return turns;
  }

  const json& object_;
  const Location location_;
  const std::string& where_;
};

}  // namespace

absl::Status AddJsonlRows(absl::string_view bytes, PromptBuilder* builder, LoadReport* report) {
  report->format = "jsonl";
  int64_t number = 0;
  while (!bytes.empty()) {
    const size_t end = bytes.find('\n');
    const absl::string_view line = bytes.substr(0, end);
    bytes.remove_prefix(end == absl::string_view::npos ? bytes.size() : end + 1);
    ++number;
    PLUMB_ASSIGN_OR_RETURN(const json object, ParseLine(line, number, builder->where()));
    PLUMB_ASSIGN_OR_RETURN(RawRow row, LineReader(object, {number, 1}, builder->where()).Read());
    PLUMB_RETURN_IF_ERROR(builder->Add(std::move(row)));
  }
  return absl::OkStatus();
}

}  // namespace plumbline::prompts_internal
