// Private to services/quant: characters of a plan's text, and errors that point at one of them.
#pragma once

#include <cstdint>
#include <optional>
#include <string>

#include "absl/status/status.h"
#include "absl/strings/string_view.h"

namespace plumbline {

class PlanScanner {
 public:
  // `text` must outlive the scanner.
  explicit PlanScanner(absl::string_view text) : text_(text) {}

  size_t position() const { return position_; }
  void SkipBlanks();
  bool AtEnd();
  // Skips blanks; consumes `c` if it is next.
  bool Take(char c);
  // The longest run of letters, digits and '_' from here, possibly empty; skips no blanks.
  absl::string_view TakeWord();

  // InvalidArgument: "plan: <message> at character <position + 1>", the text round the position, a
  // caret below it, and the hint.
  absl::Status ErrorAt(size_t position, absl::string_view message, absl::string_view hint) const;
  absl::Status ErrorHere(absl::string_view message, absl::string_view hint);

 private:
  absl::string_view text_;
  size_t position_ = 0;
};

// Decimal digits without sign or leading zeros ("0" itself apart), at most `max`.
std::optional<int32_t> ParseNumber(absl::string_view word, int32_t max);

// Bytes outside printable ASCII as '?', cut after 40 with "...".
std::string Printable(absl::string_view text);

// Removes `prefix` from *word; false if it does not begin with it.
bool ConsumePrefix(absl::string_view* word, absl::string_view prefix);

}  // namespace plumbline
