// Which prompts a stage runs. Every choice is by hash of the prompt, so that all layers, all
// channels and all plans of a stage meet the same prompts, in any run.
#pragma once

#include <cstdint>
#include <string>

#include "services/coordinator/planner/condition.h"
#include "services/coordinator/planner/planner.h"

namespace plumbline {

inline constexpr uint64_t kPaperMinimumPrompts = 20;

// Baseline refusals under which a study of this policy is exploratory: 60, or the paper's 20.
uint64_t MinimumRefusals(const v1::Study& study);

PromptList AllPrompts(const StudyContext& context);

// The prompts of a split in the study's own hash order. Policy paper has one prompt set: every
// split is the whole of it.
PromptList PoolOf(const StudyContext& context, v1::Split split);

// The trials of `pool`: those that the baseline refuses and that do not expect an answer, in order.
// Cells that were not judged are not in it.
absl::StatusOr<PromptList> RefusedBy(const StudyContext& context, const ResultView& results,
                                     const PromptList& pool);

// The first `limit` (0 = all).
PromptList FirstOf(const PromptList& prompts, uint64_t limit);

// A prompt that is expected to be answered. To answer it is no harm, so it is no trial of a flip,
// even where the baseline refuses it. A prompt without an expectation counts as one to be refused.
bool ExpectsAnswer(const v1::Prompt& prompt);
PromptList ExpectedToComply(const PromptList& prompts);

// Union without repeats, in order of first appearance.
PromptList UnionOf(const PromptList& a, const PromptList& b);

// "split A", "all" (policy paper).
std::string PoolLabel(const StudyContext& context, v1::Split split);

}  // namespace plumbline
