#include "services/stats/binomial.h"

#include <cmath>

#include "gtest/gtest.h"
#include "tests/support/status_matchers.h"

namespace plumbline {
namespace {

using ::plumbline::testing::StatusIs;
using ::testing::HasSubstr;

// By hand: C(4, k) / 16.
TEST(BinomialTest, MassesOfFourFairCoins) {
  EXPECT_DOUBLE_EQ(*BinomialMass(0, 4, 0.5), 1.0 / 16);
  EXPECT_NEAR(*BinomialMass(1, 4, 0.5), 4.0 / 16, 1e-15);
  EXPECT_NEAR(*BinomialMass(2, 4, 0.5), 6.0 / 16, 1e-15);
  EXPECT_NEAR(*BinomialUpperTail(3, 4, 0.5), 5.0 / 16, 1e-15);
  EXPECT_NEAR(*BinomialLowerTail(1, 4, 0.5), 5.0 / 16, 1e-15);
}

TEST(BinomialTest, TailsAtCertainProbabilitiesAreZeroOrOne) {
  EXPECT_EQ(*BinomialUpperTail(1, 10, 0.0), 0);
  EXPECT_EQ(*BinomialUpperTail(0, 10, 0.0), 1);
  EXPECT_EQ(*BinomialLowerTail(9, 10, 1.0), 0);
  EXPECT_EQ(*BinomialLowerTail(10, 10, 1.0), 1);
  EXPECT_EQ(*BinomialMass(0, 0, 0.3), 1);
}

TEST(BinomialTest, FarTailsKeepTheirRelativeAccuracy) {
  // P(X >= 400 of 400) at 0.2 is 0.2^400 = 10^-279.588..., far below 1 - (any rounded sum).
  EXPECT_NEAR(std::log10(*BinomialUpperTail(400, 400, 0.2)), 400 * std::log10(0.2), 1e-10);
}

TEST(BinomialTest, TwoTailsMeetAtOnePlusTheSharedMass) {
  for (int64_t n : {1, 2, 7, 24, 96, 1000, 100'000}) {
    for (double p : {0.001, 0.05, 0.5, 0.77, 0.999}) {
      for (int64_t k : {int64_t{0}, n / 10, n / 2, n}) {
        EXPECT_NEAR(*BinomialLowerTail(k, n, p) + *BinomialUpperTail(k, n, p),
                    1 + *BinomialMass(k, n, p), 1e-12)
            << k << " of " << n << " at " << p;
      }
    }
  }
}

TEST(BinomialTest, TheObservedMeanIsNoEvidenceAgainstItself) {
  EXPECT_EQ(*BinomialTest(50, 100, 0.5, Alternative::kTwoSided), 1);
  EXPECT_EQ(*BinomialTest(0, 0, 0.5, Alternative::kGreater), 1);
}

TEST(BinomialTest, ImpossibleCountsAreRefusedWithTheirValues) {
  EXPECT_THAT(BinomialMass(5, 4, 0.5),
              StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr("(4), got 5")));
  EXPECT_THAT(BinomialMass(-1, 4, 0.5), StatusIs(absl::StatusCode::kInvalidArgument));
  EXPECT_THAT(BinomialMass(0, -1, 0.5), StatusIs(absl::StatusCode::kInvalidArgument));
  EXPECT_THAT(BinomialMass(0, kMaxTrials + 1, 0.5), StatusIs(absl::StatusCode::kInvalidArgument));
  EXPECT_THAT(BinomialUpperTail(1, 4, 1.5),
              StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr("got 1.5")));
  EXPECT_THAT(BinomialLowerTail(1, 4, std::nan("")), StatusIs(absl::StatusCode::kInvalidArgument));
}

TEST(McNemarTest, OnlyDiscordantPairsCount) {
  // 6 against 0: 2 * (1/2)^6.
  EXPECT_NEAR(*McNemarExact(6, 0), 2.0 / 64, 1e-15);
  EXPECT_NEAR(*McNemarExact(0, 6), 2.0 / 64, 1e-15);
  EXPECT_EQ(*McNemarExact(0, 0), 1);
  EXPECT_EQ(*McNemarExact(7, 7), 1);
  EXPECT_THAT(McNemarExact(-1, 3), StatusIs(absl::StatusCode::kInvalidArgument));
}

}  // namespace
}  // namespace plumbline
