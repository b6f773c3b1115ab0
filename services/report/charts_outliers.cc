#include <algorithm>
#include <cmath>
#include <vector>

#include "absl/strings/str_cat.h"
#include "services/report/chart_parts.h"
#include "services/report/charts.h"
#include "services/report/format.h"
#include "services/report/svg.h"

namespace plumbline {
namespace {

constexpr int kHeight = 220;

// 1, 2 or 5 times a power of ten, so that about four ticks reach the top.
double TickStep(double top) {
  const double power = std::pow(10, std::floor(std::log10(top / 4)));
  for (const double step : {1.0, 2.0, 5.0}) {
    if (top / (step * power) <= 5) return step * power;
  }
  return 10 * power;
}

}  // namespace

std::string KeyOutlierChart(const v1::Report& report, int width) {
  const v1::ChannelAblation& channels = report.channels();
  double top = 1;
  for (const v1::KeyOutliers& keys : channels.key_outliers()) {
    top = std::max(top, keys.largest_over_median());
  }
  if (channels.key_outliers().empty()) return "";
  top *= 1.05;
  SvgPlot plot(width, kHeight, LayerRange(report), {0, top}, kChartMarginLeft);
  std::vector<double> ticks;
  std::vector<std::string> labels;
  for (double tick = 0; tick <= top; tick += TickStep(top)) {
    ticks.push_back(tick);
    labels.push_back(absl::StrCat(tick));
  }
  plot.AxisY(ticks, labels, "largest over median");
  LayerAxis(plot, report, width, "layer");
  for (const v1::KeyOutliers& keys : channels.key_outliers()) {
    plot.BarY(keys.layer(), 0.7, 0, keys.largest_over_median(),
              keys.layer() == channels.layer() ? "bar-critical" : "bar",
              absl::StrCat("layer ", keys.layer(), ": channel ", keys.largest_channel(), " at ",
                           NumberText(keys.largest()), ", median ", NumberText(keys.median())));
  }
  plot.RuleY(1, "limit");
  return plot.Finish("Largest key channel over the median key channel, by layer");
}

std::string KeyOutlierLegend(const v1::Report& report) {
  if (report.channels().key_outliers().empty()) return "";
  return absl::StrCat(LegendKey("bar", "largest key channel over the median"),
                      LegendKey("critical", "the same, layer whose channels were ablated"));
}

}  // namespace plumbline
