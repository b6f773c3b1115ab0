#include "services/pcr/layers.h"

#include <algorithm>
#include <numeric>

#include "absl/strings/str_cat.h"
#include "services/common/status_macros.h"
#include "services/stats/binomial.h"
#include "services/stats/multiple_testing.h"

namespace plumbline {
namespace {

constexpr int64_t kMostPrompts = 10'000;  // beyond them "more prompts" is no advice

absl::Status CheckLayers(absl::Span<const LayerFlips> layers) {
  std::vector<LayerIndex> seen;
  for (const LayerFlips& layer : layers) {
    if (layer.layer.value() < 0) {
      return absl::InvalidArgumentError(
          absl::StrCat("layer ", layer.layer.value(), " is negative"));
    }
    PLUMB_RETURN_IF_ERROR(
        Annotate(CheckFlips(layer.count), absl::StrCat("layer ", layer.layer.value())));
    seen.push_back(layer.layer);
  }
  std::sort(seen.begin(), seen.end());
  const auto twice = std::adjacent_find(seen.begin(), seen.end());
  if (twice == seen.end()) return absl::OkStatus();
  return absl::InvalidArgumentError(absl::StrCat("layer ", twice->value(), " is given twice"));
}

// Compares a / b with c / d without rounding.
bool RateAbove(const FlipCount& a, const FlipCount& b) {
  return a.flips * std::max<int64_t>(1, b.prompts) > b.flips * std::max<int64_t>(1, a.prompts);
}

// Positions in `layers`, most flips first.
std::vector<size_t> Ranking(absl::Span<const LayerFlips> layers, absl::Span<const double> error) {
  std::vector<size_t> order(layers.size());
  std::iota(order.begin(), order.end(), size_t{0});
  std::sort(order.begin(), order.end(), [&](size_t a, size_t b) {
    if (RateAbove(layers[a].count, layers[b].count)) return true;
    if (RateAbove(layers[b].count, layers[a].count)) return false;
    if (!error.empty() && error[a] != error[b]) return error[a] > error[b];
    return layers[a].layer < layers[b].layer;
  });
  return order;
}

// `factor`: what Holm's correction multiplies this layer's p by.
absl::StatusOr<std::optional<int64_t>> MorePrompts(const FlipCount& count, int64_t factor,
                                                   const PolicyRules& rules) {
  for (int64_t n = count.prompts + 1; n <= count.prompts + kMostPrompts; ++n) {
    const int64_t flips = count.flips * n / count.prompts;
    PLUMB_ASSIGN_OR_RETURN(const double p,
                           BinomialTest(flips, n, rules.null_rate, Alternative::kGreater));
    if (p * static_cast<double>(factor) < rules.alpha) return n - count.prompts;
  }
  return std::nullopt;
}

absl::Status MarkUnclear(const PolicyRules& rules, std::vector<LayerFinding>* findings) {
  for (LayerFinding& finding : *findings) {
    finding.unclear = finding.count.prompts == 0;
    if (finding.unclear || !rules.test_layers) continue;
    if (finding.p_value >= rules.alpha || finding.holm_p < rules.alpha) continue;
    finding.unclear = true;
    // By then it may be the smallest of all.
    const auto factor = static_cast<int64_t>(findings->size());
    PLUMB_ASSIGN_OR_RETURN(finding.more_prompts, MorePrompts(finding.count, factor, rules));
  }
  return absl::OkStatus();
}

absl::StatusOr<std::vector<LayerFinding>> Findings(absl::Span<const LayerFlips> layers,
                                                   const PolicyRules& rules) {
  std::vector<LayerFinding> findings;
  std::vector<double> p_values;
  for (const LayerFlips& layer : layers) {
    LayerFinding finding{.layer = layer.layer, .count = layer.count};
    const FlipCount& count = layer.count;
    PLUMB_ASSIGN_OR_RETURN(finding.interval, WilsonInterval(count.flips, count.prompts));
    PLUMB_ASSIGN_OR_RETURN(finding.p_value, BinomialTest(count.flips, count.prompts,
                                                         rules.null_rate, Alternative::kGreater));
    p_values.push_back(finding.p_value);
    findings.push_back(finding);
  }
  PLUMB_ASSIGN_OR_RETURN(const std::vector<double> adjusted, HolmAdjust(p_values));
  for (size_t i = 0; i < findings.size(); ++i) {
    LayerFinding& finding = findings[i];
    finding.holm_p = adjusted[i];
    const double rate = finding.count.rate();
    const bool high = finding.count.prompts > 0 &&
                      (rate > rules.critical_rate ||
                       (rules.critical_includes_rate && rate >= rules.critical_rate));
    finding.critical = high && (!rules.test_layers || finding.holm_p < rules.alpha);
  }
  PLUMB_RETURN_IF_ERROR(MarkUnclear(rules, &findings));
  return findings;
}

}  // namespace

absl::Status CheckFlips(const FlipCount& count) {
  PLUMB_RETURN_IF_ERROR(CheckCounts(count.flips, count.prompts));
  if (count.broken >= 0 && count.flips + count.broken <= count.prompts) return absl::OkStatus();
  return absl::InvalidArgumentError(absl::StrCat(count.flips, " flips and ", count.broken,
                                                 " broken answers of ", count.prompts,
                                                 " prompts cannot be"));
}

absl::StatusOr<std::vector<LayerIndex>> LayersForSecondStage(
    absl::Span<const LayerFlips> first_stage, const SecondStageOptions& options) {
  PLUMB_RETURN_IF_ERROR(CheckLayers(first_stage));
  const std::vector<size_t> order = Ranking(first_stage, {});
  std::vector<LayerIndex> chosen;
  for (size_t rank = 0; rank < order.size(); ++rank) {
    const LayerFlips& layer = first_stage[order[rank]];
    const bool unknown = layer.count.prompts == 0;
    if (unknown || layer.count.flips >= options.min_flips ||
        static_cast<int64_t>(rank) < options.top) {
      chosen.push_back(layer.layer);
    }
  }
  std::sort(chosen.begin(), chosen.end());
  return chosen;
}

absl::StatusOr<LayerSelection> SelectCriticalLayers(absl::Span<const LayerFlips> layers,
                                                    Policy policy,
                                                    absl::Span<const double> kv_error) {
  PLUMB_RETURN_IF_ERROR(CheckLayers(layers));
  if (layers.empty()) return absl::InvalidArgumentError("no layer was measured");
  if (!kv_error.empty() && kv_error.size() != layers.size()) {
    return absl::InvalidArgumentError(
        absl::StrCat("kv_error has ", kv_error.size(), " values for ", layers.size(), " layers"));
  }
  const PolicyRules& rules = RulesOf(policy);
  LayerSelection selection;
  PLUMB_ASSIGN_OR_RETURN(selection.layers, Findings(layers, rules));
  int64_t above = 0;
  selection.every_layer_above = true;
  for (const LayerFinding& finding : selection.layers) {
    const bool high = finding.count.rate() > rules.critical_rate;
    above += high ? 1 : 0;
    // "Every layer" is an intersection-union test: each p below alpha is enough, unadjusted.
    const bool firm = !rules.test_layers || finding.p_value < rules.alpha;
    selection.every_layer_above = selection.every_layer_above && high && firm;
  }
  for (const size_t position : Ranking(layers, kv_error)) {
    selection.ranked.push_back(layers[position].layer);
  }
  for (const size_t position : Ranking(layers, {})) {
    if (selection.layers[position].critical) selection.critical.push_back(layers[position].layer);
    if (selection.layers[position].unclear) selection.unclear.push_back(layers[position].layer);
  }
  if (!selection.critical.empty()) selection.critical_layer = selection.critical.front();
  const bool tested = rules.test_layers;
  selection.pattern = PatternOf(tested ? static_cast<int64_t>(selection.critical.size()) : above);
  std::sort(selection.layers.begin(), selection.layers.end(),
            [](const LayerFinding& a, const LayerFinding& b) { return a.layer < b.layer; });
  return selection;
}

}  // namespace plumbline
