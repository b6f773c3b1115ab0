#include "services/common/figures.h"

#include <cmath>
#include <cstdlib>
#include <limits>
#include <string>

#include "gtest/gtest.h"

namespace plumbline {
namespace {

TEST(Figures, AFigureIsPrintedOnItsOwnSideOfALimit) {
  // Wilson's ends of 4 of 200 and 20 of 261.
  EXPECT_EQ(PercentText(0.0502862), "5.0%");
  EXPECT_EQ(PercentText(0.0502862, {0.05}), "5.03%");
  EXPECT_EQ(PercentText(0.0501, {0.05}), "5.01%");
  EXPECT_EQ(PercentText(0.0499999, {0.05}), "4.99999%");
  EXPECT_EQ(PercentText(0.796, {0.8}, 0), "79.6%");
  EXPECT_EQ(PercentText(0.804, {0.8}, 0), "80.4%");
  EXPECT_EQ(PercentText(0.83, {0.8}, 0), "83%");
  EXPECT_EQ(FixedText(1.103, 2, {1.10}), "1.103");
  EXPECT_EQ(FixedText(1.10, 2, {1.10}), "1.10");
  EXPECT_EQ(PercentText(0.0004, {0}), "0.04%");
  EXPECT_EQ(PercentText(0, {0}), "0.0%");
}

TEST(Figures, AFigureThatEqualsTheLimitIsPrintedAsTheLimit) {
  EXPECT_EQ(PercentText(1 - 0.95, {0.05}), "5.0%");  // 0.05 but for rounding
  EXPECT_EQ(PercentText(5.0 / 100, {0.05}), "5.0%");
  EXPECT_EQ(LimitText(0.05), "5.0%");
  EXPECT_EQ(LimitText(0.0125), "1.25%");
  EXPECT_EQ(LimitText(0.001), "0.1%");
}

TEST(Figures, EveryLimitHolds) {
  EXPECT_EQ(PercentText(0.04996, {0.05, 0.8}), "4.996%");
  EXPECT_EQ(PercentText(0.79996, {0.05, 0.8}), "79.996%");
  EXPECT_EQ(PercentRangeText(0.02, 0.0078, 0.0502862, {0.05}), "2.0% [0.8%, 5.03%]");
  EXPECT_EQ(PercentRangeText(0.02, 0.0078, 0.0502862), "2.0% [0.8%, 5.0%]");
  for (int step = 1; step < 400; ++step) {
    const double value = 0.05 + (step - 200) * 3.7e-6;
    const std::string text = PercentText(value, {0.05});
    const double printed = std::strtod(text.c_str(), nullptr) / 100;
    EXPECT_EQ(printed < 0.05 - 1e-12, step < 200) << text;
    EXPECT_EQ(printed > 0.05 + 1e-12, step > 200) << text;
  }
}

TEST(Figures, OneIsNotSeveral) {
  EXPECT_EQ(CountText(0, "prompt"), "0 prompts");
  EXPECT_EQ(CountText(1, "more refusal"), "1 more refusal");
  EXPECT_EQ(CountText(2, "more refusal"), "2 more refusals");
}

TEST(Figures, WhatIsNoNumberEndsAtTheFirstTry) {
  EXPECT_EQ(PercentText(std::numeric_limits<double>::infinity(), {0.05}), "inf%");
  EXPECT_EQ(PercentText(std::nan(""), {0.05}), "nan%");
}

}  // namespace
}  // namespace plumbline
