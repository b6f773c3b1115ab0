// Posterior of 1 - flip(a) / flip(b) for two conditions that ran the same prompts: PCR (a per
// channel, b per tensor, both at L*) and recovery (a the plan, b the target).
//
//   // 20 prompts: b flips 6, a flips 1 of those 6 and no other.
//   PairedOutcomes pairs{.both = 1, .only_a = 0, .only_b = 5, .neither = 14};
//   absl::StatusOr<RatioPosterior> pcr = PairedRatioPosterior(pairs, {});
//   // pcr->estimate 0.83, pcr->interval about [0.27, 0.99], pcr->band_mass about {.03 .25 .72}
//
// Where a flips none the interval reaches 1 (Brown, Cai and DasGupta 2001 do the same to Jeffreys'
// interval at 0 successes): its central form would leave out both the estimate and a plan that
// never flips.
//
// Why: a bootstrap of 3/20 against 0/20 resamples zeros and reports [100%, 100%].
#pragma once

#include <cstdint>
#include <vector>

#include "absl/status/statusor.h"
#include "services/stats/intervals.h"

namespace plumbline {

// The four outcomes of the prompts that both conditions ran and the baseline refused.
struct PairedOutcomes {
  int64_t both = 0;  // flips under a and under b
  int64_t only_a = 0;
  int64_t only_b = 0;
  int64_t neither = 0;
  // Of these prompts, answers under a and under b that broke down. They are no flips, so a ratio of
  // flips says nothing where they are many; the posterior does not look at them.
  int64_t broken_a = 0;
  int64_t broken_b = 0;

  bool mostly_broken_a() const { return prompts() > 0 && 2 * broken_a >= prompts(); }
  bool mostly_broken_b() const { return prompts() > 0 && 2 * broken_b >= prompts(); }
  int64_t flips_a() const { return both + only_a; }
  int64_t flips_b() const { return both + only_b; }
  int64_t prompts() const { return both + only_a + only_b + neither; }
  friend bool operator==(const PairedOutcomes&, const PairedOutcomes&) = default;
};

// Counts the outcomes of verdict flags in the same prompt order. InvalidArgument when the lengths
// differ.
absl::StatusOr<PairedOutcomes> CountPairs(const std::vector<bool>& flipped_a,
                                          const std::vector<bool>& flipped_b);

struct RatioOptions {
  // Ascending cuts of the ratio's axis; n cuts make n + 1 bands.
  std::vector<double> band_cuts = {0.3, 0.7};
  double confidence = kDefaultConfidence;
  // Draws; range 1,000..10,000,000. The sampling error of a band mass m is sqrt(m (1 - m) / draws):
  // 0.0013 at m = 0.8.
  int32_t draws = 100'000;
  uint64_t seed = 0x706c756d62;  // the same counts always give the same bytes
  int64_t min_flips_b = 5;       // below it the ratio is undefined
  // Equal bins over [histogram_from, 1] for plots; 0 = none.
  int32_t histogram_bins = 0;
  double histogram_from = -0.5;
};

struct RatioPosterior {
  double estimate = 0;  // 1 - flips_a / flips_b as measured; negative when a flips more than b
  double median = 0;
  double probability_positive = 0;  // posterior mass above 0
  // Equal-tailed, of `confidence`, and up to 1 when flips_a = 0; holds the estimate. The lower end
  // may be far below 0.
  Interval interval;
  std::vector<double> band_mass;  // sums to 1
  std::vector<double> histogram;  // mass of each bin; mass below histogram_from is in none
};

// The posterior with a Dirichlet(1/2, 1/2, 1/2, 1/2) prior on the four outcomes (Jeffreys' prior of
// a multinomial; Gelman et al., Bayesian Data Analysis, 3.4): outcome probabilities are normalized
// Gamma(count + 1/2) draws, and the ratio is 1 - (g_both + g_only_a) / (g_both + g_only_b).
// FailedPrecondition, naming the flips, when b has fewer than min_flips_b (the ratio is undefined);
// InvalidArgument for negative counts or options outside their ranges.
absl::StatusOr<RatioPosterior> PairedRatioPosterior(const PairedOutcomes& pairs,
                                                    const RatioOptions& options);

}  // namespace plumbline
