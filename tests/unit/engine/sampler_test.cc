#include "services/engine/sampling/sampler.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <numeric>
#include <vector>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "services/common/digest.h"
#include "services/engine/sampling/logits.h"
#include "services/engine/sampling/philox.h"

namespace plumbline {
namespace {

using ::testing::ElementsAre;

// The known answers published with the Random123 library.
TEST(PhiloxTest, GivesThePublishedAnswers) {
  EXPECT_THAT(Philox4x32({0, 0, 0, 0}, 0),
              ElementsAre(0x6627e8d5u, 0xe169c58du, 0xbc57ac4cu, 0x9b00dbd8u));
  EXPECT_THAT(Philox4x32({0xffffffffu, 0xffffffffu, 0xffffffffu, 0xffffffffu}, ~uint64_t{0}),
              ElementsAre(0x408f276du, 0x41c83b0eu, 0xa20bc7c6u, 0x6d5451fdu));
  EXPECT_THAT(Philox4x32({0x243f6a88u, 0x85a308d3u, 0x13198a2eu, 0x03707344u}, 0x299f31d0a4093822u),
              ElementsAre(0xd16cfe09u, 0x94fdccebu, 0x5001e420u, 0x24126ea1u));
}

Sampling At(double temperature, double top_p = 1, uint64_t seed = 11) {
  Sampling sampling;
  sampling.temperature = temperature;
  sampling.top_p = top_p;
  sampling.seed = seed;
  sampling.stream = 5;
  return sampling;
}

int32_t ArgMax(const std::vector<float>& logits) {
  return static_cast<int32_t>(std::max_element(logits.begin(), logits.end()) - logits.begin());
}

std::vector<int> Histogram(const std::vector<float>& logits, const Sampling& sampling, int draws) {
  std::vector<int> counts(logits.size());
  for (int i = 0; i < draws; ++i) {
    ++counts[SampleToken(logits.data(), static_cast<int>(logits.size()), ArgMax(logits), sampling,
                         i)];
  }
  return counts;
}

TEST(SamplerTest, FrequenciesFollowTheSoftmax) {
  const std::vector<float> logits = {1.0f, 0.0f, 2.0f, -1.0f, 1.5f};
  const double temperature = 0.8;
  const int draws = 40000;
  const std::vector<int> counts = Histogram(logits, At(temperature), draws);
  double total = 0, chi_square = 0;
  for (float logit : logits) total += std::exp(logit / temperature);
  for (size_t i = 0; i < logits.size(); ++i) {
    const double expected = draws * std::exp(logits[i] / temperature) / total;
    chi_square += (counts[i] - expected) * (counts[i] - expected) / expected;
  }
  EXPECT_LT(chi_square, 18.47);  // p = .001 at 4 degrees of freedom
}

TEST(SamplerTest, NucleusKeepsTheSmallestSetThatReachesTopP) {
  // Probabilities .5 .25 .125 .125: top_p .7 needs two, .75 needs two, .8 three.
  const std::vector<float> logits = {std::log(.125f), std::log(.5f), std::log(.25f),
                                     std::log(.125f)};
  const std::vector<int> two = Histogram(logits, At(1, .7), 2000);
  EXPECT_EQ(two[0] + two[3], 0);
  EXPECT_GT(two[2], 0);
  const std::vector<int> three = Histogram(logits, At(1, .8), 2000);
  EXPECT_GT(three[0], 0);  // of two equals the lower id is in
  EXPECT_EQ(three[3], 0);
  const std::vector<int> one = Histogram(logits, At(1, .01), 200);
  EXPECT_EQ(one[1], 200);
}

TEST(SamplerTest, NucleusOfManyTokensIsWhole) {
  std::vector<float> logits(1000, 0.0f);
  logits[7] = 0.5f;
  const std::vector<int> counts = Histogram(logits, At(1, .999), 3000);
  EXPECT_GT(std::count_if(counts.begin(), counts.end(), [](int c) { return c > 0; }), 800);
}

// Tokens that are skipped because no noise could lift them must not change the choice.
TEST(SamplerTest, SkippingHopelessTokensChangesNothing) {
  std::vector<float> logits(500);
  for (int i = 0; i < 500; ++i) logits[i] = static_cast<float>((i * 7919) % 500) / 8.0f;
  const Sampling sampling = At(1.3);
  for (int position = 0; position < 300; ++position) {
    int32_t best = 0;
    double best_score = -HUGE_VAL;
    for (int32_t token = 0; token < 500; ++token) {
      const double score = logits[token] / 1.3 + GumbelNoise(sampling, position, token);
      if (score > best_score) best = token, best_score = score;
    }
    EXPECT_EQ(SampleToken(logits.data(), 500, ArgMax(logits), sampling, position), best);
  }
}

TEST(SamplerTest, NoiseDependsOnSeedStreamPositionAndToken) {
  const double base = GumbelNoise(At(1), 3, 40);
  EXPECT_EQ(GumbelNoise(At(2), 3, 40), base);
  EXPECT_NE(GumbelNoise(At(1, 1, 12), 3, 40), base);
  EXPECT_NE(GumbelNoise(At(1), 4, 40), base);
  EXPECT_NE(GumbelNoise(At(1), 3, 41), base);
  Sampling other = At(1);
  other.stream = 6;
  EXPECT_NE(GumbelNoise(other, 3, 40), base);
}

// Shared randomness: a small change of the logits rarely changes the sampled token.
TEST(SamplerTest, NearlyEqualLogitsMostlyDrawTheSameToken) {
  std::vector<float> logits(200), moved(200);
  for (int i = 0; i < 200; ++i) {
    logits[i] = std::sin(static_cast<float>(i)) * 2;
    moved[i] = logits[i] + 0.01f * std::cos(static_cast<float>(3 * i));
  }
  int same = 0;
  for (int i = 0; i < 1000; ++i) {
    same += SampleToken(logits.data(), 200, ArgMax(logits), At(1), i) ==
            SampleToken(moved.data(), 200, ArgMax(moved), At(1), i);
  }
  EXPECT_GT(same, 970);  // independent draws would agree on about 30
}

TEST(LogitsTest, FindsTheTwoBestAndBreaksTiesByTheLowerId) {
  LogitTask task;
  task.choose = true;
  const std::vector<float> logits = {0, 3, 1, 3, 2};
  const LogitOutcome outcome = ReadLogits(logits.data(), 5, task);
  EXPECT_EQ(outcome.token, 1);
  EXPECT_EQ(outcome.trace.top1, 1);
  EXPECT_EQ(outcome.trace.top2, 3);
  EXPECT_EQ(outcome.trace.top2_logit, 3);
  EXPECT_EQ(outcome.trace.regret, 0);
}

TEST(LogitsTest, FindsTheTwoBestWhereverTheyAre) {
  for (int first = 0; first < 40; ++first) {
    for (int second = 0; second < 40; ++second) {
      if (first == second) continue;
      std::vector<float> logits(40, -5.0f);
      logits[first] = 2;
      logits[second] = 1;
      const LogitOutcome outcome = ReadLogits(logits.data(), 40, {});
      EXPECT_EQ(outcome.trace.top1, first);
      EXPECT_EQ(outcome.trace.top2, second);
    }
  }
}

TEST(LogitsTest, TellsEveryKindOfNonFiniteValueAtEveryPlace) {
  for (float bad : {std::numeric_limits<float>::quiet_NaN(), HUGE_VALF, -HUGE_VALF}) {
    for (int place = 0; place < 37; ++place) {
      std::vector<float> logits(37, 1.0f);
      EXPECT_TRUE(ReadLogits(logits.data(), 37, {}).finite);
      logits[place] = bad;
      EXPECT_FALSE(ReadLogits(logits.data(), 37, {}).finite);
    }
  }
}

TEST(LogitsTest, LikelihoodIsThatOfTheSoftmax) {
  LogitTask task;
  task.target = 2;
  const std::vector<float> logits = {1, 2, 3};
  const double expected = std::log(std::exp(1) + std::exp(2) + std::exp(3)) - 3;
  EXPECT_NEAR(ReadLogits(logits.data(), 3, task).nll, expected, 1e-12);
}

TEST(LogitsTest, MostProbableTokensAreThoseOfTheSoftmaxInOrder) {
  std::vector<float> logits(300);
  for (int i = 0; i < 300; ++i) logits[i] = 6 * std::sin(static_cast<float>(i * i));
  long double total = 0;
  for (float x : logits) total += std::exp(static_cast<long double>(x));
  std::vector<int32_t> order(300);
  std::iota(order.begin(), order.end(), 0);
  std::stable_sort(order.begin(), order.end(),
                   [&](int32_t a, int32_t b) { return logits[a] > logits[b]; });
  for (int top : {1, 2, 32, 299, 300, 1000}) {
    LogitTask task;
    task.top = top;
    const LogitOutcome outcome = ReadLogits(logits.data(), 300, task);
    ASSERT_EQ(outcome.top.size(), static_cast<size_t>(std::min(top, 300)));
    for (size_t i = 0; i < outcome.top.size(); ++i) {
      EXPECT_EQ(outcome.top[i].token, order[i]);
      EXPECT_FLOAT_EQ(outcome.top[i].log_probability,
                      static_cast<float>(logits[order[i]] - std::log(total)));
    }
  }
}

TEST(LogitsTest, MostProbableTokensThatTieComeByTheLowerIdAndFillUpByIt) {
  LogitTask task;
  task.top = 3;
  const std::vector<float> logits = {1, 2, 1, 2, 1, 1};
  const LogitOutcome outcome = ReadLogits(logits.data(), 6, task);
  ASSERT_EQ(outcome.top.size(), 3u);
  EXPECT_EQ(outcome.top[0].token, 1);
  EXPECT_EQ(outcome.top[1].token, 3);
  EXPECT_EQ(outcome.top[2].token, 0);
}

TEST(LogitsTest, MostProbableTokensStayFiniteAtTheEndsOfTheRange) {
  LogitTask task;
  task.top = 2;
  const std::vector<float> logits = {3e38f, -3e38f};
  const LogitOutcome outcome = ReadLogits(logits.data(), 2, task);
  EXPECT_EQ(outcome.top[0].log_probability, 0);
  EXPECT_TRUE(std::isfinite(outcome.top[1].log_probability));
  const std::vector<float> bad = {1, std::nanf("")};
  EXPECT_TRUE(ReadLogits(bad.data(), 2, task).top.empty());
}

TEST(LogitsTest, DigestIsThatOfTheFloatBits) {
  LogitTask task;
  task.want_digest = true;
  const std::vector<float> logits = {1, 2};
  EXPECT_EQ(ReadLogits(logits.data(), 2, task).digest,
            Sha256Hex(absl::string_view(std::string("\0\0\x80\x3f\0\0\0\x40", 8))));
}

}  // namespace
}  // namespace plumbline
