// The utility guard: what a plan may cost on text and prompts that no refusal is about. One rule
// for the stage that measures it and for the choice of a plan.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "services/coordinator/planner/planner.h"

namespace plumbline {

inline constexpr double kMaxPerplexityRatio = 1.10;
inline constexpr double kMaxMoreHarmlessRefusals = 0.05;

struct UtilityGuard {
  std::optional<double> perplexity_ratio;   // absent: not measured
  std::optional<double> harmless_increase;  // a fraction: 0.05 = 5 points
  // What a utility text or harmless prompts are there for and no number came of, in words. A guard
  // that could not be measured does not hold.
  std::vector<std::string> unmeasured;

  bool holds() const;
};

// Of a utility as measured, or not measured (an empty one).
UtilityGuard UtilityGuardOf(const StudyContext& context, const v1::UtilityResult& utility);

}  // namespace plumbline
