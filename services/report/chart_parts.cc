#include "services/report/chart_parts.h"

#include <algorithm>

#include "absl/strings/str_cat.h"
#include "services/report/format.h"

namespace plumbline {

bool HasFlipRate(const v1::ConditionResult& condition) {
  return condition.cells() > 0 && condition.flip_rate().defined();
}

double DegenerateShare(const v1::ConditionResult& condition) {
  if (condition.baseline_refusals() == 0) return 0;
  return static_cast<double>(condition.degenerate()) /
         static_cast<double>(condition.baseline_refusals());
}

std::string WhyNoFlipRate(const v1::ConditionResult& condition) {
  if (condition.unmeasured()) return "unmeasured: its cells failed";
  return condition.cells() == 0 ? "not run" : "no refusals";
}

std::string FlipTooltip(const v1::Report& report, const v1::ConditionResult& condition) {
  std::string text =
      absl::StrCat(condition.name(), ": ", condition.flips(), " of ", condition.baseline_refusals(),
                   " refusals flip, ", IntervalText(condition.flip_rate(), FlipLimits(report)));
  if (condition.degenerate() > 0) {
    absl::StrAppend(&text, "; ", condition.degenerate(), " become degenerate");
  }
  if (condition.nonfinite() > 0) {
    absl::StrAppend(&text, "; ", condition.nonfinite(), " are not finite");
  }
  return text;
}

std::string WhiskerClass(const v1::ConditionResult& condition) {
  return condition.flips() == 0 ? "whisker faint" : "whisker";
}

const v1::ConditionResult& MeasuredLayer(const v1::LayerResult& layer) {
  return layer.confirmed().cells() > 0 ? layer.confirmed() : layer.screen();
}

void PercentAxis(SvgPlot& plot, const std::string& title) {
  plot.AxisY({0, .2, .4, .6, .8, 1}, {"0%", "20%", "40%", "60%", "80%", "100%"}, title);
}

Range LayerRange(const v1::Report& report) {
  uint32_t last = 1;
  for (const v1::LayerResult& layer : report.layers()) last = std::max(last, layer.layer());
  for (const v1::FormatError& error : report.kv_errors()) last = std::max(last, error.layer());
  for (const v1::KeyOutliers& keys : report.channels().key_outliers()) {
    last = std::max(last, keys.layer());
  }
  return {-0.7, last + 0.7};
}

void LayerAxis(SvgPlot& plot, const v1::Report& report, int width, const std::string& title) {
  const int last = static_cast<int>(LayerRange(report).high);
  const double slot = static_cast<double>(width - kChartMarginLeft) / (last + 1);
  int step = 1;
  for (const int wider : {2, 4, 8, 16, 32}) {
    if (step * slot < 24) step = wider;
  }
  std::vector<double> ticks;
  std::vector<std::string> labels;
  for (int layer = 0; layer <= last; layer += step) {
    ticks.push_back(layer);
    labels.push_back(absl::StrCat(layer));
  }
  plot.AxisX(ticks, labels, title);
}

std::string LegendKey(const std::string& swatch_class, const std::string& text) {
  return absl::StrCat("<span class=\"key\"><i class=\"swatch ", swatch_class, "\"></i>",
                      HtmlEscape(text), "</span> ");
}

}  // namespace plumbline
