#include "services/capture/capture_stats.h"

#include "tests/support/status_matchers.h"

namespace plumbline {
namespace {

// numpy.percentile([3, 1, 4, 1, 5, 9, 2, 6], q)
TEST(PercentileTest, InterpolatesAsNumpyDoes) {
  const std::vector<float> values = {3, 1, 4, 1, 5, 9, 2, 6};
  EXPECT_DOUBLE_EQ(Percentile(values, 0), 1);
  EXPECT_DOUBLE_EQ(Percentile(values, 50), 3.5);
  EXPECT_DOUBLE_EQ(Percentile(values, 95), 7.95);
  EXPECT_DOUBLE_EQ(Percentile(values, 30), 2.1);
  EXPECT_DOUBLE_EQ(Percentile(values, 100), 9);
  EXPECT_DOUBLE_EQ(Percentile({7}, 95), 7);
}

TEST(MarkOutliersTest, TakesChannelsAtOrAboveTheThreshold) {
  v1::LayerStats stats;
  for (int c = 0; c < 40; ++c) stats.add_key_prompt_absmax_mean(c == 17 || c == 3 ? 10 : 1);
  ASSERT_OK(MarkOutliers(95, &stats));
  EXPECT_THAT(stats.outlier_channels(), ::testing::ElementsAre(3, 17));
  // Rank 37.05 of 0..39 lies between 1 and 10: 38 channels at 1, so ranks 37 and 38 are 1 and 10.
  EXPECT_FLOAT_EQ(stats.outlier_threshold(), 1.45f);
  ASSERT_OK(MarkOutliers(100, &stats));
  EXPECT_THAT(stats.outlier_channels(), ::testing::ElementsAre(3, 17));
}

TEST(MarkOutliersTest, EqualChannelsAreAllAtTheThreshold) {
  v1::LayerStats stats;
  for (int c = 0; c < 4; ++c) stats.add_key_prompt_absmax_mean(0.1f);
  ASSERT_OK(MarkOutliers(95, &stats));
  EXPECT_EQ(stats.outlier_channels_size(), 4);
}

}  // namespace
}  // namespace plumbline
