#include "services/coordinator/planner/answer_shift.h"

#include <algorithm>

#include "absl/strings/str_cat.h"
#include "services/common/status_macros.h"
#include "services/stats/divergence.h"

namespace plumbline {
namespace {

// First index at which the answers differ; -1 = they don't. An answer that ended because its
// verdict was decided is a prefix, so only the common part is compared.
int64_t FirstDivergence(const v1::CellResult& a, const v1::CellResult& b) {
  const int common = std::min(a.token_ids_size(), b.token_ids_size());
  for (int i = 0; i < common; ++i) {
    if (a.token_ids(i) != b.token_ids(i)) return i;
  }
  const v1::CellResult& shorter = a.token_ids_size() < b.token_ids_size() ? a : b;
  const bool prefix = shorter.finish_reason() == v1::FINISH_REASON_VERDICT;
  return a.token_ids_size() == b.token_ids_size() || prefix ? -1 : common;
}

std::vector<TokenLogProbability> FirstTokens(const JudgedCell& cell) {
  std::vector<TokenLogProbability> tokens;
  for (const v1::TokenProbability& first : cell.result.first_tokens()) {
    tokens.push_back({.token = first.token(), .log_probability = first.log_probability()});
  }
  return tokens;
}

}  // namespace

void CountTokens(const std::vector<PromptOutcome>& outcomes, v1::ConditionResult* r) {
  uint64_t equal = 0;
  double elements = 0, quantized = 0;
  std::vector<int64_t> divergences;
  for (const PromptOutcome& o : outcomes) {
    if (o.cell->poisoned || o.baseline->poisoned) continue;
    elements += static_cast<double>(o.cell->result.kv_elements());
    quantized += static_cast<double>(o.cell->result.kv_elements_quantized());
    const int64_t at = FirstDivergence(o.baseline->result, o.cell->result);
    if (at < 0) {
      ++equal;
    } else {
      divergences.push_back(at);
    }
  }
  r->set_equal_answers(equal);
  r->set_quantized_share(elements > 0 ? quantized / elements : 0);
  r->set_median_first_divergence(-1);
  if (divergences.empty()) return;
  std::sort(divergences.begin(), divergences.end());
  const size_t n = divergences.size();
  r->set_median_first_divergence(
      static_cast<double>(divergences[(n - 1) / 2] + divergences[n / 2]) / 2);
}

absl::Status SetFirstTokenKl(const std::vector<PromptOutcome>& outcomes, v1::ConditionResult* r) {
  double sum = 0;
  uint64_t prompts = 0;
  for (const PromptOutcome& o : outcomes) {
    if (o.cell->poisoned || o.baseline->poisoned) continue;
    const std::vector<TokenLogProbability> p = FirstTokens(*o.baseline), q = FirstTokens(*o.cell);
    if (p.empty() || q.empty()) continue;
    const absl::StatusOr<double> divergence = DivergenceLowerBound(p, q);
    if (!divergence.ok()) {
      return Annotate(divergence.status(), absl::StrCat("first tokens of ", o.prompt->prompt_set(),
                                                        "/", o.prompt->id()));
    }
    sum += *divergence;
    ++prompts;
  }
  r->set_first_token_kl(prompts > 0 ? sum / static_cast<double>(prompts) : 0);
  r->set_first_token_kl_prompts(prompts);
  return absl::OkStatus();
}

}  // namespace plumbline
