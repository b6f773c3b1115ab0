// Typed access to the untrusted JSON of tokenizer.json and chat_format.json. Private to the folder.
#pragma once

#include <string>

#include "absl/status/statusor.h"
#include "absl/strings/str_cat.h"
#include "nlohmann/json.hpp"
#include "services/engine/text/regex.h"

namespace plumbline {

using Json = nlohmann::json;

inline std::string ShortDump(const Json& value) {
  std::string text = value.dump(-1, ' ', true, Json::error_handler_t::replace);
  if (text.size() > 80) text = absl::StrCat(text.substr(0, 77), "...");
  return text;
}

inline absl::Status Mismatch(absl::string_view path, absl::string_view key,
                             absl::string_view wanted, const Json* got) {
  return absl::InvalidArgumentError(absl::StrCat(path, ".", key, " must be ", wanted, ", got ",
                                                 got == nullptr ? "nothing" : ShortDump(*got)));
}

inline const Json* MemberOf(const Json& object, const char* key) {
  if (!object.is_object()) return nullptr;
  const auto it = object.find(key);
  return it == object.end() || it->is_null() ? nullptr : &*it;
}

inline absl::StatusOr<std::string> StringAt(const Json& object, const char* key,
                                            absl::string_view path) {
  const Json* value = MemberOf(object, key);
  if (value == nullptr || !value->is_string()) return Mismatch(path, key, "a string", value);
  return value->get<std::string>();
}

inline absl::StatusOr<bool> BoolAt(const Json& object, const char* key, absl::string_view path,
                                   bool otherwise) {
  const Json* value = MemberOf(object, key);
  if (value == nullptr) return otherwise;
  if (!value->is_boolean()) return Mismatch(path, key, "true or false", value);
  return value->get<bool>();
}

inline absl::StatusOr<const Json*> ArrayAt(const Json& object, const char* key,
                                           absl::string_view path) {
  const Json* value = MemberOf(object, key);
  if (value == nullptr || !value->is_array()) return Mismatch(path, key, "a list", value);
  return value;
}

// {"pattern": {"String": "..."}} or {"pattern": {"Regex": "..."}}.
inline absl::StatusOr<Regex> PatternAt(const Json& object, absl::string_view path) {
  const Json* pattern = MemberOf(object, "pattern");
  if (pattern != nullptr) {
    const Json* regex = MemberOf(*pattern, "Regex");
    if (regex != nullptr && regex->is_string()) return Regex::Compile(regex->get<std::string>());
    const Json* literal = MemberOf(*pattern, "String");
    if (literal != nullptr && literal->is_string() && !literal->get<std::string>().empty()) {
      return Regex::Literal(literal->get<std::string>());
    }
  }
  return Mismatch(path, "pattern", "{\"Regex\": text} or {\"String\": text}", pattern);
}

}  // namespace plumbline
