#include "services/stats/random.h"

#include <cmath>

#include "gtest/gtest.h"

namespace plumbline {
namespace {

// The first outputs of the authors' reference SplitMix64 for seed 1234567.
TEST(CounterRngTest, MatchesTheReferenceStream) {
  CounterRng rng(1234567);
  EXPECT_EQ(rng.Next(), 6457827717110365317u);
  EXPECT_EQ(rng.Next(), 3203168211198807973u);
  EXPECT_EQ(rng.Next(), 9817491932198370423u);
}

TEST(CounterRngTest, PortableLogStaysWithinTwoUlp) {
  CounterRng rng(3);
  for (int i = 0; i < 200'000; ++i) {
    const double x = std::ldexp(0.5 + rng.Uniform(), static_cast<int>(rng.Below(200)) - 150);
    const double expected = std::log(x);
    const double ulp = std::nextafter(std::abs(expected), INFINITY) - std::abs(expected);
    ASSERT_NEAR(PortableLog(x), expected, 2 * ulp) << x;
  }
  EXPECT_EQ(PortableLog(1.0), 0.0);
}

TEST(CounterRngTest, PortableExpStaysWithinTwoUlp) {
  CounterRng rng(4);
  for (int i = 0; i < 200'000; ++i) {
    const double x = -std::pow(10, 16 * rng.Uniform() - 13.2);
    const double expected = std::exp(x);
    if (x < -700) {
      ASSERT_EQ(PortableExp(x), 0) << x;
      continue;
    }
    const double ulp = expected - std::nextafter(expected, 0);
    ASSERT_NEAR(PortableExp(x), expected, 2 * ulp) << x;
  }
  EXPECT_EQ(PortableExp(0.0), 1.0);
}

TEST(CounterRngTest, GammaHalfHasItsMeanAndVariance) {
  // Mean and variance of Gamma(a, 1) are both a. Six standard errors of 200,000 draws, fixed seed.
  constexpr int kDraws = 200'000;
  for (const int64_t count : {0, 1, 5, 100}) {
    CounterRng rng(11 + count);
    double sum = 0;
    double squares = 0;
    for (int i = 0; i < kDraws; ++i) {
      const double draw = rng.GammaHalf(count);
      ASSERT_GT(draw, 0);
      sum += draw;
      squares += draw * draw;
    }
    const double a = count + 0.5;
    const double mean = sum / kDraws;
    EXPECT_NEAR(mean, a, 6 * std::sqrt(a / kDraws));
    // Var of the sample variance: (mu4 - sigma^4) / n with mu4 = 3a^2 + 6a.
    EXPECT_NEAR(squares / kDraws - mean * mean, a, 6 * std::sqrt((2 * a * a + 6 * a) / kDraws));
  }
}

TEST(CounterRngTest, BelowReachesEveryValueEvenly) {
  CounterRng rng(5);
  int counts[7] = {};
  for (int i = 0; i < 70'000; ++i) ++counts[rng.Below(7)];
  for (const int count : counts) EXPECT_NEAR(count, 10'000, 6 * std::sqrt(10'000.0 * 6 / 7));
}

TEST(CounterRngTest, ConditionsOfOneSeedAreReproducible) {
  CounterRng a(99);
  CounterRng b(99);
  for (int i = 0; i < 1000; ++i) ASSERT_EQ(a.GammaHalf(i % 5), b.GammaHalf(i % 5));
}

}  // namespace
}  // namespace plumbline
