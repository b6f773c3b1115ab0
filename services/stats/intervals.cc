#include "services/stats/intervals.h"

#include <algorithm>
#include <cmath>
#include <numbers>

#include "absl/strings/str_cat.h"
#include "services/common/status_macros.h"
#include "services/stats/binomial.h"

namespace plumbline {
namespace {

double NormalUpperTail(double x) { return 0.5 * std::erfc(x / std::numbers::sqrt2); }

// Quantile of the upper half, tail <= 1/2: Newton on the logarithm of the tail. It is concave and
// falls, so from a start right of the root the steps come down to it without crossing; the start is
// right of it because the tail at x is at most exp(-x^2 / 2) / 2.
double UpperQuantile(double tail) {
  double x = std::sqrt(-2 * std::log(tail));
  for (int i = 0; i < 200; ++i) {
    const double value = NormalUpperTail(x);
    const double density = std::exp(-0.5 * x * x) / std::sqrt(2 * std::numbers::pi);
    const double step = std::log(value / tail) * value / density;
    x += step;
    if (std::abs(step) <= 1e-15 * std::max(1.0, x)) break;
  }
  return x;
}

absl::StatusOr<double> TwoSidedZ(double confidence) {
  if (!(confidence > 0 && confidence < 1)) {
    return absl::InvalidArgumentError(
        absl::StrCat("confidence must be above 0 and below 1, got ", confidence));
  }
  return UpperQuantile((1 - confidence) / 2);
}

Interval Wilson(double successes, double trials, double z) {
  const double p = successes / trials;
  const double shrink = 1 + z * z / trials;
  const double middle = p + z * z / (2 * trials);
  const double half = z * std::sqrt((p * (1 - p) + z * z / (4 * trials)) / trials);
  // The ends at 0 and at all successes are exact by algebra; rounding would leave 1e-18 there.
  return {.lower = successes == 0 ? 0 : std::max(0.0, (middle - half) / shrink),
          .upper = successes == trials ? 1 : std::min(1.0, (middle + half) / shrink)};
}

// The p at which a tail that grows with p (rising) or falls with it equals alpha.
template <typename Tail>
double SolveTail(Tail tail, double alpha, bool rising) {
  double low = 0;
  double high = 1;
  // 0..1 halves about 1,074 times down to the smallest positive double; ends below 1e-300 do not
  // occur for the allowed numbers of trials, and adjacent doubles stop the loop far earlier.
  for (int i = 0; i < 1100; ++i) {
    const double middle = low + (high - low) / 2;
    if (middle <= low || middle >= high) break;
    ((tail(middle) < alpha) == rising ? low : high) = middle;
  }
  return low + (high - low) / 2;
}

absl::Status CheckLimit(double limit) {
  if (limit > 0 && limit < 1) return absl::OkStatus();
  return absl::InvalidArgumentError(
      absl::StrCat("limit is a fraction above 0 and below 1, got ", limit));
}

}  // namespace

absl::StatusOr<double> NormalQuantile(double probability) {
  if (!(probability > 0 && probability < 1)) {
    return absl::InvalidArgumentError(
        absl::StrCat("probability must be above 0 and below 1, got ", probability));
  }
  return probability < 0.5 ? -UpperQuantile(probability) : UpperQuantile(1 - probability);
}

absl::StatusOr<Interval> WilsonInterval(int64_t successes, int64_t trials, double confidence) {
  PLUMB_RETURN_IF_ERROR(CheckCounts(successes, trials));
  PLUMB_ASSIGN_OR_RETURN(const double z, TwoSidedZ(confidence));
  if (trials == 0) return Interval{};
  return Wilson(static_cast<double>(successes), static_cast<double>(trials), z);
}

absl::StatusOr<Interval> ClopperPearsonInterval(int64_t successes, int64_t trials,
                                                double confidence) {
  PLUMB_RETURN_IF_ERROR(CheckCounts(successes, trials));
  PLUMB_RETURN_IF_ERROR(TwoSidedZ(confidence).status());
  const double alpha = (1 - confidence) / 2;
  Interval interval;
  if (successes > 0) {
    interval.lower =
        SolveTail([&](double p) { return *BinomialUpperTail(successes, trials, p); }, alpha, true);
  }
  if (successes < trials) {
    interval.upper =
        SolveTail([&](double p) { return *BinomialLowerTail(successes, trials, p); }, alpha, false);
  }
  return interval;
}

absl::StatusOr<GateResult> DecideGate(int64_t flips, int64_t prompts, double limit,
                                      double confidence) {
  PLUMB_RETURN_IF_ERROR(CheckLimit(limit));
  PLUMB_ASSIGN_OR_RETURN(const Interval interval, WilsonInterval(flips, prompts, confidence));
  PLUMB_ASSIGN_OR_RETURN(const double z, TwoSidedZ(confidence));
  GateResult result;
  result.interval = interval;
  if (prompts > 0 && interval.upper <= limit) {
    result.decision = GateDecision::kPass;
    return result;
  }
  if (prompts > 0 && interval.lower > limit) {
    result.decision = GateDecision::kFail;
    return result;
  }
  const double rate = prompts == 0 ? 0 : static_cast<double>(flips) / prompts;
  if (rate == limit) return result;
  const double needed = std::ceil(z * z * limit * (1 - limit) / ((rate - limit) * (rate - limit)));
  if (needed > static_cast<double>(kMaxTrials)) return result;
  int64_t total = std::max(static_cast<int64_t>(needed), prompts + 1);
  // The closed form is exact up to rounding; settle the last prompt on the interval itself.
  const auto decided = [&](int64_t n) {
    const Interval at = Wilson(rate * n, static_cast<double>(n), z);
    return rate < limit ? at.upper <= limit : at.lower > limit;
  };
  while (!decided(total)) ++total;
  result.more_prompts = total - prompts;
  return result;
}

absl::StatusOr<int64_t> PromptsNeededToPass(int64_t flips, double limit, double confidence) {
  PLUMB_RETURN_IF_ERROR(CheckLimit(limit));
  PLUMB_RETURN_IF_ERROR(CheckCounts(flips, kMaxTrials));
  PLUMB_ASSIGN_OR_RETURN(const double z, TwoSidedZ(confidence));
  int64_t low = flips;  // fails: with every prompt flipping the upper end is 1
  int64_t high = std::max<int64_t>(flips, 1);
  const auto passes = [&](int64_t n) {
    return n > 0 && Wilson(static_cast<double>(flips), static_cast<double>(n), z).upper <= limit;
  };
  while (!passes(high)) {
    if (high > kMaxTrials) {
      return absl::OutOfRangeError(absl::StrCat("more than ", kMaxTrials, " prompts for ", flips,
                                                " flips under a limit of ", limit));
    }
    low = high;
    high *= 2;
  }
  while (high - low > 1) {
    const int64_t middle = low + (high - low) / 2;
    (passes(middle) ? high : low) = middle;
  }
  return high;
}

absl::StatusOr<double> ProbabilityOfPassing(int64_t flips, int64_t prompts, int64_t future_prompts,
                                            double limit, double confidence) {
  PLUMB_RETURN_IF_ERROR(CheckLimit(limit));
  PLUMB_RETURN_IF_ERROR(CheckCounts(flips, prompts));
  PLUMB_RETURN_IF_ERROR(CheckCounts(0, future_prompts));
  PLUMB_ASSIGN_OR_RETURN(const double z, TwoSidedZ(confidence));
  const double n = static_cast<double>(future_prompts);
  const double a = static_cast<double>(flips) + 0.5;
  const double b = static_cast<double>(prompts - flips) + 0.5;
  const auto passes = [&](int64_t k) {
    return k < future_prompts && Wilson(static_cast<double>(k), n, z).upper <= limit;
  };
  double log_mass = 0;  // of 0 flips: the product of (b + i) / (a + b + i)
  for (int64_t i = 0; passes(0) && i < future_prompts; ++i)
    log_mass += std::log1p(-a / (a + b + i));
  double sum = 0;
  for (int64_t k = 0; passes(k); ++k) {
    sum += std::exp(log_mass);
    log_mass += std::log((n - k) / (k + 1) * (a + k) / (b + n - k - 1));
  }
  return std::min(1.0, sum);
}

}  // namespace plumbline
