// Regular expressions of tokenizer files, in the Oniguruma dialect that `tokenizers` reads, run by
// PCRE2. What the two dialects read differently is rewritten, and what cannot be is refused by
// name.
#pragma once

#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"

namespace plumbline {

class Regex {
 public:
  // InvalidArgument with the construct that is not supported, or PCRE2's message and offset.
  static absl::StatusOr<Regex> Compile(absl::string_view oniguruma_pattern);
  // A pattern that matches `text` itself.
  static absl::StatusOr<Regex> Literal(absl::string_view text);

  // Byte ranges of all matches in valid UTF-8 text, in order. A search that passes the match limit
  // (hostile patterns alone) ends the list: the rest of the text has no match.
  std::vector<std::pair<size_t, size_t>> FindAll(absl::string_view text) const;

 private:
  explicit Regex(std::shared_ptr<const void> code) : code_(std::move(code)) {}
  static absl::StatusOr<Regex> CompilePcre(const std::string& pattern, absl::string_view shown);
  std::shared_ptr<const void> code_;  // pcre2_code, immutable
};

// The PCRE2 pattern that means what `pattern` means to Oniguruma. For tests.
absl::StatusOr<std::string> TranslateOniguruma(absl::string_view pattern);

}  // namespace plumbline
