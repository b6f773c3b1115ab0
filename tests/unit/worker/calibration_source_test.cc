#include "services/worker/calibration_source.h"

#include "services/capture/capture_stats.h"
#include "tests/unit/capture/capture_fixture.h"

namespace plumbline {
namespace {

using namespace testing;  // NOLINT: the capture tests' makers
using ::testing::ElementsAreArray;
using ::testing::HasSubstr;

using CalibrationSourceTest = CaptureFixture;

// A calibrated format needs a layer's ranges alone: raw blocks and statistics serve it alike.
TEST_F(CalibrationSourceTest, TakesLayersThatWereCapturedAsStatistics) {
  const v1::CaptureHeader raw_header = SmallHeader("raw");
  const auto blocks = RandomBlocks(raw_header);
  ASSERT_OK_AND_ASSIGN(auto raw, Record(raw_header, blocks));
  v1::CaptureHeader header = SmallHeader("measured");
  header.clear_layers();
  header.add_layers(3);
  header.add_statistics_layers(7);
  ASSERT_OK_AND_ASSIGN(auto stats, Stats("raw", 0, {7}));
  v1::LayerStats seven = stats.layers(0);
  for (auto* added : {seven.mutable_key_histogram(), seven.mutable_value_histogram()}) {
    added->Clear();
  }
  seven.clear_outlier_channels();
  seven.clear_outlier_threshold();
  ASSERT_OK_AND_ASSIGN(auto measured,
                       Record(header, {blocks.begin(), blocks.begin() + 3}, {seven}));
  CaptureCalibrationSource source(client_.get());
  ASSERT_OK_AND_ASSIGN(auto expected, source.Get(raw.capture_digest(), 7));
  ASSERT_OK_AND_ASSIGN(auto got, source.Get(measured.capture_digest(), 7));
  for (auto [a, b] : {std::pair(&got->key, &expected->key), {&got->value, &expected->value}}) {
    EXPECT_EQ(a->channel_absmax.size(), 16u);
    EXPECT_THAT(a->channel_absmax, ElementsAreArray(b->channel_absmax));
    EXPECT_THAT(a->channel_min, ElementsAreArray(b->channel_min));
    EXPECT_THAT(a->channel_max, ElementsAreArray(b->channel_max));
  }
  EXPECT_NE(got->key.channel_max, got->value.channel_max);
  EXPECT_THAT(source.Get(measured.capture_digest(), 5),
              StatusIs(absl::StatusCode::kNotFound, HasSubstr("layer 5")));
}

}  // namespace
}  // namespace plumbline
