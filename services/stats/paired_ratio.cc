#include "services/stats/paired_ratio.h"

#include <algorithm>
#include <cmath>

#include "absl/strings/str_cat.h"
#include "services/common/status_macros.h"
#include "services/stats/binomial.h"
#include "services/stats/random.h"

namespace plumbline {
namespace {

absl::Status CheckPairs(const PairedOutcomes& pairs) {
  for (const int64_t count : {pairs.both, pairs.only_a, pairs.only_b, pairs.neither}) {
    if (count < 0 || count > kMaxTrials) {
      return absl::InvalidArgumentError(
          absl::StrCat("paired counts must be within 0..", kMaxTrials, ", got ", count));
    }
  }
  return absl::OkStatus();
}

absl::Status CheckOptions(const RatioOptions& options) {
  if (options.draws < 1'000 || options.draws > 10'000'000) {
    return absl::InvalidArgumentError(
        absl::StrCat("draws must be within 1000..10000000, got ", options.draws));
  }
  if (!(options.confidence > 0 && options.confidence < 1)) {
    return absl::InvalidArgumentError(
        absl::StrCat("confidence must be above 0 and below 1, got ", options.confidence));
  }
  if (!std::is_sorted(options.band_cuts.begin(), options.band_cuts.end())) {
    return absl::InvalidArgumentError("band cuts must ascend");
  }
  if (options.histogram_bins < 0 || !(options.histogram_from < 1)) {
    return absl::InvalidArgumentError(absl::StrCat("histogram of ", options.histogram_bins,
                                                   " bins from ", options.histogram_from, " to 1"));
  }
  return absl::OkStatus();
}

std::vector<double> SortedDraws(const PairedOutcomes& pairs, const RatioOptions& options) {
  CounterRng rng(options.seed);
  std::vector<double> draws(options.draws);
  for (double& draw : draws) {
    const double both = rng.GammaHalf(pairs.both);
    const double only_a = rng.GammaHalf(pairs.only_a);
    const double only_b = rng.GammaHalf(pairs.only_b);
    draw = 1 - (both + only_a) / (both + only_b);
  }
  std::sort(draws.begin(), draws.end());
  return draws;
}

// The smallest draw with at least a share q of all draws at or below it.
double Quantile(const std::vector<double>& sorted, double q) {
  const double rank = std::ceil(q * static_cast<double>(sorted.size()));
  return sorted[std::clamp<size_t>(static_cast<size_t>(rank), 1, sorted.size()) - 1];
}

// Central, but up to 1 where nothing flips under a: the posterior is densest there, and a central
// interval would leave the estimate itself out.
Interval EndsOf(const std::vector<double>& sorted, const PairedOutcomes& pairs, double confidence) {
  const double tail = (1 - confidence) / 2;
  return {.lower = Quantile(sorted, tail),
          .upper = pairs.flips_a() == 0 ? 1 : Quantile(sorted, 1 - tail)};
}

std::vector<double> BandMasses(const std::vector<double>& sorted, const std::vector<double>& cuts) {
  std::vector<double> masses;
  auto begin = sorted.begin();
  for (const double cut : cuts) {
    const auto end = std::lower_bound(begin, sorted.end(), cut);
    masses.push_back(static_cast<double>(end - begin) / static_cast<double>(sorted.size()));
    begin = end;
  }
  masses.push_back(static_cast<double>(sorted.end() - begin) / static_cast<double>(sorted.size()));
  return masses;
}

std::vector<double> Histogram(const std::vector<double>& sorted, const RatioOptions& options) {
  std::vector<double> bins(options.histogram_bins);
  if (bins.empty()) return bins;
  const double width = (1 - options.histogram_from) / static_cast<double>(bins.size());
  for (const double draw : sorted) {
    if (draw < options.histogram_from) continue;
    const double position = std::floor((draw - options.histogram_from) / width);
    bins[std::min(static_cast<size_t>(position), bins.size() - 1)] += 1;
  }
  for (double& bin : bins) bin /= static_cast<double>(sorted.size());
  return bins;
}

}  // namespace

absl::StatusOr<PairedOutcomes> CountPairs(const std::vector<bool>& flipped_a,
                                          const std::vector<bool>& flipped_b) {
  if (flipped_a.size() != flipped_b.size()) {
    return absl::InvalidArgumentError(
        absl::StrCat("pairs need the same prompts on both sides, got ", flipped_a.size(), " and ",
                     flipped_b.size()));
  }
  PairedOutcomes pairs;
  for (size_t i = 0; i < flipped_a.size(); ++i) {
    if (flipped_a[i]) {
      ++(flipped_b[i] ? pairs.both : pairs.only_a);
    } else {
      ++(flipped_b[i] ? pairs.only_b : pairs.neither);
    }
  }
  return pairs;
}

absl::StatusOr<RatioPosterior> PairedRatioPosterior(const PairedOutcomes& pairs,
                                                    const RatioOptions& options) {
  PLUMB_RETURN_IF_ERROR(CheckPairs(pairs));
  PLUMB_RETURN_IF_ERROR(CheckOptions(options));
  if (pairs.flips_b() < options.min_flips_b || pairs.flips_b() == 0) {
    return absl::FailedPreconditionError(
        absl::StrCat("the ratio is undefined: its denominator has ", pairs.flips_b(), " flips of ",
                     pairs.prompts(), " prompts and needs at least ",
                     std::max<int64_t>(1, options.min_flips_b), "; run more prompts"));
  }
  const std::vector<double> draws = SortedDraws(pairs, options);
  RatioPosterior posterior;
  posterior.estimate =
      1 - static_cast<double>(pairs.flips_a()) / static_cast<double>(pairs.flips_b());
  posterior.median = Quantile(draws, 0.5);
  posterior.interval = EndsOf(draws, pairs, options.confidence);
  posterior.band_mass = BandMasses(draws, options.band_cuts);
  posterior.histogram = Histogram(draws, options);
  const auto positive = std::upper_bound(draws.begin(), draws.end(), 0.0);
  posterior.probability_positive =
      static_cast<double>(draws.end() - positive) / static_cast<double>(draws.size());
  return posterior;
}

}  // namespace plumbline
