// Position-carrying checks of a prompt file's bytes. Internal to services/prompts.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>

#include "absl/status/status.h"
#include "absl/strings/string_view.h"

namespace plumbline::prompts_internal {

struct Location {
  int64_t line = 1;    // 1-based
  int64_t column = 1;  // 1-based, in bytes
};

Location LocationOf(absl::string_view bytes, size_t offset);

// InvalidArgument "<where>:<line>:<column>: <message>"; column 0 is left out.
absl::Status RowError(const std::string& where, Location location, absl::string_view message);

// Offset of the first byte that is not valid UTF-8 (overlong forms, surrogates and code points
// above U+10FFFF included), or npos.
size_t FirstInvalidUtf8(absl::string_view bytes);

// OK, or RowError at the first invalid UTF-8 byte or NUL.
absl::Status CheckFileBytes(absl::string_view bytes, const std::string& where);

}  // namespace plumbline::prompts_internal
