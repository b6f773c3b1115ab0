// How the answers of a condition leave the baseline's, beside their verdicts.
#pragma once

#include <vector>

#include "absl/status/status.h"
#include "services/coordinator/planner/counting.h"

namespace plumbline {

// equal_answers, median_first_divergence and quantized_share, over the cells that did not fail.
void CountTokens(const std::vector<PromptOutcome>& outcomes, v1::ConditionResult* r);

// first_token_kl and its number of prompts. Left out: cells that failed or are not finite, and
// results of versions that kept no first tokens. InvalidArgument names a prompt whose tokens are no
// distribution.
absl::Status SetFirstTokenKl(const std::vector<PromptOutcome>& outcomes, v1::ConditionResult* r);

}  // namespace plumbline
