// Statistics of a capture, one pass a question, block by block in (layer, prompt) order: the order
// in which blocks arrived cannot change a bit of them.
#pragma once

#include <functional>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "plumbline/v1/capture.pb.h"

namespace plumbline {

inline constexpr int kHistogramBins = 64;
inline constexpr double kDefaultOutlierPercentile = 95;

// Gives the block of (layer, prompt index).
using BlockSource =
    std::function<absl::StatusOr<v1::ActivationBlock>(uint32_t layer, uint32_t prompt)>;

// Everything of one layer but the outliers: absmax, min, max, mean and population variance
// (Welford, in double) of each flat channel, mean over prompts of each key channel's largest
// magnitude, histograms up to the maximum and in fixed bins. Reads every block twice (the
// histograms need the maximum first).
absl::StatusOr<v1::LayerStats> ComputeLayerStats(const v1::CaptureHeader& header, uint32_t layer,
                                                 const BlockSource& blocks);

// Fills outlier_channels and outlier_threshold from key_prompt_absmax_mean. percentile in [0, 100].
absl::Status MarkOutliers(double percentile, v1::LayerStats* stats);

// The percentile of a sample by linear interpolation between closest ranks (numpy's default).
// Precondition: values is not empty, percentile in [0, 100].
double Percentile(std::vector<float> values, double percentile);

}  // namespace plumbline
