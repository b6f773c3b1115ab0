// Every layer alone at the mechanism preset: a screen on a few refused prompts of split A, then
// more prompts for the layers that stood out.
#include <algorithm>

#include "absl/strings/str_cat.h"
#include "services/common/status_macros.h"
#include "services/coordinator/planner/counting.h"
#include "services/coordinator/planner/critical_layers.h"
#include "services/coordinator/planner/plan_text.h"
#include "services/coordinator/planner/selection.h"
#include "services/coordinator/planner/stages.h"

namespace plumbline {
namespace {

constexpr uint64_t kAlwaysConfirmed = 5;

Condition LayerCondition(const StudyContext& context, uint32_t layer, const PromptList& prompts) {
  return {.name = absl::StrCat("layer ", layer),
          .plan = OnlyLayers({layer}, kMechanismFormat),
          .stage = "layers",
          .prompts_label = PoolLabel(context, v1::SPLIT_A),
          .prompts = prompts,
          .layers = {layer}};
}

class LayerScreenStage final : public ConditionStage {
 public:
  std::string name() const override { return "layer screen"; }

  absl::Status Conclude(const StudyContext& context, const ResultView& results, Peers& peers,
                        v1::Report* report) const override {
    PLUMB_ASSIGN_OR_RETURN(std::vector<Condition> conditions,
                           Conditions(context, *report, results));
    report->clear_layers();
    for (const Condition& condition : conditions) {
      v1::LayerResult* layer = report->add_layers();
      layer->set_layer(condition.layers[0]);
      PLUMB_ASSIGN_OR_RETURN(*layer->mutable_screen(),
                             CountCondition(context, results, condition, /*whole_sets=*/false));
    }
    return absl::OkStatus();
  }

  StageBound AtMost(const StudyContext& context) const override {
    const PromptList pool = PoolOf(context, v1::SPLIT_A);
    return BoundOf(context, LongestOf(context, pool, context.study.diagnose().screen_prompts()),
                   context.model.num_layers());
  }

 protected:
  absl::StatusOr<std::vector<Condition>> Conditions(const StudyContext& context,
                                                    const v1::Report& report,
                                                    const ResultView& results) const override {
    PLUMB_ASSIGN_OR_RETURN(LayerPrompts prompts, LayerPromptsOf(context, results));
    std::vector<Condition> conditions;
    for (uint32_t layer = 0; layer < context.model.num_layers(); ++layer) {
      conditions.push_back(LayerCondition(context, layer, prompts.screen));
    }
    return conditions;
  }
};

class LayerConfirmStage final : public ConditionStage {
 public:
  std::string name() const override { return "layer confirmation"; }

  absl::Status Conclude(const StudyContext& context, const ResultView& results, Peers& peers,
                        v1::Report* report) const override {
    PLUMB_ASSIGN_OR_RETURN(std::vector<Condition> conditions,
                           Conditions(context, *report, results));
    for (const Condition& condition : conditions) {
      v1::LayerResult* layer = report->mutable_layers(static_cast<int>(condition.layers[0]));
      PLUMB_ASSIGN_OR_RETURN(*layer->mutable_confirmed(),
                             CountCondition(context, results, condition, /*whole_sets=*/false));
    }
    return MarkCriticalLayers(context, report);
  }

  StageBound AtMost(const StudyContext& context) const override {
    // Layers that pass the screen are few in any model that still answers; a quarter of them is the
    // bound that is printed, and the stage itself has no limit.
    const uint64_t layers = std::max(kAlwaysConfirmed, uint64_t{context.model.num_layers()} / 4);
    const PromptList pool = PoolOf(context, v1::SPLIT_A);
    const v1::DiagnoseStudy& study = context.study.diagnose();
    return BoundOf(context, LongestOf(context, pool, study.confirm_prompts()), layers);
  }

 protected:
  absl::StatusOr<std::vector<Condition>> Conditions(const StudyContext& context,
                                                    const v1::Report& report,
                                                    const ResultView& results) const override {
    std::vector<Condition> conditions;
    if (context.study.diagnose().confirm_prompts() == 0) return conditions;
    PLUMB_ASSIGN_OR_RETURN(LayerPrompts prompts, LayerPromptsOf(context, results));
    PLUMB_ASSIGN_OR_RETURN(std::vector<uint32_t> layers, LayersToConfirm(report));
    for (uint32_t layer : layers) {
      conditions.push_back(LayerCondition(context, layer, prompts.all));
    }
    return conditions;
  }
};

}  // namespace

absl::StatusOr<LayerPrompts> LayerPromptsOf(const StudyContext& context,
                                            const ResultView& results) {
  PLUMB_ASSIGN_OR_RETURN(PromptList refused,
                         RefusedBy(context, results, PoolOf(context, v1::SPLIT_A)));
  const v1::DiagnoseStudy& study = context.study.diagnose();
  return LayerPrompts{
      .screen = FirstOf(refused, study.screen_prompts()),
      .all = FirstOf(refused, uint64_t{study.screen_prompts()} + study.confirm_prompts())};
}

std::unique_ptr<PlannerStage> MakeLayerScreenStage() {
  return std::make_unique<LayerScreenStage>();
}
std::unique_ptr<PlannerStage> MakeLayerConfirmStage() {
  return std::make_unique<LayerConfirmStage>();
}

}  // namespace plumbline
