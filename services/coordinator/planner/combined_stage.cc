// Several layers at once at the mechanism preset: all, all but the most sensitive one, the first k
// and the last k. They tell one broken layer from damage that adds up.
#include "absl/strings/str_cat.h"
#include "services/common/status_macros.h"
#include "services/coordinator/planner/counting.h"
#include "services/coordinator/planner/plan_text.h"
#include "services/coordinator/planner/selection.h"
#include "services/coordinator/planner/stages.h"

namespace plumbline {
namespace {

constexpr uint32_t kCumulative[] = {1, 2, 4, 8, 16};

Condition Combined(const StudyContext& context, const std::string& name,
                   const std::vector<uint32_t>& layers, const PromptList& prompts,
                   v1::Split split = v1::SPLIT_A) {
  return {.name = name,
          .plan = OnlyLayers(layers, kMechanismFormat),
          .stage = "combined",
          .prompts_label = PoolLabel(context, split),
          .prompts = prompts,
          .layers = layers};
}

class CombinedStage final : public ConditionStage {
 public:
  std::string name() const override { return "combined layers"; }
  bool NextMayBegin() const override { return true; }

  absl::Status Conclude(const StudyContext& context, const ResultView& results, Peers& peers,
                        v1::Report* report) const override {
    PLUMB_ASSIGN_OR_RETURN(std::vector<Condition> conditions,
                           Conditions(context, *report, results));
    report->clear_combined();
    for (const Condition& condition : conditions) {
      PLUMB_ASSIGN_OR_RETURN(*report->add_combined(),
                             CountCondition(context, results, condition, /*whole_sets=*/false));
    }
    return absl::OkStatus();
  }

  StageBound AtMost(const StudyContext& context) const override {
    const v1::DiagnoseStudy& study = context.study.diagnose();
    const PromptList pool = PoolOf(context, v1::SPLIT_A);
    const StageBound cumulative = BoundOf(context, LongestOf(context, pool, study.screen_prompts()),
                                          2 * std::size(kCumulative));
    const StageBound whole = BoundOf(context, PoolOf(context, v1::SPLIT_B), 2);
    return {cumulative.cells + whole.cells, cumulative.tokens + whole.tokens};
  }

 protected:
  absl::StatusOr<std::vector<Condition>> Conditions(const StudyContext& context,
                                                    const v1::Report& report,
                                                    const ResultView& results) const override {
    return CombinedConditions(context, report, results);
  }
};

}  // namespace

absl::StatusOr<std::vector<Condition>> CombinedConditions(const StudyContext& context,
                                                          const v1::Report& report,
                                                          const ResultView& results) {
  PLUMB_ASSIGN_OR_RETURN(LayerPrompts prompts, LayerPromptsOf(context, results));
  const uint32_t layers = context.model.num_layers();
  const uint32_t critical = MostSensitiveLayer(report);
  std::vector<uint32_t> others;
  for (uint32_t layer = 0; layer < layers; ++layer) {
    if (layer != critical) others.push_back(layer);
  }
  std::vector<Condition> conditions;
  // The most sensitive layer was chosen on A: what full precision there recovers is measured on B.
  PLUMB_ASSIGN_OR_RETURN(const PromptList fresh,
                         RefusedBy(context, results, PoolOf(context, v1::SPLIT_B)));
  conditions.push_back(Combined(context, "all layers", LayerRange(0, layers), fresh, v1::SPLIT_B));
  conditions.push_back(
      Combined(context, absl::StrCat("all layers but ", critical), others, fresh, v1::SPLIT_B));
  for (uint32_t k : kCumulative) {
    if (k >= layers) continue;
    conditions.push_back(
        Combined(context, absl::StrCat("first ", k), LayerRange(0, k), prompts.screen));
    conditions.push_back(
        Combined(context, absl::StrCat("last ", k), LayerRange(layers - k, k), prompts.screen));
  }
  return conditions;
}

std::unique_ptr<PlannerStage> MakeCombinedStage() { return std::make_unique<CombinedStage>(); }

}  // namespace plumbline
