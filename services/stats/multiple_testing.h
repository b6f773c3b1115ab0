// Holm's step-down adjustment: testing 30 layers at 5% each would name one or two by chance.
//
//   std::vector<double> adjusted = *HolmAdjust({0.01, 0.04, 0.03});   // {0.03, 0.06, 0.06}
#pragma once

#include <vector>

#include "absl/status/statusor.h"
#include "absl/types/span.h"

namespace plumbline {

// Adjusted p-values in the input's order (S. Holm, Scand. J. Statist. 6, 1979): sorted ascending,
// p(i) becomes max over j <= i of (m - j + 1) p(j), capped at 1. Rejecting where the result is
// below alpha keeps the chance of any false rejection in the family at or below alpha, whatever the
// dependence. InvalidArgument when a p-value is not within 0..1. Empty in, empty out.
absl::StatusOr<std::vector<double>> HolmAdjust(absl::Span<const double> p_values);

}  // namespace plumbline
