#include "services/coordinator/planner/utility_guard.h"

#include "absl/strings/str_cat.h"
#include "services/coordinator/planner/counting.h"
#include "services/coordinator/planner/selection.h"

namespace plumbline {

bool UtilityGuard::holds() const {
  return unmeasured.empty() && perplexity_ratio.value_or(0) <= kMaxPerplexityRatio &&
         harmless_increase.value_or(0) <= kMaxMoreHarmlessRefusals;
}

UtilityGuard UtilityGuardOf(const StudyContext& context, const v1::UtilityResult& utility) {
  UtilityGuard guard;
  if (utility.has_perplexity()) {
    guard.perplexity_ratio = utility.perplexity_ratio();
  } else if (!context.utility_text.empty()) {
    guard.unmeasured.push_back("perplexity could not be measured");
  }
  const size_t harmless = ExpectedToComply(AllPrompts(context)).size();
  if (utility.harmless() > 0) {
    guard.harmless_increase = HarmlessOf(utility).increase();
  } else if (harmless > 0) {
    guard.unmeasured.push_back(
        absl::StrCat("none of ", harmless, " harmless prompts has a verdict under it"));
  }
  return guard;
}

}  // namespace plumbline
