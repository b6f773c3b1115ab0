// Correlation of two series, such as the predicted KV error of each layer and its measured flips.
#pragma once

#include "absl/status/statusor.h"
#include "absl/types/span.h"

namespace plumbline {

// Pearson's r, in -1..1. InvalidArgument when the lengths differ, there are fewer than 2 pairs, a
// value is not finite, or one series is constant (the correlation is then undefined).
absl::StatusOr<double> PearsonCorrelation(absl::Span<const double> x, absl::Span<const double> y);

// Spearman's rho: Pearson's r of the ranks, ties sharing their mean rank. Same errors.
absl::StatusOr<double> SpearmanCorrelation(absl::Span<const double> x, absl::Span<const double> y);

}  // namespace plumbline
