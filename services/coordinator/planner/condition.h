// A condition of a study: one plan on one list of prompts, and its cells.
#pragma once

#include <cstdint>
#include <map>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "services/coordinator/planner/planner.h"

namespace plumbline {

using PromptList = std::vector<const v1::Prompt*>;  // point into StudyContext.prompts

struct Condition {
  std::string name;
  std::string plan;  // any spelling
  std::string stage;
  std::string prompts_label;  // ConditionResult.prompts
  PromptList prompts;
  uint64_t jitter_seed = 0;
  std::vector<uint32_t> layers;  // ablations: the layers at the tested format
};

// Makes the cells of a study. Not thread safe; cheap to build, so one a call.
class CellFactory {
 public:
  explicit CellFactory(const StudyContext& context) : context_(context) {}

  // InvalidArgument carries the plan's caret line.
  absl::StatusOr<std::string> Canonical(const std::string& plan);
  absl::StatusOr<PlannedCell> Generate(const v1::Prompt& prompt, const std::string& plan,
                                       uint64_t jitter_seed, const std::string& condition);
  // Perplexity of the study's utility text, which is scored as one prompt. Serving such a text
  // would decode it, token by token from the cache, so the plan is read as it is stored
  // (ReadAsStored): under `exact` a prompt reads nothing quantized, and any plan would score as the
  // baseline does.
  absl::StatusOr<PlannedCell> Score(const std::string& plan, const std::string& condition);
  absl::Status AddCells(const Condition& condition, StageNeeds* needs);

 private:
  const StudyContext& context_;
  std::map<std::string, std::string> canonical_;  // by text
};

// The turns that a study sends for a prompt: its own system turn, else the study's.
std::vector<v1::ChatTurn> TurnsOf(const v1::Study& study, const v1::Prompt& prompt);

}  // namespace plumbline
