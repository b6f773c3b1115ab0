// Layers that are captured as statistics alone.
#include <fcntl.h>

#include <algorithm>
#include <cmath>
#include <limits>

#include "services/capture/capture_stats.h"
#include "tests/unit/capture/capture_fixture.h"

namespace plumbline {
namespace {

using namespace testing;  // NOLINT: the matchers and makers of this folder
using ::testing::AllOf;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
constexpr auto kInvalid = absl::StatusCode::kInvalidArgument;
constexpr auto kOutOfRange = absl::StatusCode::kOutOfRange;

// What a worker would send of raw blocks: without what the service adds.
v1::LayerStats StatisticsOf(const v1::CaptureHeader& header, uint32_t layer, uint64_t seed = 1) {
  auto stats = ComputeLayerStats(header, layer, [&](uint32_t l, uint32_t prompt) {
    return absl::StatusOr<v1::ActivationBlock>(RandomBlock(header, l, prompt, 5 + prompt, seed));
  });
  EXPECT_OK(stats.status());
  stats->clear_key_histogram();
  stats->clear_value_histogram();
  return *stats;
}

// Layer 3 raw; 7 and 2 as statistics.
v1::CaptureHeader MixedHeader(const std::string& id = "cap-1") {
  v1::CaptureHeader header = SmallHeader(id);
  header.clear_layers();
  header.add_layers(3);
  header.add_statistics_layers(7);
  header.add_statistics_layers(2);
  return header;
}

class StatisticsTest : public CaptureFixture {
 protected:
  absl::StatusOr<v1::RecordResponse> RecordMixed() {
    const auto header = MixedHeader();
    return Record(header, RandomBlocks(header), {StatisticsOf(header, 7), StatisticsOf(header, 2)});
  }
};

TEST_F(StatisticsTest, ComeBackWithTheOutliersThatRawBlocksWouldHave) {
  ASSERT_OK(RecordMixed());
  auto raw_header = SmallHeader("raw");
  ASSERT_OK(Record(raw_header, RandomBlocks(raw_header)));
  for (const bool restarted : {false, true}) {
    if (restarted) Serve();
    ASSERT_OK_AND_ASSIGN(auto stats, Stats("cap-1", 80));
    ASSERT_OK_AND_ASSIGN(auto raw, Stats("raw", 80, {7}));
    ASSERT_EQ(stats.layers_size(), 3);
    ASSERT_EQ(raw.layers_size(), 1);
    EXPECT_EQ(stats.layers(0).layer(), 3u);
    EXPECT_EQ(stats.layers(2).layer(), 2u);
    v1::LayerStats seven = stats.layers(1), expected = raw.layers(0);
    EXPECT_EQ(seven.outlier_channels_size(), 4);
    EXPECT_THAT(seven.key_histogram(), IsEmpty());
    expected.clear_key_histogram();
    expected.clear_value_histogram();
    EXPECT_EQ(seven.SerializeAsString(), expected.SerializeAsString());
  }
}

TEST_F(StatisticsTest, AskedLayersAloneAreAnswered) {
  ASSERT_OK(RecordMixed());
  ASSERT_OK_AND_ASSIGN(auto stats, Stats("cap-1", 0, {2, 3}));
  ASSERT_EQ(stats.layers_size(), 2);
  EXPECT_EQ(stats.layers(0).layer(), 2u);
  EXPECT_EQ(stats.layers(1).layer(), 3u);
  EXPECT_THAT(Stats("cap-1", 0, {4}), StatusIs(kOutOfRange, HasSubstr("layer 4")));
}

TEST_F(StatisticsTest, RawBlocksOfThemCannotBeRead) {
  ASSERT_OK(RecordMixed());
  EXPECT_THAT(Read("cap-1", {3, 7}),
              StatusIs(kOutOfRange,
                       AllOf(HasSubstr("layer 7"), HasSubstr("GetStats"), HasSubstr("`layers`"))));
  ASSERT_OK_AND_ASSIGN(auto read, Read("cap-1"));
  ASSERT_EQ(read.size(), 4u);  // the header, and layer 3 of three prompts
  EXPECT_EQ(read[3].block().layer(), 3u);
  auto header = MixedHeader("alone");
  header.clear_layers();
  ASSERT_OK(Record(header, {}, {StatisticsOf(header, 2), StatisticsOf(header, 7)}));
  EXPECT_THAT(Read("alone"), StatusIs(kOutOfRange, HasSubstr("every layer")));
  EXPECT_EQ(Stats("alone")->layers_size(), 2);
}

TEST_F(StatisticsTest, TheSameAgainIsFineInAnyOrderAndSomethingElseIsNot) {
  const auto header = MixedHeader();
  auto blocks = RandomBlocks(header);
  const v1::LayerStats seven = StatisticsOf(header, 7), two = StatisticsOf(header, 2);
  ASSERT_OK_AND_ASSIGN(auto first, Record(header, blocks, {seven, two}));
  std::reverse(blocks.begin(), blocks.end());
  ASSERT_OK_AND_ASSIGN(auto again, Record(header, blocks, {two, seven}));
  EXPECT_EQ(first.capture_digest(), again.capture_digest());
  const auto other = [&](auto change) {
    v1::LayerStats changed = seven;
    change(&changed);
    EXPECT_THAT(Record(header, blocks, {changed, two}),
                StatusIs(absl::StatusCode::kAlreadyExists, HasSubstr(first.capture_digest())));
  };
  const double mean = seven.values().mean(3), variance = seven.keys().variance(5);
  other([&](v1::LayerStats* s) { s->mutable_values()->set_mean(3, std::nextafter(mean, 0)); });
  other(
      [&](v1::LayerStats* s) { s->mutable_keys()->set_variance(5, std::nextafter(variance, 0)); });
  const float least = seven.key_prompt_absmax_mean(4);
  other([&](v1::LayerStats* s) { s->set_key_prompt_absmax_mean(4, std::nextafter(least, 0.0f)); });
  other([&](v1::LayerStats* s) {
    // Two values of the head move from one filled bin to another below the largest.
    auto* counts = s->mutable_value_head_histogram();
    int from = 0;
    while (counts->Get(from) == 0) ++from;
    counts->Set(from, counts->Get(from) - 1);
    counts->Set(from + 1, counts->Get(from + 1) + 1);
  });
  EXPECT_THAT(Files(), ElementsAre("cap-1.capture"));
}

TEST_F(StatisticsTest, BadHeadersAreNamed) {
  const auto refused = [&](auto change, const char* names) {
    v1::CaptureHeader header = MixedHeader();
    change(&header);
    EXPECT_THAT(Record(header, {}), StatusIs(kInvalid, HasSubstr(names)));
  };
  using Header = v1::CaptureHeader;
  refused([](Header* h) { h->add_statistics_layers(3); }, "got 3 twice");
  refused([](Header* h) { h->add_statistics_layers(7); }, "got 7 twice");
  refused([](Header* h) { h->add_statistics_layers(20000); }, "got 20000");
  refused([](Header* h) { h->clear_layers(), h->clear_statistics_layers(); }, "name a layer");
}

TEST_F(StatisticsTest, BadStatisticsAreNamedByTheirPlace) {
  const auto refused = [&](auto change, const char* names) {
    const v1::CaptureHeader header = MixedHeader();
    std::vector<v1::LayerStats> statistics = {StatisticsOf(header, 7), StatisticsOf(header, 2)};
    change(&statistics);
    EXPECT_THAT(Record(header, RandomBlocks(header), statistics),
                StatusIs(kInvalid, HasSubstr(names)));
  };
  using All = std::vector<v1::LayerStats>;
  const double nan = std::nan(""), infinity = std::numeric_limits<double>::infinity();
  const auto keys = [](All* s) { return (*s)[0].mutable_keys(); };
  const auto values = [](All* s) { return (*s)[1].mutable_values(); };
  refused([&](All* s) { keys(s)->set_mean(9, nan); },
          "statistics of layer 7: keys[head 1, channel 1]: a statistic is nan");
  refused([&](All* s) { values(s)->set_variance(0, infinity); },
          "statistics of layer 2: values[head 0, channel 0]: a statistic is inf");
  refused([&](All* s) { keys(s)->set_min(0, static_cast<float>(-infinity)); }, "is -inf");
  refused([&](All* s) { keys(s)->set_variance(4, -1e-9); }, "variance -1e-09 cannot be");
  refused([&](All* s) { keys(s)->set_variance(4, keys(s)->variance(4) * 50); },
          "cannot be that of");
  refused([&](All* s) { keys(s)->set_variance(4, 1e-9); }, "cannot be that of 18 values");
  refused([&](All* s) { keys(s)->set_mean(4, 40); }, "mean 40 is not between");
  refused([&](All* s) { keys(s)->set_absmax(4, 0.01f); }, "absmax 0.01 is not that of");
  refused([&](All* s) { keys(s)->set_min(4, 9); }, "min 9 is above max");
  refused([&](All* s) { keys(s)->mutable_max()->RemoveLast(); }, "keys.max must have 16 numbers");
  refused([&](All* s) { values(s)->clear_mean(); }, "values.mean must have 16 numbers, got 0");
  refused([](All* s) { (*s)[0].mutable_key_head_histogram()->RemoveLast(); },
          "keys head histogram must have 262 numbers, got 261");
  refused([](All* s) { (*s)[0].set_value_head_histogram(70, 1000); },
          "values histogram of head 0 counts");
  refused([](All* s) { (*s)[0].set_value_head_histogram(200, ~uint64_t{0} - 3); },
          "18 tokens of 8 channels have 144");
  refused([](All* s) { (*s)[0].set_tokens(17); }, "statistics of layer 7");
  refused([](All* s) { (*s)[0].set_tokens(2); }, "tokens must be 3..");
  refused([](All* s) { (*s)[0].set_key_prompt_absmax_mean(2, 99); },
          "key_prompt_absmax_mean[2] = 99 cannot be a mean over 3 prompts");
  refused([](All* s) { (*s)[0].set_key_prompt_absmax_mean(2, 0.01f); }, "cannot be a mean");
  refused([](All* s) { (*s)[0].clear_key_prompt_absmax_mean(); }, "must have 16 numbers, got 0");
  refused([](All* s) { (*s)[0].add_outlier_channels(1); }, "leave fields 6 to 9 empty");
  refused([](All* s) { (*s)[0].add_key_histogram(1); }, "leave fields 6 to 9 empty");
  refused([](All* s) { (*s)[0].set_layer(3); }, "layer 3: header.statistics_layers does not");
  refused([](All* s) { (*s)[0].set_layer(5); }, "layer 5: header.statistics_layers does not");
  refused([](All* s) { (*s)[1] = (*s)[0]; }, "statistics of layer 7 came twice");
  refused([](All* s) { s->pop_back(); }, "statistics of layer 2 (1 of 2 came)");
  EXPECT_THAT(Files(), IsEmpty());
}

// The heads' values in each other's places: every channel is possible by itself.
TEST_F(StatisticsTest, HeadsInAnotherOrderThanTheirHistogramsAreNamed) {
  const auto header = MixedHeader();
  auto scaled = ComputeLayerStats(header, 7, [&](uint32_t layer, uint32_t prompt) {
    v1::ActivationBlock block = RandomBlock(header, layer, prompt, 5 + prompt, 1);
    std::vector<float> keys = FloatsOf(block.keys());
    for (size_t i = 0; i < keys.size(); ++i) keys[i] *= i % 16 < 8 ? 10 : 1;
    block.set_keys(Bytes(keys));
    return absl::StatusOr<v1::ActivationBlock>(block);
  });
  ASSERT_OK(scaled.status());
  v1::LayerStats seven = *scaled;
  seven.clear_key_histogram();
  seven.clear_value_histogram();
  for (int i = 0; i < 8; ++i) {
    v1::ChannelStats* keys = seven.mutable_keys();
    keys->mutable_absmax()->SwapElements(i, 8 + i);
    keys->mutable_min()->SwapElements(i, 8 + i);
    keys->mutable_max()->SwapElements(i, 8 + i);
    keys->mutable_mean()->SwapElements(i, 8 + i);
    keys->mutable_variance()->SwapElements(i, 8 + i);
    seven.mutable_key_prompt_absmax_mean()->SwapElements(i, 8 + i);
  }
  EXPECT_THAT(Record(header, RandomBlocks(header), {seven, StatisticsOf(header, 2)}),
              StatusIs(kInvalid, HasSubstr("in another order?")));
}

TEST_F(StatisticsTest, AllLayersHaveTheTokensOfTheSamePrompts) {
  const auto header = MixedHeader();
  std::vector<v1::ActivationBlock> blocks = RandomBlocks(header);
  blocks[1] = RandomBlock(header, 3, 1, 9, 1);
  EXPECT_THAT(Record(header, blocks, {StatisticsOf(header, 7), StatisticsOf(header, 2)}),
              StatusIs(kInvalid, HasSubstr("are of 18 tokens, the same prompts have 21")));
  auto longer = ComputeLayerStats(header, 2, [&](uint32_t layer, uint32_t prompt) {
    return absl::StatusOr<v1::ActivationBlock>(RandomBlock(header, layer, prompt, 7, 1));
  });
  ASSERT_OK(longer.status());
  longer->clear_key_histogram();
  longer->clear_value_histogram();
  auto alone = MixedHeader();
  alone.clear_layers();
  EXPECT_THAT(Record(alone, {}, {StatisticsOf(alone, 7), *longer}),
              StatusIs(kInvalid, HasSubstr("tokens, the same prompts have")));
}

TEST_F(StatisticsTest, BytesChangedOnDiskAreDataLoss) {
  const auto header = MixedHeader();
  ASSERT_OK(RecordMixed());
  ASSERT_OK_AND_ASSIGN(auto list, client_->Call(&Stub::ListCaptures, v1::ListCapturesRequest()));
  const std::string path = folder_ + "/cap-1.capture";
  // The statistics stand behind the three blocks of layer 3.
  const off_t blocks_end = 12 + (5 + 6 + 7) * (16 + 16 + 32) * 4;
  const int fd = open(path.c_str(), O_RDWR);
  ASSERT_GE(fd, 0);
  char byte = 0;
  ASSERT_EQ(pread(fd, &byte, 1, blocks_end + 40), 1);
  byte = static_cast<char>(byte ^ 1);
  ASSERT_EQ(pwrite(fd, &byte, 1, blocks_end + 40), 1);
  close(fd);
  EXPECT_THAT(Stats("cap-1", 0, {7}),
              StatusIs(absl::StatusCode::kDataLoss, HasSubstr("statistics of layer 7")));
  EXPECT_OK(Stats("cap-1", 0, {2, 3}));
}

}  // namespace
}  // namespace plumbline
