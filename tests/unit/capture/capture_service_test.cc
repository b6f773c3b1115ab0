#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <thread>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "tests/unit/capture/capture_fixture.h"

namespace plumbline {
namespace {

using namespace testing;  // NOLINT: the matchers and makers of this folder
using ::testing::AllOf;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
constexpr auto kInvalid = absl::StatusCode::kInvalidArgument;

using CaptureServiceTest = CaptureFixture;

TEST_F(CaptureServiceTest, RecordedBytesComeBackInOrderWithTheirDigest) {
  const auto header = SmallHeader();
  const auto blocks = RandomBlocks(header);
  ASSERT_OK_AND_ASSIGN(auto recorded, Record(header, blocks));
  EXPECT_EQ(recorded.capture_digest().size(), 64u);
  ASSERT_OK_AND_ASSIGN(auto read, Read("cap-1"));
  ASSERT_EQ(read.size(), 7u);
  EXPECT_EQ(read[0].header().SerializeAsString(), header.SerializeAsString());
  EXPECT_EQ(read[0].capture_digest(), recorded.capture_digest());
  for (size_t i = 0; i < blocks.size(); ++i) {
    EXPECT_EQ(read[i + 1].block().SerializeAsString(), blocks[i].SerializeAsString());
  }
  ASSERT_OK_AND_ASSIGN(auto one_layer, Read(recorded.capture_digest(), {7}));
  ASSERT_EQ(one_layer.size(), 4u);
  EXPECT_EQ(one_layer[1].block().SerializeAsString(), blocks[3].SerializeAsString());
}

TEST_F(CaptureServiceTest, StatisticsEqualADirectComputation) {
  const auto header = SmallHeader();
  const auto blocks = RandomBlocks(header);
  ASSERT_OK(Record(header, blocks));
  ASSERT_OK_AND_ASSIGN(auto stats, Stats("cap-1"));
  ASSERT_EQ(stats.layers_size(), 2);
  // Layer 7, channel 11, the slow way.
  std::vector<double> column;
  double prompt_mean = 0;
  for (size_t i = 3; i < 6; ++i) {
    const auto keys = FloatsOf(blocks[i].keys());
    double most = 0;
    for (size_t at = 11; at < keys.size(); at += 16) {
      column.push_back(keys[at]);
      most = std::max(most, std::fabs(static_cast<double>(keys[at])));
    }
    prompt_mean += most / 3;
  }
  double mean = 0, variance = 0;
  for (double value : column) mean += value / column.size();
  for (double value : column) variance += (value - mean) * (value - mean) / column.size();
  const v1::LayerStats& layer = stats.layers(1);
  EXPECT_EQ(layer.layer(), 7u);
  EXPECT_EQ(layer.tokens(), 5u + 6 + 7);
  EXPECT_EQ(column.size(), layer.tokens());
  EXPECT_NEAR(layer.keys().mean(11), mean, 1e-12);
  EXPECT_NEAR(layer.keys().variance(11), variance, 1e-12);
  EXPECT_EQ(layer.keys().min(11), *std::min_element(column.begin(), column.end()));
  EXPECT_EQ(layer.keys().max(11), *std::max_element(column.begin(), column.end()));
  EXPECT_EQ(layer.keys().absmax(11),
            std::max(std::fabs(layer.keys().min(11)), std::fabs(layer.keys().max(11))));
  EXPECT_NEAR(layer.key_prompt_absmax_mean(11), prompt_mean, 1e-6);
  uint64_t counted = 0;
  for (uint64_t bin : layer.key_histogram()) counted += bin;
  EXPECT_EQ(layer.key_histogram_size(), 64);
  EXPECT_EQ(counted, 18u * 16);
  EXPECT_GE(layer.key_histogram(63), 1u);  // the maximum itself
}

TEST_F(CaptureServiceTest, OrderOfArrivalChangesNothing) {
  const auto header = SmallHeader("first");
  auto blocks = RandomBlocks(header);
  ASSERT_OK_AND_ASSIGN(auto first, Record(header, blocks));
  ASSERT_OK_AND_ASSIGN(auto first_stats, Stats("first"));
  v1::DeleteCaptureRequest remove;
  remove.set_capture_id("first");
  ASSERT_OK(client_->Call(&Stub::DeleteCapture, remove));
  std::reverse(blocks.begin(), blocks.end());
  std::swap(blocks[1], blocks[4]);
  Serve();  // no cached statistics
  ASSERT_OK_AND_ASSIGN(auto second, Record(header, blocks));
  ASSERT_OK_AND_ASSIGN(auto second_stats, Stats("first"));
  EXPECT_EQ(first.capture_digest(), second.capture_digest());
  EXPECT_EQ(first_stats.SerializeAsString(), second_stats.SerializeAsString());
}

TEST_F(CaptureServiceTest, OneChangedValueChangesTheOutliersAndTheDigest) {
  const auto header = SmallHeader("clean");
  auto blocks = RandomBlocks(header);
  ASSERT_OK_AND_ASSIGN(auto clean, Record(header, blocks));
  auto changed_header = SmallHeader("changed");
  Poke(blocks[0].mutable_keys(), 2 * 16 + 5, 1000.0f);  // token 2, flat channel 5 of layer 3
  ASSERT_OK_AND_ASSIGN(auto changed, Record(changed_header, blocks));
  EXPECT_NE(clean.capture_digest(), changed.capture_digest());
  ASSERT_OK_AND_ASSIGN(auto before, Stats("clean"));
  ASSERT_OK_AND_ASSIGN(auto after, Stats("changed"));
  EXPECT_THAT(after.layers(0).outlier_channels(), ElementsAre(5));
  EXPECT_EQ(before.layers(0).outlier_channels_size(), 1);  // 16 channels, 95%: the largest alone
  EXPECT_NE(before.layers(0).outlier_channels(0), 5u);
  EXPECT_THAT(after.layers(1).outlier_channels(),
              ::testing::ElementsAreArray(before.layers(1).outlier_channels()));
}

TEST_F(CaptureServiceTest, PercentileDecidesHowManyChannelsAreOutliers) {
  const auto header = SmallHeader();
  ASSERT_OK(Record(header, RandomBlocks(header)));
  EXPECT_EQ(Stats("cap-1", 100)->layers(0).outlier_channels_size(), 1);
  EXPECT_EQ(Stats("cap-1", 50)->layers(0).outlier_channels_size(), 8);
  for (double bad : {-1.0, 101.0, std::nan("")}) {
    EXPECT_THAT(Stats("cap-1", bad), StatusIs(kInvalid, HasSubstr("outlier_percentile")));
  }
}

TEST_F(CaptureServiceTest, TheSameAgainIsFineAndSomethingElseIsNot) {
  const auto header = SmallHeader();
  auto blocks = RandomBlocks(header);
  ASSERT_OK_AND_ASSIGN(auto first, Record(header, blocks));
  ASSERT_OK_AND_ASSIGN(auto again, Record(header, blocks));
  EXPECT_EQ(first.capture_digest(), again.capture_digest());
  Poke(blocks[0].mutable_values(), 0, 9.0f);
  EXPECT_THAT(Record(header, blocks),
              StatusIs(absl::StatusCode::kAlreadyExists, HasSubstr(first.capture_digest())));
  EXPECT_THAT(Files(), ElementsAre("cap-1.capture"));
  EXPECT_EQ(Read("cap-1")->size(), 7u);
}

TEST_F(CaptureServiceTest, ABrokenStreamLeavesNothing) {
  const auto header = SmallHeader();
  const auto blocks = RandomBlocks(header);
  {
    grpc::ClientContext context;
    client_->Prepare(&context);
    v1::RecordResponse response;
    auto writer = client_->stub().Record(&context, &response);
    v1::RecordRequest request;
    *request.mutable_header() = header;
    ASSERT_TRUE(writer->Write(request));
    // All blocks but the last, so that even an unnoticed break could not be taken for the end.
    for (size_t i = 0; i + 1 < blocks.size(); ++i) {
      *request.mutable_block() = blocks[i];
      ASSERT_TRUE(writer->Write(request));
    }
    // The server has begun once its unfinished file is there.
    while (Files().empty()) std::this_thread::yield();
    context.TryCancel();
    EXPECT_EQ(writer->Finish().error_code(), grpc::CANCELLED);
  }
  // A drained server has ended every call.
  server_->Drain();
  EXPECT_THAT(Files(), IsEmpty());
  EXPECT_THAT(metrics_->Page(), HasSubstr("plumb_captures_recorded_total{outcome=\"broken\"} 1"));
}

TEST_F(CaptureServiceTest, AnUnfinishedFileOfAKilledProcessIsRemovedAtTheNextStart) {
  const auto header = SmallHeader();
  ASSERT_OK(Record(header, RandomBlocks(header)));
  ASSERT_OK(WriteFileAtomically(folder_ + "/other.unfinished.1.2", "half"));
  Serve();
  EXPECT_THAT(Files(), ElementsAre("cap-1.capture"));
  ASSERT_OK_AND_ASSIGN(auto list, client_->Call(&Stub::ListCaptures, v1::ListCapturesRequest()));
  ASSERT_EQ(list.captures_size(), 1);
  EXPECT_EQ(list.captures(0).header().capture_id(), "cap-1");
  EXPECT_EQ(Read("cap-1")->size(), 7u);
  struct stat info = {};
  ASSERT_EQ(stat((folder_ + "/cap-1.capture").c_str(), &info), 0);
  EXPECT_EQ(info.st_mode & 0777, 0600u);
  EXPECT_EQ(list.captures(0).bytes(), static_cast<uint64_t>(info.st_size));
}

TEST_F(CaptureServiceTest, BytesChangedOnDiskAreDataLoss) {
  const auto header = SmallHeader();
  ASSERT_OK(Record(header, RandomBlocks(header)));
  const std::string path = folder_ + "/cap-1.capture";
  const int fd = open(path.c_str(), O_RDWR);
  ASSERT_GE(fd, 0);
  char byte = 0;
  ASSERT_EQ(pread(fd, &byte, 1, 100), 1);  // within layer 3, prompt 0
  byte = static_cast<char>(byte ^ 1);
  ASSERT_EQ(pwrite(fd, &byte, 1, 100), 1);
  EXPECT_THAT(Read("cap-1"), StatusIs(absl::StatusCode::kDataLoss,
                                      AllOf(HasSubstr("layer 3"), HasSubstr("prompt 0"))));
  EXPECT_THAT(Stats("cap-1"), StatusIs(absl::StatusCode::kDataLoss));
  EXPECT_OK(Read("cap-1", {7}));  // the other layer is whole
  // A cut file is no capture any more.
  ASSERT_EQ(ftruncate(fd, 2000), 0);
  close(fd);
  Serve();
  EXPECT_THAT(Read("cap-1"), StatusIs(absl::StatusCode::kNotFound));
}

TEST_F(CaptureServiceTest, TooLargeIsRefusedAndLeavesNothing) {
  Serve(/*max_mib=*/1);
  auto header = SmallHeader();
  header.clear_layers();
  header.add_layers(0);
  header.set_prompts(2);
  std::vector<v1::ActivationBlock> blocks = {RandomBlock(header, 0, 0, 3000, 1),
                                             RandomBlock(header, 0, 1, 3000, 1)};
  EXPECT_THAT(Record(header, blocks),
              StatusIs(absl::StatusCode::kResourceExhausted, HasSubstr("max_capture_mib = 1")));
  EXPECT_THAT(Files(), IsEmpty());
}

TEST_F(CaptureServiceTest, BadHeadersAreNamed) {
  const auto refused = [&](auto change, const char* names) {
    v1::CaptureHeader header = SmallHeader();
    change(&header);
    EXPECT_THAT(Record(header, {}), StatusIs(kInvalid, HasSubstr(names)));
  };
  using Header = v1::CaptureHeader;
  refused([](Header* h) { h->set_capture_id(""); }, "capture_id");
  refused([](Header* h) { h->set_capture_id("../etc/passwd"); }, "'../etc/passwd'");
  refused([](Header* h) { h->set_capture_id(std::string(65, 'a')); }, "1..64");
  refused([](Header* h) { h->set_num_kv_heads(0); }, "num_kv_heads");
  refused([](Header* h) { h->set_num_heads(5); }, "5 and 2");
  refused([](Header* h) { h->set_head_dim(1 << 20); }, "1048576");
  refused([](Header* h) { h->set_prompts(0); }, "prompts");
  refused([](Header* h) { h->clear_layers(); }, "layers is empty");
  refused([](Header* h) { h->add_layers(3); }, "3 twice");
  refused([](Header* h) { h->add_rope_inverse_frequency(1); }, "head_dim/2 = 4");
  EXPECT_THAT(Files(), IsEmpty());
}

TEST_F(CaptureServiceTest, BadBlocksAreNamedByTheirPlace) {
  const auto refused = [&](auto change, const char* names) {
    const v1::CaptureHeader header = SmallHeader();
    std::vector<v1::ActivationBlock> blocks = RandomBlocks(header);
    change(&blocks);
    EXPECT_THAT(Record(header, blocks), StatusIs(kInvalid, HasSubstr(names)));
  };
  using Blocks = std::vector<v1::ActivationBlock>;
  const float nan = std::numeric_limits<float>::quiet_NaN();
  const float infinity = std::numeric_limits<float>::infinity();
  refused([&](Blocks* b) { Poke((*b)[4].mutable_keys(), 3 * 16 + 9, nan); },
          "keys[token 3, head 1, channel 1] of layer 7, prompt 1 is nan");
  refused([&](Blocks* b) { Poke((*b)[0].mutable_values(), 0, -infinity); },
          "values[token 0, head 0, channel 0] of layer 3, prompt 0 is -inf");
  refused([&](Blocks* b) { Poke((*b)[0].mutable_queries(), 31, infinity); },
          "queries[token 0, head 3, channel 7]");
  refused([](Blocks* b) { (*b)[2].set_layer(4); }, "does not name layer 4");
  refused([](Blocks* b) { (*b)[2].set_prompt_index(3); }, "0..2");
  refused([](Blocks* b) { (*b)[1] = (*b)[0]; }, "came twice");
  refused([](Blocks* b) { (*b)[1].set_tokens(0); }, "tokens of layer 3, prompt 1");
  refused([](Blocks* b) { (*b)[1].mutable_keys()->pop_back(); }, "384 bytes");
  refused([](Blocks* b) { (*b)[1].clear_values(); }, "got 0");
  refused([](Blocks* b) { b->pop_back(); }, "layer 7, prompt 2 (5 of 6 came)");
  EXPECT_THAT(Files(), IsEmpty());
}

TEST_F(CaptureServiceTest, StreamsMustBeginWithTheHeader) {
  grpc::ClientContext context;
  client_->Prepare(&context);
  v1::RecordResponse response;
  auto writer = client_->stub().Record(&context, &response);
  v1::RecordRequest request;
  *request.mutable_block() = RandomBlock(SmallHeader(), 3, 0, 5, 1);
  writer->Write(request);
  writer->WritesDone();
  EXPECT_THAT(FromGrpcStatus(writer->Finish()), StatusIs(kInvalid, HasSubstr("header")));
}

TEST_F(CaptureServiceTest, WhatIsNotThereIsNotFound) {
  const auto code = absl::StatusCode::kNotFound;
  EXPECT_THAT(Stats("nothing"), StatusIs(code, HasSubstr("'nothing'")));
  EXPECT_THAT(Read("nothing"), StatusIs(code));
  v1::DeleteCaptureRequest remove;
  remove.set_capture_id("../cap-1");
  EXPECT_THAT(client_->Call(&Stub::DeleteCapture, remove), StatusIs(code));
  const auto header = SmallHeader();
  ASSERT_OK(Record(header, RandomBlocks(header)));
  EXPECT_THAT(Read("cap-1", {5}), StatusIs(absl::StatusCode::kOutOfRange, HasSubstr("layer 5")));
  remove.set_capture_id("cap-1");
  EXPECT_OK(client_->Call(&Stub::DeleteCapture, remove));
  EXPECT_THAT(Stats("cap-1"), StatusIs(code));
  EXPECT_THAT(Files(), IsEmpty());
}

}  // namespace
}  // namespace plumbline
