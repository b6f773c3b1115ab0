#include "services/quant/plan_scanner.h"

#include <algorithm>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"

namespace plumbline {
namespace {

bool IsBlank(char c) { return c == ' ' || c == '\t' || c == '\n' || c == '\r'; }
bool IsWordCharacter(char c) {
  return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '_';
}
std::string PrintableAll(absl::string_view text) {
  std::string printable(text);
  for (char& c : printable) {
    if (c < ' ' || c > '~') c = '?';
  }
  return printable;
}

}  // namespace

void PlanScanner::SkipBlanks() {
  while (position_ < text_.size() && IsBlank(text_[position_])) ++position_;
}

bool PlanScanner::AtEnd() {
  SkipBlanks();
  return position_ == text_.size();
}

bool PlanScanner::Take(char c) {
  SkipBlanks();
  if (position_ == text_.size() || text_[position_] != c) return false;
  ++position_;
  return true;
}

absl::string_view PlanScanner::TakeWord() {
  const size_t begin = position_;
  while (position_ < text_.size() && IsWordCharacter(text_[position_])) ++position_;
  return text_.substr(begin, position_ - begin);
}

absl::Status PlanScanner::ErrorAt(size_t position, absl::string_view message,
                                  absl::string_view hint) const {
  constexpr size_t kBefore = 60;
  constexpr size_t kAfter = 40;
  const size_t begin = position > kBefore ? position - kBefore : 0;
  const size_t end = std::min(text_.size(), position + kAfter);
  const std::string lead = begin > 0 ? "..." : "";
  const std::string excerpt = absl::StrCat(lead, PrintableAll(text_.substr(begin, end - begin)),
                                           end < text_.size() ? "..." : "");
  return absl::InvalidArgumentError(
      absl::StrCat("plan: ", message, " at character ", position + 1, "\n  ", excerpt, "\n  ",
                   std::string(lead.size() + position - begin, ' '), "^\n  ", hint));
}

absl::Status PlanScanner::ErrorHere(absl::string_view message, absl::string_view hint) {
  SkipBlanks();
  return ErrorAt(position_, message, hint);
}

std::optional<int32_t> ParseNumber(absl::string_view word, int32_t max) {
  if (word.empty() || word.size() > 9 || (word.size() > 1 && word[0] == '0')) return std::nullopt;
  int32_t value = 0;
  for (char c : word) {
    if (c < '0' || c > '9') return std::nullopt;
    value = value * 10 + (c - '0');
  }
  if (value > max) return std::nullopt;
  return value;
}

std::string Printable(absl::string_view text) {
  constexpr size_t kLongest = 40;
  if (text.size() <= kLongest) return PrintableAll(text);
  return absl::StrCat(PrintableAll(text.substr(0, kLongest)), "...");
}

bool ConsumePrefix(absl::string_view* word, absl::string_view prefix) {
  if (!absl::StartsWith(*word, prefix)) return false;
  word->remove_prefix(prefix.size());
  return true;
}

}  // namespace plumbline
