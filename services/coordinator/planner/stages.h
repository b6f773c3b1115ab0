// The stages of a study, one factory each. What every stage does is told in docs/method.md.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "services/coordinator/planner/condition.h"
#include "services/coordinator/planner/planner.h"

namespace plumbline {

// What a stage costs at most, before anything ran.
struct StageBound {
  uint64_t cells = 0;
  uint64_t tokens = 0;  // prompt and answer
};

class PlannerStage : public Stage {
 public:
  virtual StageBound AtMost(const StudyContext& context) const = 0;
};

// A stage whose needs are the cells of a list of conditions.
class ConditionStage : public PlannerStage {
 public:
  absl::StatusOr<StageNeeds> Needs(const StudyContext& context, const v1::Report& report,
                                   const ResultView& results) const final;

 protected:
  virtual absl::StatusOr<std::vector<Condition>> Conditions(const StudyContext& context,
                                                            const v1::Report& report,
                                                            const ResultView& results) const = 0;
};

std::unique_ptr<PlannerStage> MakeBaselineStage();
std::unique_ptr<PlannerStage> MakeSweepStage();
std::unique_ptr<PlannerStage> MakeLayerScreenStage();
std::unique_ptr<PlannerStage> MakeLayerConfirmStage();
std::unique_ptr<PlannerStage> MakeCombinedStage();
std::unique_ptr<PlannerStage> MakeOutlierStage();
std::unique_ptr<PlannerStage> MakeKvErrorStage();
std::unique_ptr<PlannerStage> MakeChannelStage();
std::unique_ptr<PlannerStage> MakeModeStage();
std::unique_ptr<PlannerStage> MakeGivenPlansStage();
std::unique_ptr<PlannerStage> MakeValidationStage();
std::unique_ptr<PlannerStage> MakeTestStage();
std::unique_ptr<PlannerStage> MakeUtilityStage();
std::unique_ptr<PlannerStage> MakeFloorStage();
std::unique_ptr<PlannerStage> MakeHeadlineStage();

std::vector<std::unique_ptr<PlannerStage>> PlannerStagesOf(const v1::Study& study);

// ---- shared by several stages
// ---------------------------------------------------------------------

// What the user wants to serve, on every prompt.
Condition TargetCondition(const StudyContext& context);

// The layer that the channel stage looks at: the critical layer with the most flips, else the layer
// with the most flips; ties go to the earlier. Precondition: the layer stages have concluded.
uint32_t MostSensitiveLayer(const v1::Report& report);

// Counts of a layer alone: screen and confirmation together where it was confirmed.
const v1::ConditionResult& LayerCounts(const v1::LayerResult& layer);

// The prompts of split A that the layer stages use.
struct LayerPrompts {
  PromptList screen;
  PromptList all;  // screen and confirmation
};
absl::StatusOr<LayerPrompts> LayerPromptsOf(const StudyContext& context, const ResultView& results);

// Several layers at once; the first is all layers, the second all but the most sensitive one.
absl::StatusOr<std::vector<Condition>> CombinedConditions(const StudyContext& context,
                                                          const v1::Report& report,
                                                          const ResultView& results);

// The channel stage's conditions on split B, by name.
inline constexpr char kPerTensor[] = "all channels, per tensor";
inline constexpr char kPerChannelStep[] = "all channels, per channel (step)";
inline constexpr char kPerChannelPrompt[] = "all channels, per channel (prompt)";
absl::StatusOr<std::vector<Condition>> ChannelConditions(const StudyContext& context,
                                                         const v1::Report& report,
                                                         const ResultView& results);

// Every plan of the report on the prompts of validation that the baseline refuses, in the report's
// order.
absl::StatusOr<std::vector<Condition>> ValidationConditions(const StudyContext& context,
                                                            const v1::Report& report,
                                                            const ResultView& results);

// What a study pays for at most. Contenders: the three best and the first of each of four kinds, of
// which one is the second best. Finalists: the winner and the first of each kind. The failure
// mode's own plan is a kind of its own.
inline constexpr uint64_t kContendersAtMost = 6;
inline constexpr uint64_t kFinalistsAtMost = 5;

// Where plans are confirmed: the test split; where that has too few refusals for any plan to pass,
// split B as well, on which no plan was chosen.
struct ConfirmingPrompts {
  PromptList prompts;
  std::string label;
  bool widened = false;
};
absl::StatusOr<ConfirmingPrompts> ConfirmingPromptsOf(const StudyContext& context,
                                                      const ResultView& results);

// False where there is nothing to repair: the target is safe, or the baseline refuses nothing.
bool NeedsRepair(const v1::Report& report);

// Tokens of a prompt, guessed from its length.
uint64_t GuessPromptTokens(const StudyContext& context, const v1::Prompt& prompt);
// `conditions` times every prompt of the list, run to the end.
StageBound BoundOf(const StudyContext& context, const PromptList& prompts, uint64_t conditions);
// The longest `count` prompts of the list: nobody knows yet which ones the baseline refuses.
PromptList LongestOf(const StudyContext& context, const PromptList& prompts, uint64_t count);

}  // namespace plumbline
