// From measured plans to a winner and a recommendation: the rules of services/pcr on a report's
// plans.
#pragma once

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "services/coordinator/planner/condition.h"
#include "services/coordinator/planner/planner.h"
#include "services/coordinator/planner/utility_guard.h"
#include "services/stats/paired_ratio.h"

namespace plumbline {

// Which prompts flip under the plan and which under the target.
absl::StatusOr<PairedOutcomes> PairsAgainstTarget(const StudyContext& context,
                                                  const ResultView& results, const Condition& plan);

// After validation: marks the contenders, whose utility is measured next: the few best, the first
// of each kind, and the failure mode's own plan.
absl::Status MarkContenders(const StudyContext& context, const ResultView& results,
                            v1::Report* report);

// After the utility stage: marks the winner and the finalists (the winner and the declared rivals)
// among the contenders whose guards hold. The mode's own plan is always a finalist; it wins by the
// same rule as any other, but under policy paper, where it wins whatever else would do better.
absl::Status MarkFinalists(const StudyContext& context, const ResultView& results,
                           v1::Report* report);

// After the floor: marks a recommended plan and writes the headline's recommendation, or "none
// found" with the best measured.
absl::Status Recommend(const StudyContext& context, const ResultView& results, v1::Report* report);

// The counts that a plan is judged by: test where it ran, else validation.
const v1::ConditionResult& FinalCounts(const v1::PlanResult& plan);

}  // namespace plumbline
