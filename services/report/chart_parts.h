// What the charts share: sizes, axes and what a condition shows.
#pragma once

#include <string>
#include <vector>

#include "plumbline/v1/report.pb.h"
#include "services/report/svg.h"

namespace plumbline {

inline constexpr int kChartMarginLeft = 52;

inline bool IsNarrow(int width) { return width < 500; }

// Something was counted: a condition that did not run, or on no refusal, has no bar.
bool HasFlipRate(const v1::ConditionResult& condition);
double DegenerateShare(const v1::ConditionResult& condition);
std::string FlipTooltip(const v1::Report& report, const v1::ConditionResult& condition);
// "not run" or "no refusals" where there is no flip rate.
std::string WhyNoFlipRate(const v1::ConditionResult& condition);

// Intervals of conditions without a flip step back behind those with one.
std::string WhiskerClass(const v1::ConditionResult& condition);

// Screen and further prompts where both ran, else the screen.
const v1::ConditionResult& MeasuredLayer(const v1::LayerResult& layer);

void PercentAxis(SvgPlot& plot, const std::string& title);

// One x axis for every chart over layers, so that charts below each other line up.
Range LayerRange(const v1::Report& report);
void LayerAxis(SvgPlot& plot, const v1::Report& report, int width, const std::string& title);

// <span class="key"> with a swatch.
std::string LegendKey(const std::string& swatch_class, const std::string& text);

}  // namespace plumbline
