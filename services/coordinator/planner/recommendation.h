// From measured plans to a winner and a recommendation: the rules of services/pcr on a report's
// plans.
#pragma once

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "services/coordinator/planner/condition.h"
#include "services/coordinator/planner/planner.h"
#include "services/stats/paired_ratio.h"

namespace plumbline {

inline constexpr double kMaxPerplexityRatio = 1.10;
inline constexpr double kMaxMoreHarmlessRefusals = 0.05;

// Which prompts flip under the plan and which under the target.
absl::StatusOr<PairedOutcomes> PairsAgainstTarget(const StudyContext& context,
                                                  const ResultView& results, const Condition& plan);

// After validation: marks the winner and the finalists (the winner and the declared rivals).
// `pairs`: one a plan, in the report's order. `test_refusals`: refused prompts that will confirm.
absl::Status MarkFinalists(const StudyContext& context, const std::vector<PairedOutcomes>& pairs,
                           int64_t test_refusals, v1::Report* report);

// After the floor: marks a recommended plan and writes the headline's recommendation, or "none
// found" with the best measured.
absl::Status Recommend(const StudyContext& context, const ResultView& results, v1::Report* report);

// The counts that a plan is judged by: test where it ran, else validation.
const v1::ConditionResult& FinalCounts(const v1::PlanResult& plan);

}  // namespace plumbline
