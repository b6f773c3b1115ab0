// Typed access to untrusted JSON with errors that name the path and the value. Private to the
// folder.
#pragma once

#include <cstdint>
#include <limits>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/string_view.h"
#include "nlohmann/json.hpp"

namespace plumbline {

using Json = nlohmann::json;

// The value as JSON, cut to a length fit for a message.
inline std::string Shown(const Json& value) {
  std::string text = value.dump(-1, ' ', true, Json::error_handler_t::replace);
  if (text.size() > 80) text = absl::StrCat(text.substr(0, 77), "...");
  return text;
}

inline absl::Status WrongField(absl::string_view path, absl::string_view wanted, const Json& got) {
  return absl::InvalidArgumentError(absl::StrCat(path, " must be ", wanted, ", got ", Shown(got)));
}

// NaN, Infinity and comments are not JSON and are refused.
inline absl::StatusOr<Json> ParseJsonObject(absl::string_view text, absl::string_view what) {
  Json json = Json::parse(text.begin(), text.end(), nullptr, /*allow_exceptions=*/false);
  if (json.is_discarded()) {
    return absl::InvalidArgumentError(
        absl::StrCat(what, " is not valid JSON (", text.size(), " bytes)"));
  }
  if (!json.is_object()) return WrongField(what, "a JSON object", json);
  return json;
}

// Null counts as absent.
inline const Json* FindField(const Json& object, const char* key) {
  const auto it = object.find(key);
  return it == object.end() || it->is_null() ? nullptr : &*it;
}

inline absl::StatusOr<std::string> StringField(const Json& object, const char* key,
                                               absl::string_view path) {
  const Json* value = FindField(object, key);
  if (value == nullptr) return absl::InvalidArgumentError(absl::StrCat(path, key, " is missing"));
  if (!value->is_string()) return WrongField(absl::StrCat(path, key), "a string", *value);
  return value->get<std::string>();
}

inline absl::StatusOr<int64_t> AsInteger(const Json& value, absl::string_view path, int64_t low,
                                         int64_t high) {
  const std::string wanted = absl::StrCat("an integer from ", low, " to ", high);
  if (!value.is_number_integer()) return WrongField(path, wanted, value);
  if (value.is_number_unsigned() && value.get<uint64_t>() > uint64_t{INT64_MAX}) {
    return WrongField(path, wanted, value);
  }
  const int64_t number = value.get<int64_t>();
  if (number < low || number > high) return WrongField(path, wanted, value);
  return number;
}

inline absl::StatusOr<int64_t> IntegerField(const Json& object, const char* key,
                                            absl::string_view path, int64_t low, int64_t high) {
  const Json* value = FindField(object, key);
  if (value == nullptr) return absl::InvalidArgumentError(absl::StrCat(path, key, " is missing"));
  return AsInteger(*value, absl::StrCat(path, key), low, high);
}

}  // namespace plumbline
