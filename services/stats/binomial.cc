#include "services/stats/binomial.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <limits>
#include <numbers>

#include "absl/strings/str_cat.h"
#include "services/common/status_macros.h"

namespace plumbline {
namespace {

constexpr int kTableSize = 16;

// log(n!) minus Stirling's leading terms: log n! - [ (n + 1/2) log n - n + log(2 pi) / 2 ].
double StirlingError(int64_t n) {
  static const std::array<double, kTableSize> kSmall = [] {
    std::array<double, kTableSize> table{};
    long double factorial = 1;
    for (int i = 1; i < kTableSize; ++i) {
      factorial *= i;
      table[i] = static_cast<double>(std::log(factorial) - (i + 0.5L) * std::log((long double)i) +
                                     i - 0.5L * std::log(2 * std::numbers::pi_v<long double>));
    }
    return table;
  }();
  if (n < kTableSize) return kSmall[n];
  const double x = static_cast<double>(n);
  const double x2 = x * x;
  return (1.0 / 12 - (1.0 / 360 - (1.0 / 1260 - (1.0 / 1680 - (1.0 / 1188) / x2) / x2) / x2) / x2) /
         x;
}

// x log(x / m) + m - x without cancellation when x is near m.
double Deviance(double x, double m) {
  if (std::abs(x - m) >= 0.1 * (x + m)) return x * std::log(x / m) + m - x;
  const double v = (x - m) / (x + m);
  double sum = (x - m) * v;
  double term = 2 * x * v;
  for (int j = 1; j < 1000; ++j) {
    term *= v * v;
    const double next = sum + term / (2 * j + 1);
    if (next == sum) break;
    sum = next;
  }
  return sum;
}

double Mass(int64_t k, int64_t n, double p) {
  if (p == 0) return k == 0 ? 1 : 0;
  if (p == 1) return k == n ? 1 : 0;
  if (n == 0) return 1;
  const double q = 1 - p;
  if (k == 0) return std::exp(p < 0.1 ? n * std::log1p(-p) : n * std::log(q));
  if (k == n) return std::exp(q < 0.1 ? n * std::log1p(-q) : n * std::log(p));
  const double kd = static_cast<double>(k);
  const double rest = static_cast<double>(n - k);
  const double exponent = StirlingError(n) - StirlingError(k) - StirlingError(n - k) -
                          Deviance(kd, n * p) - Deviance(rest, n * q);
  return std::exp(exponent) * std::sqrt(n / (2 * std::numbers::pi * kd * rest));
}

// Sum of the masses of first, first + step, ... while they still change the sum. The terms must
// fall along the way, which they do on the side of the mode that the callers choose.
double SumFalling(int64_t first, int64_t step, int64_t n, double p) {
  double term = Mass(first, n, p);
  double sum = 0;
  for (int64_t k = first; k >= 0 && k <= n; k += step) {
    sum += term;
    if (term <= sum * std::numeric_limits<double>::epsilon() / 64) break;
    term *= step > 0 ? (n - k) * p / ((k + 1) * (1 - p)) : k * (1 - p) / ((n - k + 1) * p);
  }
  return sum;
}

double UpperTail(int64_t k, int64_t n, double p) {
  if (k <= 0) return 1;
  if (k > n || p == 0) return 0;
  if (p == 1) return 1;
  if (k >= n * p) return std::min(1.0, SumFalling(k, +1, n, p));
  return std::max(0.0, 1 - SumFalling(k - 1, -1, n, p));
}

double LowerTail(int64_t k, int64_t n, double p) {
  if (k >= n) return 1;
  if (k < 0 || p == 1) return 0;
  if (p == 0) return 1;
  if (k <= n * p) return std::min(1.0, SumFalling(k, -1, n, p));
  return std::max(0.0, 1 - SumFalling(k + 1, +1, n, p));
}

// The nearest outcome on the other side of the mean whose mass is at most `limit`, or -1 / n + 1
// when there is none. Masses fall monotonically there, so bisection finds it.
int64_t MirrorOutcome(int64_t k, int64_t n, double p, double limit) {
  const int64_t mean = static_cast<int64_t>(k < n * p ? std::ceil(n * p) : std::floor(n * p));
  int64_t inside = mean;  // at this outcome or nearer the mean: too probable
  int64_t outside = k < n * p ? n + 1 : -1;
  if (Mass(inside, n, p) <= limit) return inside;
  while (std::abs(outside - inside) > 1) {
    const int64_t middle = inside + (outside - inside) / 2;
    (Mass(middle, n, p) <= limit ? outside : inside) = middle;
  }
  return outside;
}

double TwoSided(int64_t k, int64_t n, double p) {
  if (static_cast<double>(k) == n * p) return 1;
  const double limit = Mass(k, n, p) * (1 + 1e-7);
  const int64_t mirror = MirrorOutcome(k, n, p, limit);
  const double sum = k < n * p ? LowerTail(k, n, p) + UpperTail(mirror, n, p)
                               : LowerTail(mirror, n, p) + UpperTail(k, n, p);
  return std::min(1.0, sum);
}

absl::Status CheckProbability(double probability) {
  if (probability >= 0 && probability <= 1) return absl::OkStatus();
  return absl::InvalidArgumentError(
      absl::StrCat("probability must be within 0..1, got ", probability));
}

absl::Status Check(int64_t successes, int64_t trials, double probability) {
  PLUMB_RETURN_IF_ERROR(CheckCounts(successes, trials));
  return CheckProbability(probability);
}

}  // namespace

absl::Status CheckCounts(int64_t successes, int64_t trials) {
  if (trials < 0 || trials > kMaxTrials) {
    return absl::InvalidArgumentError(
        absl::StrCat("trials must be within 0..", kMaxTrials, ", got ", trials));
  }
  if (successes < 0 || successes > trials) {
    return absl::InvalidArgumentError(
        absl::StrCat("successes must be within 0..trials (", trials, "), got ", successes));
  }
  return absl::OkStatus();
}

absl::StatusOr<double> BinomialMass(int64_t successes, int64_t trials, double probability) {
  PLUMB_RETURN_IF_ERROR(Check(successes, trials, probability));
  return Mass(successes, trials, probability);
}

absl::StatusOr<double> BinomialLowerTail(int64_t successes, int64_t trials, double probability) {
  PLUMB_RETURN_IF_ERROR(Check(successes, trials, probability));
  return LowerTail(successes, trials, probability);
}

absl::StatusOr<double> BinomialUpperTail(int64_t successes, int64_t trials, double probability) {
  PLUMB_RETURN_IF_ERROR(Check(successes, trials, probability));
  return UpperTail(successes, trials, probability);
}

absl::StatusOr<double> BinomialTest(int64_t successes, int64_t trials, double p0,
                                    Alternative alternative) {
  PLUMB_RETURN_IF_ERROR(Check(successes, trials, p0));
  if (trials == 0) return 1.0;
  if (alternative == Alternative::kGreater) return UpperTail(successes, trials, p0);
  if (alternative == Alternative::kLess) return LowerTail(successes, trials, p0);
  if (p0 == 0 || p0 == 1) return Mass(successes, trials, p0);
  return TwoSided(successes, trials, p0);
}

absl::StatusOr<double> McNemarExact(int64_t only_a, int64_t only_b) {
  if (only_a < 0 || only_b < 0) {
    return absl::InvalidArgumentError(
        absl::StrCat("discordant counts must not be negative, got ", only_a, " and ", only_b));
  }
  PLUMB_RETURN_IF_ERROR(CheckCounts(only_a, only_a + only_b));
  if (only_a == only_b) return 1.0;
  return std::min(1.0, 2 * LowerTail(std::min(only_a, only_b), only_a + only_b, 0.5));
}

}  // namespace plumbline
