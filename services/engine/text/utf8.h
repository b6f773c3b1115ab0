// UTF-8 as Rust's String::from_utf8_lossy and Python's errors="replace" see it: every maximal
// prefix of a valid sequence that breaks off becomes one U+FFFD.
#pragma once

#include <cstddef>
#include <string>

#include "absl/strings/string_view.h"

namespace plumbline {

struct Utf8Step {
  char32_t codepoint = 0;
  size_t bytes = 1;        // > 0 for non-empty input: what this step consumes
  bool valid = false;      // false: `bytes` bytes are one broken sequence
  bool truncated = false;  // broken only because the input ends here
};

// The first character of `text`, which must not be empty.
Utf8Step DecodeUtf8(absl::string_view text);

void AppendUtf8(char32_t codepoint, std::string& out);

// `text` with each broken sequence replaced by U+FFFD.
std::string ReplaceBrokenUtf8(absl::string_view text);

// How many bytes at the end of `text` could still become a valid character.
size_t IncompleteTail(absl::string_view text);

}  // namespace plumbline
