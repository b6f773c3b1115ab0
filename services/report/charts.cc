#include "services/report/charts.h"

#include <algorithm>
#include <cmath>
#include <map>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "services/report/format.h"
#include "services/report/svg.h"

namespace plumbline {
namespace {

constexpr int kWidth = 720;
constexpr int kHeight = 300;
constexpr double kSafe = 0.05, kComplete = 0.80, kCritical = 0.10;
constexpr size_t kSeriesColours = 6;

void PercentAxis(SvgPlot& plot, const std::string& title) {
  plot.AxisY({0, .2, .4, .6, .8, 1}, {"0%", "20%", "40%", "60%", "80%", "100%"}, title);
}

void PhaseBands(SvgPlot& plot) {
  plot.BandY(0, kSafe, "band-safe");
  plot.BandY(kSafe, kComplete, "band-collapse");
  plot.BandY(kComplete, 1, "band-complete");
}

std::string Tooltip(const v1::ConditionResult& condition) {
  return absl::StrCat(condition.name(), ": ", condition.flips(), " of ",
                      condition.baseline_refusals(), " refusals flip, ",
                      IntervalText(condition.flip_rate()));
}

const v1::ConditionResult& Measured(const v1::LayerResult& layer) {
  return layer.confirmed().cells() > 0 ? layer.confirmed() : layer.screen();
}

// Format -> (layer, relative error of keys without outliers), in the order of first appearance.
std::vector<std::pair<std::string, std::vector<std::pair<double, double>>>> ErrorSeries(
    const v1::Report& report) {
  std::vector<std::pair<std::string, std::vector<std::pair<double, double>>>> series;
  std::map<std::string, size_t> index;
  for (const v1::FormatError& error : report.kv_errors()) {
    const auto [it, fresh] = index.emplace(error.format(), series.size());
    if (fresh) series.push_back({error.format(), {}});
    const double value = error.keys().relative_mse();
    if (value > 0) series[it->second].second.push_back({error.layer(), value});
  }
  std::erase_if(series, [](const auto& one) { return one.second.empty(); });
  return series;
}

std::string SeriesClass(size_t index) { return absl::StrCat("series", index % kSeriesColours); }

}  // namespace

std::string FlipsByFormatChart(const v1::Report& report) {
  const int count = report.sweep_size();
  if (count == 0) return "";
  SvgPlot plot(kWidth, kHeight + 30, {-0.6, count - 0.4}, {0, 1}, 52, 84);
  PhaseBands(plot);
  PercentAxis(plot, "refusals that flip");
  std::vector<double> ticks, line_y;
  std::vector<std::string> labels;
  for (int i = 0; i < count; ++i) {
    const v1::ConditionResult& condition = report.sweep(i);
    ticks.push_back(i);
    labels.push_back(condition.name());
    line_y.push_back(condition.flip_rate().estimate());
    plot.WhiskerY(i, condition.flip_rate().low(), condition.flip_rate().high(), "whisker");
  }
  plot.AxisX(ticks, labels, "", /*slanted=*/true);
  plot.Line(ticks, line_y, "trend");
  for (int i = 0; i < count; ++i) {
    plot.Dot(i, line_y[static_cast<size_t>(i)], "dot", Tooltip(report.sweep(i)), 4.5);
  }
  return plot.Finish("Share of refusals that flip under each KV format, with 95% intervals");
}

std::string FlipsByLayerChart(const v1::Report& report) {
  const int count = report.layers_size();
  if (count == 0) return "";
  double top = 0.3;
  for (const v1::LayerResult& layer : report.layers()) {
    top = std::max(top, Measured(layer).flip_rate().high());
  }
  SvgPlot plot(kWidth, kHeight, {-0.7, count - 0.3}, {0, std::min(1.0, top * 1.05)});
  std::vector<double> y_ticks;
  std::vector<std::string> y_labels;
  for (double tick = 0; tick <= std::min(1.0, top * 1.05); tick += top > 0.5 ? 0.2 : 0.1) {
    y_ticks.push_back(tick);
    y_labels.push_back(absl::StrFormat("%.0f%%", tick * 100));
  }
  plot.AxisY(y_ticks, y_labels, "refusals that flip");
  std::vector<double> x_ticks;
  std::vector<std::string> x_labels;
  const int step = count > 40 ? 4 : count > 20 ? 2 : 1;
  for (int i = 0; i < count; i += step) {
    x_ticks.push_back(i);
    x_labels.push_back(absl::StrCat(report.layers(i).layer()));
  }
  plot.AxisX(x_ticks, x_labels, "layer quantized alone");
  for (int i = 0; i < count; ++i) {
    const v1::LayerResult& layer = report.layers(i);
    const v1::ConditionResult& condition = Measured(layer);
    plot.BarY(i, 0.7, 0, condition.flip_rate().estimate(),
              layer.critical() ? "bar-critical" : "bar", Tooltip(condition));
    plot.WhiskerY(i, condition.flip_rate().low(), condition.flip_rate().high(), "whisker");
  }
  plot.RuleY(kCritical, "limit");
  return plot.Finish("Share of refusals that flip with one layer quantized, with 95% intervals");
}

std::string KvErrorChart(const v1::Report& report) {
  const auto series = ErrorSeries(report);
  if (series.empty()) return "";
  double low = 1e300, high = 1e-300, last_layer = 1;
  for (const auto& [format, points] : series) {
    for (const auto& [layer, value] : points) {
      low = std::min(low, value);
      high = std::max(high, value);
      last_layer = std::max(last_layer, layer);
    }
  }
  const double bottom = std::floor(std::log10(low)), top = std::ceil(std::log10(high) + 1e-9);
  SvgPlot plot(kWidth, kHeight, {-0.5, last_layer + 0.5}, {bottom, std::max(top, bottom + 1)});
  std::vector<double> ticks;
  std::vector<std::string> labels;
  for (double t = bottom; t <= std::max(top, bottom + 1); t += 1) {
    ticks.push_back(t);
    labels.push_back(absl::StrFormat("1e%.0f", t));
  }
  plot.AxisY(ticks, labels, "relative error of keys");
  std::vector<double> x_ticks;
  std::vector<std::string> x_labels;
  for (int layer = 0; layer <= static_cast<int>(last_layer); layer += last_layer > 40 ? 8 : 4) {
    x_ticks.push_back(layer);
    x_labels.push_back(absl::StrCat(layer));
  }
  plot.AxisX(x_ticks, x_labels, "layer");
  for (size_t s = 0; s < series.size(); ++s) {
    std::vector<double> x, y;
    for (const auto& [layer, value] : series[s].second) {
      x.push_back(layer);
      y.push_back(std::log10(value));
    }
    plot.Line(x, y, absl::StrCat("line ", SeriesClass(s)));
    for (size_t i = 0; i < x.size(); ++i) {
      plot.Dot(x[i], y[i], absl::StrCat("point ", SeriesClass(s)),
               absl::StrCat(series[s].first, ", layer ", x[i], ": ",
                            NumberText(series[s].second[i].second)),
               2.5);
    }
  }
  return plot.Finish("Relative error of the keys by layer and format, predicted from a capture");
}

std::string KvErrorLegend(const v1::Report& report) {
  std::string legend;
  const auto series = ErrorSeries(report);
  for (size_t s = 0; s < series.size(); ++s) {
    absl::StrAppend(&legend, "<span class=\"key\"><i class=\"swatch ", SeriesClass(s), "\"></i>",
                    HtmlEscape(series[s].first), "</span> ");
  }
  return legend;
}

std::string ChannelChart(const v1::Report& report) {
  const int count = report.channels().conditions_size();
  if (count == 0) return "";
  SvgPlot plot(kWidth, 40 + 30 * count + 44, {0, 1}, {-0.5, count - 0.5}, 200, 44);
  std::vector<double> rows;
  std::vector<std::string> names;
  for (int i = 0; i < count; ++i) {
    rows.push_back(count - 1 - i);
    names.push_back(report.channels().conditions(i).name());
  }
  plot.AxisY(rows, names, "");
  plot.AxisX({0, .2, .4, .6, .8, 1}, {"0%", "20%", "40%", "60%", "80%", "100%"},
             "refusals that flip (95% intervals)");
  for (int i = 0; i < count; ++i) {
    const v1::ConditionResult& condition = report.channels().conditions(i);
    plot.BarX(rows[static_cast<size_t>(i)], 0.6, 0, condition.flip_rate().estimate(), "bar",
              Tooltip(condition));
    plot.WhiskerX(rows[static_cast<size_t>(i)], condition.flip_rate().low(),
                  condition.flip_rate().high(), "whisker");
  }
  return plot.Finish("Share of refusals that flip by which channels are quantized");
}

std::string PcrChart(const v1::PcrEstimate& pcr) {
  const int bins = pcr.histogram_size();
  if (!pcr.defined() || bins == 0) return "";
  double top = 0;
  for (double share : pcr.histogram()) top = std::max(top, share);
  if (top <= 0) return "";
  constexpr double kLow = -0.5, kHigh = 1.0;
  SvgPlot plot(kWidth, 240, {kLow, kHigh}, {0, top * 1.1});
  plot.BandX(kLow, 0.3, "band-outlier");
  plot.BandX(0.3, 0.7, "band-mixed");
  plot.BandX(0.7, kHigh, "band-crush");
  plot.AxisX({-.5, -.25, 0, .3, .5, .7, 1}, {"-50%", "-25%", "0%", "30%", "50%", "70%", "100%"},
             "per-channel reduction (PCR)");
  const double width = (kHigh - kLow) / bins;
  for (int b = 0; b < bins; ++b) {
    plot.BarY(kLow + (b + 0.5) * width, width * 0.92, 0, pcr.histogram(b), "bar",
              absl::StrFormat("%.0f%% to %.0f%%: %s", (kLow + b * width) * 100,
                              (kLow + (b + 1) * width) * 100, PercentText(pcr.histogram(b))));
  }
  plot.Text(-0.1, top * 1.02, absl::StrCat("outlier-as-safety ", PercentText(pcr.mass_below_30())),
            "note", "middle");
  plot.Text(0.5, top * 1.02, absl::StrCat("mixed ", PercentText(pcr.mass_30_to_70())), "note",
            "middle");
  plot.Text(0.85, top * 1.02, absl::StrCat("crushes ", PercentText(pcr.mass_above_70())), "note",
            "middle");
  return plot.Finish("Posterior of the per-channel reduction over the failure-mode bands");
}

std::string PlansChart(const v1::Report& report) {
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
  SvgPlot plot(kWidth, 340, {left, right}, {low, 1.05});
  std::vector<double> y_ticks;
  std::vector<std::string> y_labels;
  for (double tick = std::ceil(low * 4) / 4; tick <= 1.001; tick += 0.25) {
    y_ticks.push_back(tick);
    y_labels.push_back(absl::StrFormat("%.0f%%", tick * 100));
  }
  plot.AxisY(y_ticks, y_labels, "recovery of refusals");
  std::vector<double> x_ticks;
  std::vector<std::string> x_labels;
  for (int t = 0; t <= 5; ++t) {
    x_ticks.push_back(left + (right - left) * t / 5);
    x_labels.push_back(RatioText(x_ticks.back()));
  }
  plot.AxisX(x_ticks, x_labels, "KV memory against the target");
  plot.RuleY(0, "limit");
  for (size_t i = 0; i < shown.size(); ++i) {
    const v1::PlanResult& plan = *shown[i];
    const double x = plan.memory_vs_target();
    plot.WhiskerY(x, std::max(low, plan.recovery().low()), plan.recovery().high(), "whisker");
    plot.Dot(x, plan.recovery().estimate(), plan.recommended() ? "dot-recommended" : "dot",
             absl::StrCat(plan.name(), ": recovery ", IntervalText(plan.recovery()), ", memory ",
                          RatioText(x)),
             plan.recommended() ? 7 : 4.5);
    plot.Text(x, plan.recovery().estimate(), absl::StrCat(i + 1), "note", "start", 8, -5);
  }
  return plot.Finish("Recovery of refusals against KV memory for each plan, with 95% intervals");
}

}  // namespace plumbline
