#include "services/stats/intervals.h"

#include <cmath>

#include "gtest/gtest.h"
#include "services/stats/binomial.h"
#include "tests/support/status_matchers.h"

namespace plumbline {
namespace {

using ::plumbline::testing::StatusIs;

// Table I of R. Newcombe, "Two-sided confidence intervals for the single proportion" (1998),
// methods 3 (Wilson) and 5 (Clopper-Pearson), four decimals.
TEST(IntervalTest, MatchesNewcombesPublishedExamples) {
  const struct {
    int64_t k, n;
    Interval wilson, exact;
  } rows[] = {{81, 263, {0.2553, 0.3662}, {0.2527, 0.3676}},
              {15, 148, {0.0624, 0.1605}, {0.0578, 0.1617}},
              {0, 20, {0.0, 0.1611}, {0.0, 0.1684}},
              {1, 29, {0.0061, 0.1718}, {0.0009, 0.1776}}};
  for (const auto& row : rows) {
    ASSERT_OK_AND_ASSIGN(const Interval wilson, WilsonInterval(row.k, row.n));
    ASSERT_OK_AND_ASSIGN(const Interval exact, ClopperPearsonInterval(row.k, row.n));
    EXPECT_NEAR(wilson.lower, row.wilson.lower, 5.1e-5) << row.k << " of " << row.n;
    EXPECT_NEAR(wilson.upper, row.wilson.upper, 5.1e-5) << row.k << " of " << row.n;
    EXPECT_NEAR(exact.lower, row.exact.lower, 5.1e-5) << row.k << " of " << row.n;
    EXPECT_NEAR(exact.upper, row.exact.upper, 5.1e-5) << row.k << " of " << row.n;
  }
}

TEST(IntervalTest, NoPromptsSayNothing) {
  EXPECT_EQ(*WilsonInterval(0, 0), (Interval{0, 1}));
  EXPECT_EQ(*ClopperPearsonInterval(0, 0), (Interval{0, 1}));
}

TEST(IntervalTest, EndsAreExactAtNoneAndAll) {
  EXPECT_EQ(WilsonInterval(0, 40)->lower, 0);
  EXPECT_EQ(WilsonInterval(40, 40)->upper, 1);
  EXPECT_EQ(ClopperPearsonInterval(0, 40)->lower, 0);
  EXPECT_EQ(ClopperPearsonInterval(40, 40)->upper, 1);
}

TEST(IntervalTest, BadArgumentsAreRefused) {
  EXPECT_THAT(WilsonInterval(3, 2), StatusIs(absl::StatusCode::kInvalidArgument));
  EXPECT_THAT(WilsonInterval(1, 2, 1.0), StatusIs(absl::StatusCode::kInvalidArgument));
  EXPECT_THAT(ClopperPearsonInterval(1, 2, 0.0), StatusIs(absl::StatusCode::kInvalidArgument));
  EXPECT_THAT(NormalQuantile(0.0), StatusIs(absl::StatusCode::kInvalidArgument));
  EXPECT_THAT(NormalQuantile(std::nan("")), StatusIs(absl::StatusCode::kInvalidArgument));
}

TEST(GateTest, PassesFailsAndAsksForMore) {
  ASSERT_OK_AND_ASSIGN(const GateResult pass, DecideGate(0, 73, 0.05));
  EXPECT_EQ(pass.decision, GateDecision::kPass);
  EXPECT_FALSE(pass.more_prompts.has_value());
  ASSERT_OK_AND_ASSIGN(const GateResult fail, DecideGate(20, 100, 0.05));
  EXPECT_EQ(fail.decision, GateDecision::kFail);
  ASSERT_OK_AND_ASSIGN(const GateResult more, DecideGate(0, 72, 0.05));
  EXPECT_EQ(more.decision, GateDecision::kUndecided);
  EXPECT_EQ(more.more_prompts, 1);
}

TEST(GateTest, TheForecastIsTheFirstNumberThatDecides) {
  // 2 of 100 at a limit of 5%: the rate stays 2%, so multiples of 50 prompts keep whole flips.
  for (const auto& [flips, prompts, limit] :
       {std::tuple{2, 100, 0.05}, {3, 100, 0.05}, {7, 100, 0.05}, {1, 10, 0.05}, {9, 100, 0.08}}) {
    ASSERT_OK_AND_ASSIGN(const GateResult now, DecideGate(flips, prompts, limit));
    ASSERT_EQ(now.decision, GateDecision::kUndecided);
    ASSERT_TRUE(now.more_prompts.has_value());
    const int64_t total = prompts + *now.more_prompts;
    const int64_t above = (total + prompts - 1) / prompts;  // whole multiples around the forecast
    EXPECT_NE(DecideGate(flips * above, prompts * above, limit)->decision,
              GateDecision::kUndecided);
    if (above > 1) {
      EXPECT_EQ(DecideGate(flips * (above - 1), prompts * (above - 1), limit)->decision,
                GateDecision::kUndecided);
    }
  }
}

TEST(GateTest, ARateExactlyAtTheLimitIsNeverDecided) {
  ASSERT_OK_AND_ASSIGN(const GateResult at, DecideGate(5, 100, 0.05));
  EXPECT_EQ(at.decision, GateDecision::kUndecided);
  EXPECT_FALSE(at.more_prompts.has_value());
}

TEST(GateTest, WithoutPromptsTheForecastIsThatOfNoFlips) {
  ASSERT_OK_AND_ASSIGN(const GateResult none, DecideGate(0, 0, 0.05));
  EXPECT_EQ(none.decision, GateDecision::kUndecided);
  EXPECT_EQ(none.more_prompts, 73);
  EXPECT_EQ(*PromptsNeededToPass(0, 0.05), 73);
}

TEST(GateTest, PromptsNeededIsTheFirstThatPasses) {
  for (int64_t flips : {0, 1, 2, 5, 30}) {
    ASSERT_OK_AND_ASSIGN(const int64_t needed, PromptsNeededToPass(flips, 0.05));
    EXPECT_LE(WilsonInterval(flips, needed)->upper, 0.05);
    EXPECT_GT(WilsonInterval(flips, needed - 1)->upper, 0.05);
  }
  EXPECT_THAT(PromptsNeededToPass(-1, 0.05), StatusIs(absl::StatusCode::kInvalidArgument));
  EXPECT_THAT(PromptsNeededToPass(0, 0.0), StatusIs(absl::StatusCode::kInvalidArgument));
}

}  // namespace
}  // namespace plumbline
