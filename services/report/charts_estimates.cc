#include <algorithm>
#include <cmath>
#include <map>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "services/report/chart_parts.h"
#include "services/report/charts.h"
#include "services/report/format.h"
#include "services/report/svg.h"

namespace plumbline {
namespace {

constexpr int kHeight = 300;
constexpr size_t kSeriesColours = 8;

struct Series {
  std::string format;
  std::vector<double> layers, errors;
};

// Errors of the keys, the format with the largest at the last layer first: the legend then reads
// like the picture.
std::vector<Series> ErrorSeries(const v1::Report& report) {
  std::vector<Series> series;
  std::map<std::string, size_t> index;
  for (const v1::FormatError& error : report.kv_errors()) {
    const double value = error.keys().relative_mse();
    if (value <= 0) continue;
    const auto [it, fresh] = index.emplace(error.format(), series.size());
    if (fresh) series.push_back({error.format(), {}, {}});
    series[it->second].layers.push_back(error.layer());
    series[it->second].errors.push_back(value);
  }
  std::stable_sort(series.begin(), series.end(), [](const Series& a, const Series& b) {
    return a.errors.back() > b.errors.back();
  });
  return series;
}

std::string SeriesClass(size_t index) {
  return absl::StrCat("series", index % kSeriesColours, index >= kSeriesColours ? " again" : "");
}

std::string PowerOfTen(double exponent) {
  if (exponent >= -4 && exponent <= 3) return absl::StrFormat("%.10g", std::pow(10, exponent));
  return absl::StrFormat("1e%.0f", exponent);
}

void PlanDot(SvgPlot& plot, const v1::PlanResult& plan) {
  const char* dot = plan.recommended()        ? "dot-recommended"
                    : plan.recovery_on_test() ? "dot"
                                              : "dot-hollow";
  plot.Dot(plan.memory_vs_target(), plan.recovery().estimate(), dot,
           absl::StrCat(plan.name(), ": recovery ", IntervalText(plan.recovery(), {0}), ", memory ",
                        RatioText(plan.memory_vs_target())),
           plan.recommended() ? 7 : 4.5);
}

// Their numbers in the table; plans whose dots lie on each other share one label.
std::vector<std::pair<const v1::PlanResult*, std::string>> PlanLabels(
    const SvgPlot& plot, const std::vector<const v1::PlanResult*>& plans) {
  constexpr double kSamePlace = 9;  // pixels
  std::vector<std::pair<const v1::PlanResult*, std::string>> labels;
  const auto apart = [&plot](const v1::PlanResult& a, const v1::PlanResult& b) {
    return std::max(
        std::abs(plot.PixelX(a.memory_vs_target()) - plot.PixelX(b.memory_vs_target())),
        std::abs(plot.PixelY(a.recovery().estimate()) - plot.PixelY(b.recovery().estimate())));
  };
  for (size_t i = 0; i < plans.size(); ++i) {
    const auto near = std::find_if(labels.begin(), labels.end(), [&](const auto& label) {
      return apart(*label.first, *plans[i]) < kSamePlace;
    });
    if (near == labels.end()) {
      labels.emplace_back(plans[i], absl::StrCat(i + 1));
    } else {
      absl::StrAppend(&near->second, ", ", i + 1);
    }
  }
  return labels;
}

}  // namespace

std::string KvErrorChart(const v1::Report& report, int width) {
  const std::vector<Series> series = ErrorSeries(report);
  if (series.empty()) return "";
  double low = 1e300, high = 1e-300;
  for (const Series& one : series) {
    low = std::min(low, *std::min_element(one.errors.begin(), one.errors.end()));
    high = std::max(high, *std::max_element(one.errors.begin(), one.errors.end()));
  }
  const double bottom = std::floor(std::log10(low));
  const double top = std::max(std::ceil(std::log10(high)), bottom + 1);
  SvgPlot plot(width, kHeight, LayerRange(report), {bottom, top}, kChartMarginLeft);
  std::vector<double> ticks;
  std::vector<std::string> labels;
  for (double t = bottom; t <= top; t += 1) {
    ticks.push_back(t);
    labels.push_back(PowerOfTen(t));
  }
  plot.AxisY(ticks, labels, "");
  LayerAxis(plot, report, width, "layer");
  for (size_t s = 0; s < series.size(); ++s) {
    std::vector<double> y;
    for (const double error : series[s].errors) y.push_back(std::log10(error));
    plot.Line(series[s].layers, y, absl::StrCat("line ", SeriesClass(s)));
    for (size_t i = 0; i < y.size() && !IsNarrow(width); ++i) {
      plot.Dot(series[s].layers[i], y[i], absl::StrCat("point ", SeriesClass(s)),
               absl::StrCat(series[s].format, ", layer ", series[s].layers[i], ": ",
                            NumberText(series[s].errors[i])),
               2.5);
    }
  }
  return plot.Finish("Relative error of the keys by layer and format, predicted from a capture");
}

std::string KvErrorLegend(const v1::Report& report) {
  std::string legend;
  const std::vector<Series> series = ErrorSeries(report);
  for (size_t s = 0; s < series.size(); ++s) {
    legend += LegendKey(SeriesClass(s), series[s].format);
  }
  return legend;
}

std::string PcrChart(const v1::PcrEstimate& pcr, int width) {
  const int bins = pcr.histogram_size();
  if (!pcr.defined() || bins == 0) return "";
  double top = 0;
  for (double share : pcr.histogram()) top = std::max(top, share);
  if (top <= 0) return "";
  constexpr double kLow = -0.5, kHigh = 1.0;
  SvgPlot plot(width, 240, {kLow, kHigh}, {0, top * 1.3}, 20);
  plot.BandX(kLow, 0.3, "band-outlier");
  plot.BandX(0.3, 0.7, "band-mixed");
  plot.BandX(0.7, kHigh, "band-crush");
  plot.AxisX({-.5, -.25, 0, .3, .5, .7, 1}, {"-50%", "-25%", "0%", "30%", "50%", "70%", "100%"},
             "per-channel reduction (PCR)");
  const double bin = (kHigh - kLow) / bins;
  for (int b = 0; b < bins; ++b) {
    plot.BarY(kLow + (b + 0.5) * bin, bin * 0.92, 0, pcr.histogram(b), "bar",
              absl::StrFormat("%.0f%% to %.0f%%: %s", (kLow + b * bin) * 100,
                              (kLow + (b + 1) * bin) * 100, PercentText(pcr.histogram(b))));
  }
  const auto band = [&](double x, const std::string& name, double mass) {
    plot.Text(x, top * 1.3, name, "note", "middle", 0, 14);
    plot.Text(x, top * 1.3, PercentText(mass, {kModeMass}), "note", "middle", 0, 28);
  };
  band(-0.1, "outlier-as-safety", pcr.mass_below_30());
  band(0.5, "mixed", pcr.mass_30_to_70());
  band(0.85, "crushes", pcr.mass_above_70());
  return plot.Finish("Posterior of the per-channel reduction over the failure-mode bands");
}

std::string PlansChart(const v1::Report& report, int width) {
  std::vector<const v1::PlanResult*> shown;
  double low = -0.1, right = 1.1, left = 0.95;
  for (const v1::PlanResult& plan : report.plans()) {
    if (!plan.recovery().defined()) continue;
    shown.push_back(&plan);
    low = std::min(low, std::max(-1.0, plan.recovery().low()));
    right = std::max(right, plan.memory_vs_target() * 1.03);
    left = std::min(left, plan.memory_vs_target() * 0.97);
  }
  if (shown.empty()) return "";
  SvgPlot plot(width, 340, {left, right}, {low, 1.05}, kChartMarginLeft);
  std::vector<double> ticks;
  std::vector<std::string> labels;
  for (double tick = std::ceil(low * 4) / 4; tick <= 1.001; tick += 0.25) {
    ticks.push_back(tick);
    labels.push_back(absl::StrFormat("%d%%", std::lround(tick * 100)));
  }
  plot.AxisY(ticks, labels, "recovery of refusals");
  ticks.clear();
  labels.clear();
  const int steps = IsNarrow(width) ? 4 : 5;
  for (int t = 0; t <= steps; ++t) {
    ticks.push_back(left + (right - left) * t / steps);
    labels.push_back(RatioText(ticks.back()));
  }
  plot.AxisX(ticks, labels, "KV memory against the target");
  plot.RuleY(0, "limit");
  for (const v1::PlanResult* plan : shown) {
    plot.WhiskerY(plan->memory_vs_target(), std::max(low, plan->recovery().low()),
                  plan->recovery().high(), plan->recovery_on_test() ? "whisker" : "whisker faint");
  }
  for (const v1::PlanResult* plan : shown) PlanDot(plot, *plan);
  for (const auto& [plan, label] : PlanLabels(plot, shown)) {
    plot.Text(plan->memory_vs_target(), plan->recovery().estimate(), label, "note", "start", 8, -5);
  }
  return plot.Finish("Recovery of refusals against KV memory for each plan, with 95% intervals");
}

}  // namespace plumbline
