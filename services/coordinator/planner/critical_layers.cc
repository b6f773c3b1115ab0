#include "services/coordinator/planner/critical_layers.h"

#include "services/common/status_macros.h"
#include "services/coordinator/planner/stages.h"
#include "services/pcr/layers.h"

namespace plumbline {
namespace {

LayerFlips FlipsOf(uint32_t layer, const v1::ConditionResult& counts) {
  return {.layer = LayerIndex(static_cast<int32_t>(layer)),
          .count = {.flips = static_cast<int64_t>(counts.flips()),
                    .prompts = static_cast<int64_t>(counts.baseline_refusals()),
                    .broken = static_cast<int64_t>(counts.degenerate() + counts.nonfinite())}};
}

v1::AttentionPattern PatternToProto(AttentionPattern pattern) {
  switch (pattern) {
    case AttentionPattern::kConcentrated:
      return v1::ATTENTION_PATTERN_CONCENTRATED;
    case AttentionPattern::kDistributedEarly:
      return v1::ATTENTION_PATTERN_DISTRIBUTED_EARLY;
    case AttentionPattern::kUltraDistributed:
      return v1::ATTENTION_PATTERN_ULTRA_DISTRIBUTED;
    default:
      return v1::ATTENTION_PATTERN_NONE;
  }
}

}  // namespace

absl::StatusOr<std::vector<uint32_t>> LayersToConfirm(const v1::Report& report) {
  std::vector<LayerFlips> screened;
  for (const v1::LayerResult& layer : report.layers()) {
    screened.push_back(FlipsOf(layer.layer(), layer.screen()));
  }
  PLUMB_ASSIGN_OR_RETURN(std::vector<LayerIndex> chosen, LayersForSecondStage(screened));
  std::vector<uint32_t> layers;
  for (LayerIndex layer : chosen) layers.push_back(static_cast<uint32_t>(layer.value()));
  return layers;
}

absl::Status MarkCriticalLayers(const StudyContext& context, v1::Report* report) {
  std::vector<LayerFlips> counts;
  for (const v1::LayerResult& layer : report->layers()) {
    counts.push_back(FlipsOf(layer.layer(), LayerCounts(layer)));
  }
  const Policy policy =
      context.study.policy() == v1::POLICY_PAPER ? Policy::kPaper : Policy::kPlumbline;
  PLUMB_ASSIGN_OR_RETURN(LayerSelection selection, SelectCriticalLayers(counts, policy));
  for (const LayerFinding& finding : selection.layers) {
    v1::LayerResult* layer = report->mutable_layers(finding.layer.value());
    layer->set_holm_p(finding.holm_p);
    layer->set_critical(finding.critical);
    layer->set_unclear(finding.unclear);
  }
  report->clear_critical_layers();
  report->clear_unclear_layers();
  for (LayerIndex layer : selection.unclear) {
    report->add_unclear_layers(static_cast<uint32_t>(layer.value()));
  }
  for (LayerIndex layer : selection.critical) {
    report->add_critical_layers(static_cast<uint32_t>(layer.value()));
  }
  report->set_pattern(PatternToProto(selection.pattern));
  return absl::OkStatus();
}

}  // namespace plumbline
