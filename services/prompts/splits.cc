#include <array>
#include <cstdint>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "services/common/digest.h"
#include "services/prompts/prompt_set.h"

namespace plumbline {
namespace {

constexpr char kSplitDomain[] = "plumbline-split/1\n";

}  // namespace

absl::string_view SplitName(Split split) {
  switch (split) {
    case Split::kA:
      return "A";
    case Split::kB:
      return "B";
    case Split::kValidation:
      return "validation";
    case Split::kTest:
      return "test";
  }
  return "";
}

absl::StatusOr<Split> ParseSplit(absl::string_view name) {
  for (const Split split : {Split::kA, Split::kB, Split::kValidation, Split::kTest}) {
    if (SplitName(split) == name) return split;
  }
  return absl::InvalidArgumentError(
      absl::StrCat("split must be one of A B validation test, got '", name, "'"));
}

Split SplitOfText(absl::string_view normalized_text) {
  const std::string digest = Sha256Hex(absl::StrCat(kSplitDomain, normalized_text));
  uint64_t bits = 0;
  for (int i = 0; i < 16; ++i) {
    const char c = digest[i];
    bits = bits << 4 | static_cast<uint64_t>(c <= '9' ? c - '0' : c - 'a' + 10);
  }
  const uint64_t place = bits % 100;
  if (place < 25) return Split::kA;
  if (place < 45) return Split::kB;
  return place < 65 ? Split::kValidation : Split::kTest;
}

Split SplitOf(const Prompt& prompt) { return SplitOfText(NormalizedText(prompt)); }

std::vector<Prompt> SelectSplit(const std::vector<Prompt>& prompts, Split split) {
  std::vector<Prompt> selected;
  for (const Prompt& prompt : prompts) {
    if (SplitOf(prompt) == split) selected.push_back(prompt);
  }
  return selected;
}

SplitCounts CountSplits(const std::vector<Prompt>& prompts) {
  SplitCounts counts;
  for (const Prompt& prompt : prompts) ++counts.count[static_cast<int>(SplitOf(prompt))];
  return counts;
}

}  // namespace plumbline
