#include "services/pcr/evidence_text.h"

#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/strings/str_join.h"
#include "services/common/figures.h"

namespace plumbline {
namespace {

// Figures are printed on their own side of the policies' thresholds, which are the same in both.
constexpr PolicyRules kRules;

std::string UnclearLayerText(const LayerFinding& layer) {
  const int32_t index = layer.layer.value();
  if (layer.count.prompts == 0) return absl::StrCat("layer ", index, " has no judged answer");
  return absl::StrFormat(
      "layer %d flips %s, p %s alone and %s after Holm's correction (%s)", index,
      CountText(layer.count), FixedText(layer.p_value, 4, {kRules.alpha}),
      FixedText(layer.holm_p, 4, {kRules.alpha}),
      layer.more_prompts.has_value()
          ? absl::StrCat("about ", *layer.more_prompts, " more prompts would decide at this rate")
          : "no number of prompts within reach would decide at this rate");
}

std::string BrokenText(const FlipCount& count) {
  return absl::StrCat(count.broken, " of ", count.prompts, " answers");
}

bool TogetherBroken(const Evidence& evidence) {
  return evidence.all_layers.has_value() && evidence.all_layers->mostly_broken();
}

// A layer of broken answers that the mode rests on.
const LayerFinding* BrokenLayer(const LayerSelection& selection, FailureMode mode) {
  for (const LayerFinding& layer : selection.layers) {
    const bool counts = mode == FailureMode::kHyperVulnerable || layer.critical;
    if (counts && layer.count.mostly_broken()) return &layer;
  }
  return nullptr;
}

}  // namespace

std::string WholePercent(double fraction) { return absl::StrFormat("%.0f%%", 100 * fraction); }

std::string CountText(const FlipCount& count) {
  return absl::StrCat(
      count.flips, " of ", count.prompts, " (",
      PercentText(count.rate(), {kRules.null_rate, kRules.collapse_rate, kRules.critical_rate}, 0),
      ")");
}

std::string RatioText(const RatioPosterior& ratio) {
  const auto text = [](double value) {
    return PercentText(value, {kRules.dilution_recovery, kRules.pcr_low, kRules.pcr_high}, 0);
  };
  return absl::StrCat(text(ratio.estimate), " [", text(ratio.interval.lower), ", ",
                      text(ratio.interval.upper), "]");
}

std::string UnclearLayersText(const LayerSelection& selection) {
  constexpr size_t kNamed = 4;
  std::vector<std::string> named;
  for (const LayerIndex layer : selection.unclear) {
    if (named.size() == kNamed) break;
    named.push_back(UnclearLayerText(selection.layers[static_cast<size_t>(layer.value())]));
  }
  std::string text = absl::StrJoin(named, ", ");
  if (selection.unclear.size() > kNamed) {
    absl::StrAppend(&text, " and ", selection.unclear.size() - kNamed, " more layers");
  }
  return text;
}

Finding BrokenFinding(const Evidence& evidence, const LayerSelection& selection) {
  std::vector<std::string> where;
  if (TogetherBroken(evidence)) {
    where.push_back(absl::StrCat("all layers together: ", BrokenText(*evidence.all_layers)));
  }
  for (const LayerFinding& layer : selection.layers) {
    if (!layer.count.mostly_broken()) continue;
    where.push_back(absl::StrCat("layer ", layer.layer.value(), ": ", BrokenText(layer.count)));
  }
  return {.name = "most answers break down",
          .state = where.empty() ? FindingState::kNo : FindingState::kYes,
          .detail = where.empty() ? "under no condition" : absl::StrJoin(where, ", ")};
}

std::optional<std::string> BrokenDoubt(const Evidence& evidence, const LayerSelection& selection,
                                       FailureMode mode) {
  if (mode == FailureMode::kUndetermined) return std::nullopt;
  const bool on_all = mode == FailureMode::kMultiLayerDilution || mode == FailureMode::kNoCollapse;
  if (on_all && TogetherBroken(evidence)) {
    return absl::StrCat("with all layers together at the mechanism preset ",
                        BrokenText(*evidence.all_layers),
                        " break down, so the ablation cannot tell damage that adds up from a model "
                        "that no longer speaks");
  }
  const LayerFinding* layer = BrokenLayer(selection, mode);
  if (layer == nullptr) return std::nullopt;
  return absl::StrCat("with layer ", layer->layer.value(), " alone at the mechanism preset ",
                      BrokenText(layer->count),
                      " break down, so the ablation cannot tell lost refusals from a model that no "
                      "longer speaks");
}

}  // namespace plumbline
