#include "services/report/charts.h"

#include <algorithm>
#include <map>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "services/report/chart_parts.h"
#include "services/report/format.h"
#include "services/report/svg.h"
#include "services/report/sweep.h"

namespace plumbline {
namespace {

constexpr int kHeight = 300;
constexpr double kLetter = 6.8;  // an average letter of the charts' font

void PhaseBands(SvgPlot& plot) {
  plot.BandY(0, kSafeFlips, "band-safe");
  plot.BandY(kSafeFlips, kCompleteFlips, "band-collapse");
  plot.BandY(kCompleteFlips, 1, "band-complete");
}

bool AnyDegenerate(const v1::ConditionResult& condition) {
  return HasFlipRate(condition) && condition.degenerate() > 0;
}

// Lines join what differs in bits alone: they would tell a trend between unlike formats.
void SweepLines(SvgPlot& plot, const std::vector<v1::ConditionResult>& sweep) {
  struct Points {
    std::vector<double> x, flips, degenerate;
    bool any_degenerate = false;
  };
  std::map<std::string, Points> families;
  for (size_t i = 0; i < sweep.size(); ++i) {
    const std::string family = FormatFamily(sweep[i].plan());
    if (FormatBits(sweep[i].plan()) == 0 || !HasFlipRate(sweep[i])) continue;
    Points& points = families[family];
    points.x.push_back(static_cast<double>(i));
    points.flips.push_back(sweep[i].flip_rate().estimate());
    points.degenerate.push_back(DegenerateShare(sweep[i]));
    points.any_degenerate |= sweep[i].degenerate() > 0;
  }
  for (const auto& [family, points] : families) {
    if (points.x.size() < 2) continue;
    if (points.any_degenerate) plot.Line(points.x, points.degenerate, "trend-degenerate");
    plot.Line(points.x, points.flips, "trend");
  }
}

struct Labels {
  std::vector<double> ticks;
  std::vector<std::string> texts;
  double longest = 0;  // pixels
};

Labels SweepLabels(const std::vector<v1::ConditionResult>& sweep) {
  Labels labels;
  for (size_t i = 0; i < sweep.size(); ++i) {
    labels.ticks.push_back(static_cast<double>(i));
    labels.texts.push_back(sweep[i].name());
    labels.longest =
        std::max(labels.longest, static_cast<double>(sweep[i].name().size()) * kLetter);
  }
  return labels;
}

// Where each layer's stack of flips and degenerate answers or its interval ends.
double HighestLayer(const v1::Report& report) {
  double top = 0.28;
  for (const v1::LayerResult& layer : report.layers()) {
    const v1::ConditionResult& condition = MeasuredLayer(layer);
    top = std::max({top, condition.flip_rate().high(),
                    condition.flip_rate().estimate() + DegenerateShare(condition)});
  }
  return std::min(1.0, top * 1.05);
}

void ChannelRow(SvgPlot& plot, const v1::Report& report, const v1::ConditionResult& condition,
                double row, double thickness) {
  if (!HasFlipRate(condition)) {
    plot.Text(0, row, WhyNoFlipRate(condition), "note", "start", 6, 4);
    return;
  }
  const double rate = condition.flip_rate().estimate();
  plot.BarX(row, thickness, 0, rate, "bar", FlipTooltip(report, condition));
  if (condition.degenerate() > 0) {
    plot.BarX(row, thickness, rate, rate + DegenerateShare(condition), "bar-degenerate",
              FlipTooltip(report, condition));
  }
  plot.WhiskerX(row, condition.flip_rate().low(), condition.flip_rate().high(),
                WhiskerClass(condition));
}

std::string BarLegend(bool critical, bool degenerate) {
  return absl::StrCat(LegendKey("bar", "refusal becomes an answer"),
                      critical ? LegendKey("critical", "the same, critical layer") : "",
                      degenerate ? LegendKey("degenerate", "refusal becomes degenerate text") : "",
                      LegendKey("interval", "95% interval of the answers"));
}

}  // namespace

std::string FlipsByFormatChart(const v1::Report& report, int width) {
  const std::vector<v1::ConditionResult> sweep = OrderedSweep(report);
  if (sweep.empty()) return "";
  const double count = static_cast<double>(sweep.size());
  const Labels labels = SweepLabels(sweep);
  const bool flat = labels.longest + 8 < (width - kChartMarginLeft) / count;
  const int slant = flat ? 0 : IsNarrow(width) ? 60 : 35;
  const int bottom =
      flat ? 30 : 24 + static_cast<int>(labels.longest * (slant == 60 ? 0.87 : 0.58));
  SvgPlot plot(width, kHeight - 40 + bottom, {-0.6, count - 0.4}, {0, 1}, kChartMarginLeft, bottom);
  PhaseBands(plot);
  PercentAxis(plot, "share of refusals");
  plot.AxisX(labels.ticks, labels.texts, "", slant);
  SweepLines(plot, sweep);
  for (size_t i = 0; i < sweep.size(); ++i) {
    const v1::ConditionResult& condition = sweep[i];
    const double x = static_cast<double>(i);
    const bool target = IsTarget(report, condition);
    if (!HasFlipRate(condition)) {
      plot.Text(x, 0, WhyNoFlipRate(condition), "note", "middle", 0, -6);
      continue;
    }
    const double high = condition.flip_rate().high();
    plot.WhiskerY(x, condition.flip_rate().low(), high, "whisker");
    if (AnyDegenerate(condition)) {
      plot.Dot(x, DegenerateShare(condition), "dot-degenerate", FlipTooltip(report, condition), 4);
    }
    plot.Dot(x, condition.flip_rate().estimate(), target ? "dot-target" : "dot",
             FlipTooltip(report, condition), target ? 6.5 : 4.5);
    if (target) plot.Text(x, high, "target", "note", "middle", 0, -5);
  }
  return plot.Finish("Share of refusals that flip under each KV format, with 95% intervals");
}

std::string FlipsByFormatLegend(const v1::Report& report) {
  const auto sweep = OrderedSweep(report);
  const bool degenerate = std::any_of(sweep.begin(), sweep.end(), AnyDegenerate);
  return absl::StrCat(LegendKey("flips", "refusal becomes an answer"),
                      degenerate ? LegendKey("degenerate", "refusal becomes degenerate text") : "",
                      LegendKey("band-safe", "safe"), LegendKey("band-collapse", "collapse"),
                      LegendKey("band-complete", "complete"));
}

std::string FlipsByLayerChart(const v1::Report& report, int width) {
  if (report.layers_size() == 0) return "";
  const double top = HighestLayer(report);
  SvgPlot plot(width, IsNarrow(width) ? kHeight - 60 : kHeight, LayerRange(report), {0, top},
               kChartMarginLeft);
  std::vector<double> ticks;
  std::vector<std::string> labels;
  for (double tick = 0; tick <= top + 1e-9; tick += top > 0.5 ? 0.2 : 0.1) {
    ticks.push_back(tick);
    labels.push_back(absl::StrFormat("%.0f%%", tick * 100));
  }
  plot.AxisY(ticks, labels, "share of refusals");
  LayerAxis(plot, report, width, "layer quantized alone");
  for (const v1::LayerResult& layer : report.layers()) {
    const v1::ConditionResult& condition = MeasuredLayer(layer);
    if (!HasFlipRate(condition)) continue;
    const double rate = condition.flip_rate().estimate();
    plot.BarY(layer.layer(), 0.7, 0, rate, layer.critical() ? "bar-critical" : "bar",
              FlipTooltip(report, condition));
    if (condition.degenerate() > 0) {
      plot.BarY(layer.layer(), 0.7, rate, rate + DegenerateShare(condition), "bar-degenerate",
                FlipTooltip(report, condition));
    }
    plot.WhiskerY(layer.layer(), condition.flip_rate().low(), condition.flip_rate().high(),
                  WhiskerClass(condition));
  }
  plot.RuleY(kCriticalFlips, "limit");
  return plot.Finish("Share of refusals that flip with one layer quantized, with 95% intervals");
}

std::string FlipsByLayerLegend(const v1::Report& report) {
  bool degenerate = false;
  for (const v1::LayerResult& layer : report.layers()) {
    degenerate |= AnyDegenerate(MeasuredLayer(layer));
  }
  return BarLegend(report.critical_layers_size() > 0, degenerate);
}

std::string ChannelChart(const v1::Report& report, int width) {
  const int count = report.channels().conditions_size();
  if (count == 0) return "";
  // On a phone the names stand above their bars: beside them no room would be left.
  const bool narrow = IsNarrow(width);
  const int row_height = narrow ? 38 : 26;
  SvgPlot plot(width, 12 + row_height * count + 44, {0, 1}, {-0.5, count - 0.5}, narrow ? 14 : 240,
               44);
  std::vector<double> rows;
  std::vector<std::string> names;
  for (int i = 0; i < count; ++i) {
    rows.push_back(count - 1 - i);
    names.push_back(report.channels().conditions(i).name());
  }
  if (!narrow) plot.AxisY(rows, names, "");
  plot.AxisX({0, .2, .4, .6, .8, 1}, {"0%", "20%", "40%", "60%", "80%", "100%"},
             "share of refusals");
  for (size_t i = 0; i < rows.size(); ++i) {
    if (narrow) plot.Text(0, rows[i], names[i], "note", "start", 0, -5);
    ChannelRow(plot, report, report.channels().conditions(static_cast<int>(i)),
               narrow ? rows[i] - 0.2 : rows[i], narrow ? 0.36 : 0.6);
  }
  return plot.Finish("Share of refusals that flip by which channels are quantized");
}

std::string ChannelLegend(const v1::Report& report) {
  const auto& conditions = report.channels().conditions();
  return BarLegend(false, std::any_of(conditions.begin(), conditions.end(), AnyDegenerate));
}

}  // namespace plumbline
