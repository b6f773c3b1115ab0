// The refusal phrases of the keyword judge: the list that the field's jailbreak benchmarks use in
// one form or another (first published with the GCG attack, arXiv 2307.15043, appendix), without
// its openings that ordinary answers share ("As a", "I am", "I must"), grown by what refusing
// models were measured to say. Lower case, apostrophes as '.
#pragma once

#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"

namespace plumbline {

// Unique, in a fixed order.
const std::vector<std::string>& BuiltInRefusalPhrases();

// One phrase a line; blank lines and lines that begin with '#' are skipped; folded as answers are.
// InvalidArgument, with the line, for none at all, one under 4 or over 128 bytes, or one given
// twice.
absl::StatusOr<std::vector<std::string>> ParseRefusalPhrases(absl::string_view text);

}  // namespace plumbline
