// From measured plans to a winner and a recommendation.
#pragma once

#include <string>

#include "absl/status/status.h"
#include "services/coordinator/planner/planner.h"

namespace plumbline {

// Plans up to this memory against the target compete first; dearer ones only if none of those
// holds.
inline constexpr double kComparableMemory = 1.25;
inline constexpr double kMaxPerplexityRatio = 1.10;
inline constexpr double kMaxMoreHarmlessRefusals = 0.05;

// After validation: marks the winner and the finalists (winner, the failure mode's plan, group-64,
// the next wider uniform width, first and last two layers).
void MarkFinalists(const StudyContext& context, v1::Report* report);

// After the floor: marks a recommended plan and writes the headline's recommendation, or "none
// found" with the best measured.
void Recommend(const StudyContext& context, v1::Report* report);

// The counts that a plan is judged by: test where it ran, else validation.
const v1::ConditionResult& FinalCounts(const v1::PlanResult& plan);

}  // namespace plumbline
