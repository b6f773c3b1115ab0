#include "services/stats/agreement.h"

#include "gtest/gtest.h"
#include "tests/support/status_matchers.h"

namespace plumbline {
namespace {

using ::plumbline::testing::StatusIs;

TEST(KappaTest, TwoByTwoByHand) {
  // p_o = .7, margins .5/.5 and .6/.4: p_e = .5, kappa = .4.
  ASSERT_OK_AND_ASSIGN(const Kappa kappa, CohensKappa({{20, 5}, {10, 15}}));
  EXPECT_NEAR(kappa.kappa, 0.4, 1e-15);
  EXPECT_DOUBLE_EQ(kappa.observed_agreement, 0.7);
  EXPECT_DOUBLE_EQ(kappa.expected_agreement, 0.5);
  EXPECT_EQ(kappa.items, 50);
  EXPECT_LT(kappa.interval.lower, 0.4);
  EXPECT_GT(kappa.interval.upper, 0.4);
}

TEST(KappaTest, PerfectAgreementIsOneWithoutError) {
  ASSERT_OK_AND_ASSIGN(const Kappa kappa, CohensKappa({{7, 0}, {0, 9}}));
  EXPECT_DOUBLE_EQ(kappa.kappa, 1);
  EXPECT_NEAR(kappa.standard_error, 0, 1e-8);
}

TEST(KappaTest, OneCategoryOnlyIsUndefined) {
  EXPECT_THAT(CohensKappa({{30, 0}, {0, 0}}), StatusIs(absl::StatusCode::kFailedPrecondition));
}

TEST(KappaTest, MalformedTablesAreRefused) {
  EXPECT_THAT(CohensKappa({{1}}), StatusIs(absl::StatusCode::kInvalidArgument));
  EXPECT_THAT(CohensKappa({{1, 2}, {3}}), StatusIs(absl::StatusCode::kInvalidArgument));
  EXPECT_THAT(CohensKappa({{1, -2}, {3, 4}}), StatusIs(absl::StatusCode::kInvalidArgument));
  EXPECT_THAT(CohensKappa({{0, 0}, {0, 0}}), StatusIs(absl::StatusCode::kInvalidArgument));
}

}  // namespace
}  // namespace plumbline
