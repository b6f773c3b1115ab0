// Intervals of a proportion, and the pass / fail / undecided rule of a gate built on them.
//
//   // 3 flips of 96 prompts.
//   absl::StatusOr<Interval> i = WilsonInterval(3, 96);                 // [0.0107, 0.0879]
//   absl::StatusOr<GateResult> g = DecideGate(3, 96, /*limit=*/0.05);   // undecided
//
// Proportions are fractions in 0..1, never percent. Thread safe.
#pragma once

#include <cstdint>
#include <optional>

#include "absl/status/statusor.h"

namespace plumbline {

struct Interval {
  double lower = 0;
  double upper = 1;
  friend bool operator==(const Interval&, const Interval&) = default;
};

inline constexpr double kDefaultConfidence = 0.95;

// Quantile of the standard normal distribution. InvalidArgument unless 0 < probability < 1.
absl::StatusOr<double> NormalQuantile(double probability);

// Wilson's score interval (E. B. Wilson 1927; Brown, Cai, DasGupta 2001, eq. 4):
//   (p + z^2/2n -+ z sqrt(p(1-p)/n + z^2/4n^2)) / (1 + z^2/n),  p = successes / trials.
// It inverts the score test, so it stays inside 0..1 and says something at 0 successes.
// No trials: [0, 1]. InvalidArgument unless 0 <= successes <= trials and 0 < confidence < 1.
absl::StatusOr<Interval> WilsonInterval(int64_t successes, int64_t trials,
                                        double confidence = kDefaultConfidence);

// Clopper and Pearson's exact interval (Biometrika 1934): the values of p that the one-sided exact
// binomial tests at (1 - confidence) / 2 do not reject. Never covers less than `confidence`; wider
// than Wilson's. Same errors. No trials: [0, 1].
absl::StatusOr<Interval> ClopperPearsonInterval(int64_t successes, int64_t trials,
                                                double confidence = kDefaultConfidence);

enum class GateDecision { kPass, kFail, kUndecided };

struct GateResult {
  GateDecision decision = GateDecision::kUndecided;
  Interval interval;  // Wilson
  // Undecided only: how many more prompts (beyond `trials`) would decide it if flips keep coming at
  // the observed rate. Absent when the observed rate equals the limit: no number would.
  std::optional<int64_t> more_prompts;
};

// Pass: Wilson's upper end <= limit. Fail: its lower end > limit. Else undecided.
// The number of prompts follows from Wilson's interval being the inverted score test: the limit
// lies at its end when |p - limit| = z sqrt(limit (1 - limit) / n), so n = z^2 limit (1 - limit) /
// (p - limit)^2. It is a forecast: the rate will move.
// InvalidArgument unless 0 <= flips <= prompts and 0 < limit < 1.
absl::StatusOr<GateResult> DecideGate(int64_t flips, int64_t prompts, double limit,
                                      double confidence = kDefaultConfidence);

// The fewest prompts with which `flips` flips still pass the gate: Wilson's upper end <= limit.
// 0 flips and a limit of 5% need 73. InvalidArgument as above (flips >= 0).
absl::StatusOr<int64_t> PromptsNeededToPass(int64_t flips, double limit,
                                            double confidence = kDefaultConfidence);

// The chance that DecideGate passes on `future_prompts` prompts not seen yet, after `flips` of
// `prompts` on others of the same kind: beta-binomial with Jeffreys' prior Beta(1/2, 1/2)
// (Gelman et al., Bayesian Data Analysis, 2.4 and 2.8). 0 when even no flip would pass there.
// InvalidArgument as above.
absl::StatusOr<double> ProbabilityOfPassing(int64_t flips, int64_t prompts, int64_t future_prompts,
                                            double limit, double confidence = kDefaultConfidence);

}  // namespace plumbline
