#include "services/stats/correlation.h"

#include <algorithm>
#include <cmath>
#include <numeric>
#include <vector>

#include "absl/strings/str_cat.h"
#include "services/common/status_macros.h"

namespace plumbline {
namespace {

absl::Status Check(absl::Span<const double> x, absl::Span<const double> y) {
  if (x.size() != y.size() || x.size() < 2) {
    return absl::InvalidArgumentError(
        absl::StrCat("a correlation needs two series of the same length, at least 2, got ",
                     x.size(), " and ", y.size()));
  }
  for (const absl::Span<const double> series : {x, y}) {
    if (!std::all_of(series.begin(), series.end(), [](double v) { return std::isfinite(v); })) {
      return absl::InvalidArgumentError("a correlation needs finite values");
    }
    const auto [low, high] = std::minmax_element(series.begin(), series.end());
    if (*low == *high) {
      return absl::InvalidArgumentError(
          absl::StrCat("a constant series has no correlation (every value is ", *low, ")"));
    }
  }
  return absl::OkStatus();
}

// Deviations from the mean, scaled to at most 1 so that their squares neither overflow nor vanish.
std::vector<double> Centred(absl::Span<const double> values) {
  double scale = 0;
  for (const double v : values) scale = std::max(scale, std::abs(v));
  std::vector<double> result;
  result.reserve(values.size());
  double mean = 0;
  for (const double v : values) mean += v / scale;
  mean /= static_cast<double>(values.size());
  double largest = 0;
  for (const double v : values) {
    result.push_back(v / scale - mean);
    largest = std::max(largest, std::abs(result.back()));
  }
  for (double& v : result) v /= largest;
  return result;
}

std::vector<double> MeanRanks(absl::Span<const double> values) {
  std::vector<size_t> order(values.size());
  std::iota(order.begin(), order.end(), size_t{0});
  std::sort(order.begin(), order.end(), [&](size_t a, size_t b) { return values[a] < values[b]; });
  std::vector<double> ranks(values.size());
  for (size_t begin = 0; begin < order.size();) {
    size_t end = begin + 1;
    while (end < order.size() && values[order[end]] == values[order[begin]]) ++end;
    const double shared = 0.5 * static_cast<double>(begin + 1 + end);
    for (; begin < end; ++begin) ranks[order[begin]] = shared;
  }
  return ranks;
}

double Pearson(absl::Span<const double> x, absl::Span<const double> y) {
  const std::vector<double> a = Centred(x);
  const std::vector<double> b = Centred(y);
  const double aa = std::inner_product(a.begin(), a.end(), a.begin(), 0.0);
  const double bb = std::inner_product(b.begin(), b.end(), b.begin(), 0.0);
  const double ab = std::inner_product(a.begin(), a.end(), b.begin(), 0.0);
  return std::clamp(ab / (std::sqrt(aa) * std::sqrt(bb)), -1.0, 1.0);
}

}  // namespace

absl::StatusOr<double> PearsonCorrelation(absl::Span<const double> x, absl::Span<const double> y) {
  PLUMB_RETURN_IF_ERROR(Check(x, y));
  return Pearson(x, y);
}

absl::StatusOr<double> SpearmanCorrelation(absl::Span<const double> x, absl::Span<const double> y) {
  PLUMB_RETURN_IF_ERROR(Check(x, y));
  return Pearson(MeanRanks(x), MeanRanks(y));
}

}  // namespace plumbline
