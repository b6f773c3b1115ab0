#include "services/stats/paired_ratio.h"

#include <numeric>

#include "gtest/gtest.h"
#include "tests/support/status_matchers.h"

namespace plumbline {
namespace {

using ::plumbline::testing::StatusIs;
using ::testing::HasSubstr;

TEST(PairedRatioTest, AFewFlipsGiveAWideIntervalWhereABootstrapWouldSayCertain) {
  // The method's example: 6 of 40 against 0 of 40.
  ASSERT_OK_AND_ASSIGN(
      const RatioPosterior posterior,
      PairedRatioPosterior({.both = 0, .only_a = 0, .only_b = 6, .neither = 34}, {}));
  EXPECT_EQ(posterior.estimate, 1);
  EXPECT_LT(posterior.interval.lower, 0.6);
  EXPECT_EQ(posterior.interval.upper, 1);
}

TEST(PairedRatioTest, TheIntervalHoldsTheEstimateWhateverTheCounts) {
  RatioOptions options;
  options.draws = 4'000;
  for (int64_t flips_b = 5; flips_b <= 60; flips_b += 5) {
    for (int64_t both = 0; both <= flips_b; ++both) {
      for (const int64_t only_a : {0, 1, 4}) {
        ASSERT_OK_AND_ASSIGN(
            const RatioPosterior posterior,
            PairedRatioPosterior({.both = both, .only_a = only_a, .only_b = flips_b - both},
                                 options));
        EXPECT_LE(posterior.interval.lower, posterior.estimate) << both << only_a << flips_b;
        EXPECT_GE(posterior.interval.upper, posterior.estimate) << both << only_a << flips_b;
        EXPECT_EQ(posterior.interval.upper == 1, both + only_a == 0) << both << only_a << flips_b;
      }
    }
  }
}

TEST(PairedRatioTest, IsUndefinedBelowFiveFlipsInTheDenominator) {
  EXPECT_THAT(PairedRatioPosterior({.only_b = 4, .neither = 50}, {}),
              StatusIs(absl::StatusCode::kFailedPrecondition, HasSubstr("4 flips of 54")));
  EXPECT_THAT(PairedRatioPosterior({.only_b = 5, .neither = 50}, {}), testing::IsOk());
}

TEST(PairedRatioTest, BandsSumToOneAndSwitchSidesWithTheData) {
  ASSERT_OK_AND_ASSIGN(const RatioPosterior low,
                       PairedRatioPosterior({.both = 50, .only_b = 2, .neither = 48}, {}));
  ASSERT_OK_AND_ASSIGN(const RatioPosterior high,
                       PairedRatioPosterior({.both = 2, .only_b = 50, .neither = 48}, {}));
  ASSERT_EQ(low.band_mass.size(), 3u);
  EXPECT_GT(low.band_mass[0], 0.95);
  EXPECT_GT(high.band_mass[2], 0.95);
  EXPECT_NEAR(std::accumulate(low.band_mass.begin(), low.band_mass.end(), 0.0), 1, 1e-12);
}

TEST(PairedRatioTest, IsTheSameBytesEachTimeAndForThisSeedForever) {
  const PairedOutcomes pairs{.both = 3, .only_a = 1, .only_b = 9, .neither = 27};
  ASSERT_OK_AND_ASSIGN(const RatioPosterior one, PairedRatioPosterior(pairs, {}));
  ASSERT_OK_AND_ASSIGN(const RatioPosterior two, PairedRatioPosterior(pairs, {}));
  EXPECT_EQ(one.interval, two.interval);
  EXPECT_EQ(one.median, two.median);
  EXPECT_EQ(one.band_mass, two.band_mass);
  // Bits seen with -O0 and with -O3 -march=native; compare_stats.py says that they are right.
  EXPECT_EQ(one.median, 0x1.409b6ec8c66a4p-1);
  EXPECT_EQ(one.interval, (Interval{0x1.df6cff4e4e718p-3, 0x1.b83dbd6bf8071p-1}));
}

TEST(PairedRatioTest, TheHistogramHoldsTheMassAboveItsStart) {
  RatioOptions options;
  options.histogram_bins = 30;
  ASSERT_OK_AND_ASSIGN(
      const RatioPosterior posterior,
      PairedRatioPosterior({.both = 2, .only_a = 0, .only_b = 30, .neither = 30}, options));
  ASSERT_EQ(posterior.histogram.size(), 30u);
  EXPECT_NEAR(std::accumulate(posterior.histogram.begin(), posterior.histogram.end(), 0.0), 1,
              1e-9);
}

TEST(PairedRatioTest, BadInputIsRefused) {
  EXPECT_THAT(PairedRatioPosterior({.both = -1, .only_b = 9}, {}),
              StatusIs(absl::StatusCode::kInvalidArgument));
  RatioOptions options;
  options.draws = 10;
  EXPECT_THAT(PairedRatioPosterior({.only_b = 9}, options),
              StatusIs(absl::StatusCode::kInvalidArgument));
}

TEST(CountPairsTest, SortsPromptsIntoTheFourOutcomes) {
  ASSERT_OK_AND_ASSIGN(const PairedOutcomes pairs, CountPairs({true, true, false, false, false},
                                                              {true, false, true, false, false}));
  EXPECT_EQ(pairs, (PairedOutcomes{.both = 1, .only_a = 1, .only_b = 1, .neither = 2}));
  EXPECT_THAT(CountPairs({true}, {}), StatusIs(absl::StatusCode::kInvalidArgument));
}

}  // namespace
}  // namespace plumbline
