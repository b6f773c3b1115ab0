// A layer's statistics as a worker sends them against those that the capture service computes from
// raw blocks of the same prompts.
#include "services/worker/layer_stats_sum.h"

#include <cmath>
#include <cstring>
#include <map>

#include "services/capture/activation_block.h"
#include "services/capture/capture_stats.h"
#include "services/capture/layer_statistics.h"
#include "tests/unit/engine/engine_fixture.h"

namespace plumbline {
namespace {

using namespace testing;  // NOLINT: engine_fixture.h's makers
using ::testing::ElementsAreArray;
using ::testing::HasSubstr;

constexpr int kPrompts = 7;
constexpr uint32_t kLayers[] = {0, 3};

std::string FloatBytes(const std::vector<float>& values) {
  return {reinterpret_cast<const char*>(values.data()), values.size() * sizeof(float)};
}

// The same prompts once captured and once measured.
class LayerStatsSumTest : public ::testing::TestWithParam<ComputeDtype> {
 protected:
  void SetUp() override {
    EngineOptions options;
    options.dtype = GetParam();
    TinyBundle bundle;
    auto engine = OpenEngine(bundle, options);
    ASSERT_NE(engine, nullptr);
    const ModelShape& shape = engine->shape();
    header_.set_capture_id("cap");
    header_.set_num_heads(shape.num_heads);
    header_.set_num_kv_heads(shape.num_kv_heads);
    header_.set_head_dim(shape.head_dim);
    header_.set_prompts(kPrompts);
    for (const uint32_t layer : kLayers) header_.add_layers(layer);
    std::map<uint32_t, LayerStatsSum> sums;
    const auto captured = Run(engine.get(), &SequenceRequest::capture_layers);
    const auto measured = Run(engine.get(), &SequenceRequest::measure_layers);
    for (const auto& [prompt, result] : captured) {
      for (const CapturedLayer& layer : result.captured) KeepBlock(prompt, layer);
    }
    for (const auto& [prompt, result] : measured) {
      for (const MeasuredLayer& layer : result.measured) sums[layer.layer.value()].Add(layer);
    }
    for (const auto& [layer, sum] : sums) streamed_[layer] = sum.Stats();
  }

  static std::map<uint64_t, SequenceResult> Run(Engine* engine,
                                                std::vector<LayerIndex> SequenceRequest::*layers) {
    std::vector<SequenceRequest> requests;
    for (int p = 0; p < kPrompts; ++p) {
      requests.push_back(Request(*engine, p, Prompt(3 + 29 * p % 80, p + 1), "*:fp", 1));
      for (const uint32_t layer : kLayers) {
        (requests.back().*layers).push_back(LayerIndex(static_cast<int>(layer)));
      }
    }
    return RunAll(engine, std::move(requests));
  }

  void KeepBlock(uint64_t prompt, const CapturedLayer& layer) {
    v1::ActivationBlock block;
    block.set_layer(static_cast<uint32_t>(layer.layer.value()));
    block.set_prompt_index(static_cast<uint32_t>(prompt));
    block.set_tokens(static_cast<uint32_t>(layer.tokens));
    block.set_keys(FloatBytes(layer.keys));
    block.set_values(FloatBytes(layer.values));
    blocks_[{block.layer(), block.prompt_index()}] = block;
  }

  v1::LayerStats FromRaw(uint32_t layer) {
    auto stats = ComputeLayerStats(header_, layer, [this](uint32_t l, uint32_t prompt) {
      return absl::StatusOr<v1::ActivationBlock>(blocks_.at({l, prompt}));
    });
    EXPECT_OK(stats.status());
    return *stats;
  }

  v1::CaptureHeader header_;
  std::map<std::pair<uint32_t, uint32_t>, v1::ActivationBlock> blocks_;
  std::map<uint32_t, v1::LayerStats> streamed_;
};
INSTANTIATE_TEST_SUITE_P(Dtypes, LayerStatsSumTest,
                         ::testing::Values(ComputeDtype::kF32, ComputeDtype::kBf16));

// Both sides sum in double: Welford's chain over n values errs by some n units of rounding of the
// largest magnitude, segments and merges by less (channel_stats_test.cc).
void ExpectSameChannels(const v1::ChannelStats& a, const v1::ChannelStats& b, double tokens) {
  EXPECT_THAT(a.absmax(), ElementsAreArray(b.absmax()));
  EXPECT_THAT(a.min(), ElementsAreArray(b.min()));
  EXPECT_THAT(a.max(), ElementsAreArray(b.max()));
  ASSERT_EQ(a.mean_size(), b.mean_size());
  ASSERT_EQ(a.variance_size(), b.variance_size());
  for (int c = 0; c < a.mean_size(); ++c) {
    const double unit = 0x1p-53 * a.absmax(c);
    EXPECT_NEAR(a.mean(c), b.mean(c), (2 * tokens + 200) * unit);
    EXPECT_NEAR(a.variance(c), b.variance(c), 4 * (2 * tokens + 400) * unit * a.absmax(c));
  }
}

TEST_P(LayerStatsSumTest, EqualsTheStatisticsOfRawBlocks) {
  for (const uint32_t layer : kLayers) {
    v1::LayerStats raw = FromRaw(layer), streamed = streamed_.at(layer);
    EXPECT_EQ(streamed.tokens(), raw.tokens());
    ExpectSameChannels(streamed.keys(), raw.keys(), static_cast<double>(raw.tokens()));
    ExpectSameChannels(streamed.values(), raw.values(), static_cast<double>(raw.tokens()));
    EXPECT_THAT(streamed.key_head_histogram(), ElementsAreArray(raw.key_head_histogram()));
    EXPECT_THAT(streamed.value_head_histogram(), ElementsAreArray(raw.value_head_histogram()));
    EXPECT_THAT(streamed.key_prompt_absmax_mean(), ElementsAreArray(raw.key_prompt_absmax_mean()));
    for (const double percentile : {50.0, 95.0}) {
      ASSERT_OK(MarkOutliers(percentile, &raw));
      ASSERT_OK(MarkOutliers(percentile, &streamed));
      EXPECT_GT(raw.outlier_channels_size(), 0);
      EXPECT_THAT(streamed.outlier_channels(), ElementsAreArray(raw.outlier_channels()));
      EXPECT_EQ(streamed.outlier_threshold(), raw.outlier_threshold());
    }
  }
}

// Teeth of the comparison above: one key of one prompt, moved by a thousandth.
TEST_P(LayerStatsSumTest, AChangedRawValueShows) {
  std::string* keys = blocks_.at({3, 2}).mutable_keys();
  float value;
  std::memcpy(&value, keys->data() + 20, sizeof value);
  value *= 1.001f;
  std::memcpy(keys->data() + 20, &value, sizeof value);
  const v1::LayerStats raw = FromRaw(3), &streamed = streamed_.at(3);
  const double unit = 0x1p-53 * streamed.keys().absmax(5);
  const double tokens = static_cast<double>(raw.tokens());
  EXPECT_GT(std::fabs(raw.keys().mean(5) - streamed.keys().mean(5)), (2 * tokens + 200) * unit);
}

TEST_P(LayerStatsSumTest, PassesTheChecksOfTheCaptureService) {
  header_.clear_layers();
  for (const uint32_t layer : kLayers) header_.add_statistics_layers(layer);
  StatisticsChecker checker(header_);
  for (const auto& [layer, stats] : streamed_) EXPECT_OK(checker.Check(stats));
  EXPECT_OK(checker.CheckComplete(FromRaw(0).tokens()));
  EXPECT_THAT(checker.CheckComplete(FromRaw(0).tokens() + 1),
              StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr("tokens")));
}

}  // namespace
}  // namespace plumbline
