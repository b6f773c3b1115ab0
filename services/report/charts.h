// The report's pictures. Each returns an <svg> element, or an empty string where there is nothing
// to draw.
#pragma once

#include <string>

#include "plumbline/v1/report.pb.h"

namespace plumbline {

std::string FlipsByFormatChart(const v1::Report& report);  // sweep, with intervals and phase bands
std::string FlipsByLayerChart(const v1::Report& report);   // each layer alone
std::string KvErrorChart(const v1::Report& report);        // predicted error by layer and format
std::string ChannelChart(const v1::Report& report);        // channel ablation at the critical layer
std::string PcrChart(const v1::PcrEstimate& pcr);          // posterior over the bands
std::string PlansChart(const v1::Report& report);          // recovery against memory

// Legend of KvErrorChart as HTML.
std::string KvErrorLegend(const v1::Report& report);

}  // namespace plumbline
