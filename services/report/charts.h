// The report's pictures. Each returns an <svg> element, or an empty string where there is nothing
// to draw. `width` is in CSS pixels: texts keep their size, so a picture for a phone is drawn
// narrow, not scaled down.
#pragma once

#include <string>

#include "plumbline/v1/report.pb.h"

namespace plumbline {

inline constexpr int kChartWide = 920;
inline constexpr int kChartNarrow = 332;

std::string FlipsByFormatChart(const v1::Report& report, int width = kChartWide);
std::string FlipsByLayerChart(const v1::Report& report, int width = kChartWide);
// Predicted error by layer and format; lines up with FlipsByLayerChart.
std::string KvErrorChart(const v1::Report& report, int width = kChartWide);
// The largest key channel over the median one, by layer; lines up with FlipsByLayerChart.
std::string KeyOutlierChart(const v1::Report& report, int width = kChartWide);
// Channel ablation at the critical layer.
std::string ChannelChart(const v1::Report& report, int width = kChartWide);
// Posterior over the bands.
std::string PcrChart(const v1::PcrEstimate& pcr, int width = kChartWide);
// Recovery against memory.
std::string PlansChart(const v1::Report& report, int width = kChartWide);

// Legends as HTML.
std::string FlipsByFormatLegend(const v1::Report& report);
std::string FlipsByLayerLegend(const v1::Report& report);
std::string ChannelLegend(const v1::Report& report);
std::string KvErrorLegend(const v1::Report& report);
std::string KeyOutlierLegend(const v1::Report& report);

}  // namespace plumbline
