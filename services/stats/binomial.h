// Exact binomial probabilities and tests.
//
// Formulas: probability mass by the saddle-point form of C. Loader, "Fast and Accurate Computation
// of Binomial Probabilities" (2000); tails by summing masses from the largest outwards. Relative
// error is about 1e-13 where the result is above 1e-290 (tests/parity/stats).
//
//   // 9 flips of 40 prompts; is the flip rate above 5%?
//   absl::StatusOr<double> p = BinomialTest(9, 40, 0.05, Alternative::kGreater);  // 0.000155
//
// Thread safe. Every function returns InvalidArgument, with the values, unless
// 0 <= successes <= trials, trials <= kMaxTrials and 0 <= probability <= 1.
#pragma once

#include <cstdint>

#include "absl/status/status.h"
#include "absl/status/statusor.h"

namespace plumbline {

inline constexpr int64_t kMaxTrials = 10'000'000;

// A number of successes (flips) among trials (prompts that the baseline refuses).
absl::Status CheckCounts(int64_t successes, int64_t trials);

// P(X = successes), X ~ Binomial(trials, probability).
absl::StatusOr<double> BinomialMass(int64_t successes, int64_t trials, double probability);

// P(X <= successes).
absl::StatusOr<double> BinomialLowerTail(int64_t successes, int64_t trials, double probability);

// P(X >= successes).
absl::StatusOr<double> BinomialUpperTail(int64_t successes, int64_t trials, double probability);

enum class Alternative {
  kTwoSided,  // sums every outcome that is at most as probable as the observed one
  kGreater,   // the true probability is above p0
  kLess,      // the true probability is below p0
};

// p-value of the exact binomial test of "the probability is p0". The two-sided form is that of R's
// binom.test and scipy.stats.binomtest: outcomes within 1e-7 (relative) of the observed mass count
// as equally probable. p-value 1 when trials is 0.
absl::StatusOr<double> BinomialTest(int64_t successes, int64_t trials, double p0,
                                    Alternative alternative);

// Exact McNemar test on paired verdicts: `only_a` prompts changed under condition a alone, `only_b`
// under b alone; both-or-neither pairs carry no information. Two-sided p-value of
// min(only_a, only_b) against Binomial(only_a + only_b, 1/2), doubled and capped at 1 (McNemar
// 1947; Agresti, Categorical Data Analysis, 10.1). 1 when there is no discordant pair.
// Precondition: both sides ran the same whole prompt set (method: never for ablations).
absl::StatusOr<double> McNemarExact(int64_t only_a, int64_t only_b);

}  // namespace plumbline
