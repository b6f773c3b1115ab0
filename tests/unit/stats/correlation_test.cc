#include "services/stats/correlation.h"

#include <cmath>
#include <vector>

#include "gtest/gtest.h"
#include "tests/support/status_matchers.h"

namespace plumbline {
namespace {

using ::plumbline::testing::StatusIs;

TEST(CorrelationTest, StraightAndMonotoneLines) {
  EXPECT_DOUBLE_EQ(*PearsonCorrelation({1, 2, 3}, {10, 20, 30}), 1);
  EXPECT_DOUBLE_EQ(*PearsonCorrelation({1, 2, 3}, {30, 20, 10}), -1);
  EXPECT_DOUBLE_EQ(*SpearmanCorrelation({1, 2, 3, 4}, {1, 8, 27, 1e30}), 1);
}

TEST(CorrelationTest, TiesShareTheirMeanRank) {
  // Ranks 1 2.5 2.5 4 against 1 2 3 4: 4.5 / sqrt(4.5 * 5).
  EXPECT_NEAR(*SpearmanCorrelation({1, 2, 2, 3}, {1, 2, 3, 4}), 4.5 / std::sqrt(22.5), 1e-15);
}

TEST(CorrelationTest, HugeAndTinyValuesNeitherOverflowNorVanish) {
  EXPECT_DOUBLE_EQ(*PearsonCorrelation({1e300, 2e300, 3e300}, {1e-300, 2e-300, 3e-300}), 1);
}

TEST(CorrelationTest, UndefinedOnesAreRefused) {
  EXPECT_THAT(PearsonCorrelation({1, 1}, {1, 2}), StatusIs(absl::StatusCode::kInvalidArgument));
  EXPECT_THAT(PearsonCorrelation({1}, {2}), StatusIs(absl::StatusCode::kInvalidArgument));
  EXPECT_THAT(SpearmanCorrelation({1, 2}, {1, 2, 3}), StatusIs(absl::StatusCode::kInvalidArgument));
  EXPECT_THAT(SpearmanCorrelation({1, std::nan("")}, {1, 2}),
              StatusIs(absl::StatusCode::kInvalidArgument));
}

}  // namespace
}  // namespace plumbline
