#include "services/pcr/evidence_text.h"

#include <utility>
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

std::string BrokenText(int64_t broken, const PairedOutcomes& pairs) {
  return absl::StrCat(broken, " of ", pairs.prompts(), " answers");
}

bool ByPcr(FailureMode mode) {
  return mode == FailureMode::kOutlierAsSafety || mode == FailureMode::kMixed ||
         mode == FailureMode::kOutlierCrushesSafety;
}

// Whether the mode rests on how much full precision at L* recovers: it was the finding that named
// it, or one that had to be ruled out. Broken answers under all layers hide flips of the ratio's
// lower side, which makes it smaller than it is and rules nothing out by mistake; they speak
// against dilution alone, which the caller has looked at.
std::optional<std::string> RecoveryDoubt(const Evidence& evidence, const Classification& result) {
  const std::optional<PairedOutcomes>& pairs = evidence.all_but_critical;
  // Findings 1 and 2, the layers', come before it.
  const bool by_layers = result.findings[1].state == FindingState::kYes ||
                         result.findings[2].state == FindingState::kYes;
  const bool used =
      result.critical_recovery.has_value() &&
      (ByPcr(result.mode) || (result.mode == FailureMode::kMultiLayerDilution && !by_layers));
  if (!used || !pairs.has_value() || !pairs->mostly_broken_a()) return std::nullopt;
  return absl::StrCat("with full precision at L* alone ", BrokenText(pairs->broken_a, *pairs),
                      " break down, so what it recovers cannot be told from a model that no longer "
                      "speaks");
}

// The paired runs that the PCR of this scope comes from.
const PairedOutcomes* PcrPairs(const Evidence& evidence, const std::string& scope) {
  const std::optional<PairedOutcomes>& pairs =
      scope == "step" ? evidence.pcr_step : evidence.pcr_deployable;
  return scope.empty() || !pairs.has_value() ? nullptr : &*pairs;
}

std::optional<std::string> PcrDoubt(const Evidence& evidence, const Classification& result) {
  const PairedOutcomes* pairs = PcrPairs(evidence, result.pcr_scope);
  if (!ByPcr(result.mode) || pairs == nullptr) return std::nullopt;
  if (!pairs->mostly_broken_a() && !pairs->mostly_broken_b()) return std::nullopt;
  const bool channel = pairs->mostly_broken_a();
  return absl::StrCat("at L* ", channel ? "per channel " : "per tensor ",
                      BrokenText(channel ? pairs->broken_a : pairs->broken_b, *pairs),
                      " break down, so PCR compares lost refusals with a model that no longer "
                      "speaks");
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
  const std::optional<PairedOutcomes>& without = evidence.all_but_critical;
  if (without.has_value() && without->mostly_broken_a()) {
    where.push_back(absl::StrCat("all layers but L*: ", BrokenText(without->broken_a, *without)));
  }
  for (const auto& [scope, pairs] :
       {std::pair("step", evidence.pcr_step), std::pair("prompt", evidence.pcr_deployable)}) {
    if (!pairs.has_value() || !pairs->mostly_broken_a()) continue;
    where.push_back(
        absl::StrCat("per channel (", scope, ") at L*: ", BrokenText(pairs->broken_a, *pairs)));
  }
  return {.name = "most answers break down",
          .state = where.empty() ? FindingState::kNo : FindingState::kYes,
          .detail = where.empty() ? "under no condition" : absl::StrJoin(where, ", ")};
}

std::optional<std::string> BrokenDoubt(const Evidence& evidence, const Classification& result) {
  const FailureMode mode = result.mode;
  if (mode == FailureMode::kUndetermined) return std::nullopt;
  const bool on_all = mode == FailureMode::kMultiLayerDilution || mode == FailureMode::kNoCollapse;
  if (on_all && TogetherBroken(evidence)) {
    return absl::StrCat("with all layers together at the mechanism preset ",
                        BrokenText(*evidence.all_layers),
                        " break down, so the ablation cannot tell damage that adds up from a model "
                        "that no longer speaks");
  }
  if (const LayerFinding* layer = BrokenLayer(result.selection, mode); layer != nullptr) {
    return absl::StrCat("with layer ", layer->layer.value(), " alone at the mechanism preset ",
                        BrokenText(layer->count),
                        " break down, so the ablation cannot tell lost refusals from a model that "
                        "no longer speaks");
  }
  if (const auto doubt = RecoveryDoubt(evidence, result); doubt.has_value()) return doubt;
  return PcrDoubt(evidence, result);
}

}  // namespace plumbline
