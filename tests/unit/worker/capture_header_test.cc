#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "services/worker/capture_sender.h"
#include "tests/support/status_matchers.h"

namespace plumbline {
namespace {

using ::plumbline::testing::StatusIs;
using ::testing::DoubleNear;
using ::testing::ElementsAre;

absl::StatusOr<v1::CaptureHeader> HeaderOf(const RopeScaling& scaling) {
  auto text = std::make_shared<TextModel>();
  text->config.head_dim = 4;
  text->config.rope_theta = 10000;
  text->config.rope_scaling = scaling;
  CatalogEntry entry;
  entry.text = text;
  entry.info.set_head_dim(4);
  entry.info.set_num_heads(6);
  entry.info.set_num_kv_heads(2);
  v1::CaptureTask task;
  task.set_capture_id("cap");
  task.add_layers(7);
  task.add_statistics_layers(2);
  task.add_statistics_layers(5);
  task.add_prompts();
  return CaptureHeaderOf(task, entry);
}

TEST(CaptureHeaderTest, CarriesTheShapeAndTheRotation) {
  ASSERT_OK_AND_ASSIGN(const v1::CaptureHeader header, HeaderOf({}));
  EXPECT_EQ(header.num_heads(), 6u);
  EXPECT_EQ(header.num_kv_heads(), 2u);
  EXPECT_EQ(header.prompts(), 1u);
  EXPECT_THAT(header.layers(), ElementsAre(7u));
  EXPECT_THAT(header.statistics_layers(), ElementsAre(2u, 5u));
  // theta^(-2i / head_dim)
  EXPECT_THAT(header.rope_inverse_frequency(), ElementsAre(1, DoubleNear(0.01, 1e-9)));
}

TEST(CaptureHeaderTest, TheRotationIsScaledAsLlama3Does) {
  // 0.01 radians a token come round after 628 tokens, beyond the original context: stretched by 8.
  // 1 radian comes round after 6.3 and stays.
  ASSERT_OK_AND_ASSIGN(const v1::CaptureHeader header, HeaderOf({.type = "llama3",
                                                                 .factor = 8,
                                                                 .low_freq_factor = 1,
                                                                 .high_freq_factor = 4,
                                                                 .original_max_position = 64}));
  EXPECT_THAT(header.rope_inverse_frequency(), ElementsAre(1, DoubleNear(0.01 / 8, 1e-10)));
}

TEST(CaptureHeaderTest, AnUnknownScalingIsRefused) {
  EXPECT_THAT(HeaderOf({.type = "yarn"}), StatusIs(absl::StatusCode::kInvalidArgument));
}

}  // namespace
}  // namespace plumbline
