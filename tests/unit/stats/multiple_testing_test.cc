#include "services/stats/multiple_testing.h"

#include "gtest/gtest.h"
#include "tests/support/status_matchers.h"

namespace plumbline {
namespace {

using ::plumbline::testing::StatusIs;
using ::testing::DoubleEq;
using ::testing::ElementsAre;
using ::testing::IsEmpty;

TEST(HolmTest, StepsDownFromTheSmallest) {
  // 3 * .01, then 2 * .03, then max(1 * .04, .06).
  EXPECT_THAT(*HolmAdjust({0.01, 0.04, 0.03}),
              ElementsAre(DoubleEq(0.03), DoubleEq(0.06), DoubleEq(0.06)));
}

TEST(HolmTest, IsCappedAtOneAndKeepsTheInputOrder) {
  EXPECT_THAT(*HolmAdjust({0.9, 0.8, 0.7}), ElementsAre(1, 1, 1));
  EXPECT_THAT(*HolmAdjust({}), IsEmpty());
}

TEST(HolmTest, ValuesOutsideZeroToOneAreRefused) {
  EXPECT_THAT(HolmAdjust({0.5, 1.5}),
              StatusIs(absl::StatusCode::kInvalidArgument, ::testing::HasSubstr("p-value 1")));
}

}  // namespace
}  // namespace plumbline
