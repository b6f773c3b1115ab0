// quantsim against a real capture service, both on loopback.
#include "services/quantsim/quantsim_service.h"

#include <unistd.h>

#include <algorithm>
#include <cmath>
#include <random>

#include "absl/strings/str_cat.h"
#include "kernels/float_formats.h"
#include "services/capture/capture_service.h"
#include "services/common/parallel.h"
#include "services/quant/plan_parser.h"
#include "services/quantsim/attention_error.h"
#include "services/rpc/server.h"
#include "tests/support/status_matchers.h"
#include "tests/unit/capture/activations.h"

namespace plumbline {
namespace {

using namespace testing;  // NOLINT: the matchers and makers
using ::testing::AllOf;
using ::testing::HasSubstr;
using Client = RpcClient<v1::QuantizationSimulation>;
using Stub = v1::QuantizationSimulation::Stub;
constexpr auto kInvalid = absl::StatusCode::kInvalidArgument;

class QuantsimTest : public ::testing::Test {
 protected:
  void SetUp() override {
    folder_ = absl::StrCat(::testing::TempDir(), "/quantsim", getpid());
    v1::CaptureConfig config;
    config.set_data_dir(folder_);
    ASSERT_OK_AND_ASSIGN(capture_, CaptureService::Create(config, nullptr));
    ASSERT_OK_AND_ASSIGN(
        capture_server_,
        RpcServer::Start({.default_listen = "127.0.0.1:0",
                          .services = {Hosted<v1::ActivationCapture>(capture_.get())}}));
    v1::QuantsimConfig quantsim;
    quantsim.mutable_capture()->set_address(capture_server_->address());
    ASSERT_OK_AND_ASSIGN(service_, QuantsimService::Create(quantsim, nullptr));
    ASSERT_OK_AND_ASSIGN(
        server_,
        RpcServer::Start({.default_listen = "127.0.0.1:0",
                          .services = {Hosted<v1::QuantizationSimulation>(service_.get())}}));
    v1::Endpoint endpoint;
    endpoint.set_address(server_->address());
    ASSERT_OK_AND_ASSIGN(client_, Client::Create(endpoint));
  }
  void TearDown() override { (void)!system(absl::StrCat("rm -rf ", folder_).c_str()); }

  std::string RecordCapture(const v1::CaptureHeader& header,
                            const std::vector<v1::ActivationBlock>& blocks) {
    v1::Endpoint endpoint;
    endpoint.set_address(capture_server_->address());
    auto client = *RpcClient<v1::ActivationCapture>::Create(endpoint);
    grpc::ClientContext context;
    v1::RecordResponse response;
    auto writer = client->stub().Record(&context, &response);
    v1::RecordRequest request;
    *request.mutable_header() = header;
    writer->Write(request);
    for (const auto& block : blocks) {
      *request.mutable_block() = block;
      writer->Write(request);
    }
    writer->WritesDone();
    EXPECT_TRUE(writer->Finish().ok());
    return response.capture_digest();
  }
  static v1::SimulateRequest Inline(const v1::CaptureHeader& header,
                                    const std::vector<v1::ActivationBlock>& blocks,
                                    std::vector<std::string> formats) {
    v1::SimulateRequest request;
    *request.mutable_inline_activations()->mutable_header() = header;
    for (const auto& block : blocks) *request.mutable_inline_activations()->add_blocks() = block;
    for (const std::string& format : formats) request.add_formats(format);
    return request;
  }
  absl::StatusOr<v1::SimulateResponse> Simulate(const v1::SimulateRequest& request) {
    return client_->Call(&Stub::Simulate, request);
  }

  std::string folder_;
  std::unique_ptr<CaptureService> capture_;
  std::unique_ptr<RpcServer> capture_server_;
  std::unique_ptr<QuantsimService> service_;
  std::unique_ptr<RpcServer> server_;
  std::unique_ptr<Client> client_;
};

TEST_F(QuantsimTest, ErrorsEqualTheQuantizerUsedDirectly) {
  const auto header = SmallHeader();
  const auto blocks = RandomBlocks(header);
  auto request = Inline(header, blocks, {"int3.sym.tensor", "int4.asym.token|fp"});
  request.set_per_channel(true);
  request.add_outlier_channels(5);
  ASSERT_OK_AND_ASSIGN(auto response, Simulate(request));
  ASSERT_EQ(response.errors_size(), 4);  // by format, then layer
  EXPECT_EQ(response.errors(1).format(), "int3.sym.tensor");
  EXPECT_EQ(response.errors(1).layer(), 7u);
  EXPECT_EQ(response.errors(2).format(), "int4.asym.token|fp");
  EXPECT_EQ(response.errors(2).layer(), 3u);

  // Keys of layer 7 at int3.sym.tensor.
  ASSERT_OK_AND_ASSIGN(TensorFormat format, ParseFormat("int3.sym.tensor"));
  double error = 0, energy = 0, inner_error = 0, inner_energy = 0, head_error = 0, head_energy = 0;
  double most = 0, channel_error = 0, channel_energy = 0;
  uint64_t elements = 0;
  for (size_t i = 3; i < 6; ++i) {
    const std::vector<float> keys = FloatsOf(blocks[i].keys());
    std::vector<float> stored = keys;
    ASSERT_OK_AND_ASSIGN(auto quantizer,
                         TensorQuantizer::Create(format, {2, 8, KvDtype::kF32}, nullptr));
    quantizer->Append(stored.data(), 0, blocks[i].tokens(), Phase::kPromptLast);
    for (size_t at = 0; at < keys.size(); ++at) {
      const double difference = static_cast<double>(stored[at]) - keys[at];
      const double e = difference * difference, x = static_cast<double>(keys[at]) * keys[at];
      const size_t channel = at % 16;
      error += e, energy += x, ++elements;
      if (channel != 5) inner_error += e, inner_energy += x;
      if (channel >= 8) head_error += e, head_energy += x;
      if (channel == 9) channel_error += e, channel_energy += x;
      most = std::max(most, std::fabs(difference));
    }
  }
  const v1::TensorError& got = response.errors(1).keys();
  EXPECT_GT(error, 0);
  EXPECT_NEAR(got.mse(), error / static_cast<double>(elements), 1e-12);
  EXPECT_NEAR(got.relative_mse(), error / energy, 1e-12);
  EXPECT_NEAR(got.relative_mse_without_outliers(), inner_error / inner_energy, 1e-12);
  EXPECT_NEAR(got.head_relative_mse(1), head_error / head_energy, 1e-12);
  EXPECT_NEAR(got.channel_relative_mse(9), channel_error / channel_energy, 1e-12);
  EXPECT_EQ(got.max_abs(), most);
  EXPECT_EQ(response.errors(1).tokens(), 18u);
  // Values at fp are as they were.
  EXPECT_EQ(response.errors(2).values().mse(), 0);
  EXPECT_GT(response.errors(2).keys().mse(), 0);
}

TEST_F(QuantsimTest, AnOutlierHidesTheDamageToTheOtherChannels) {
  auto header = SmallHeader();
  auto blocks = RandomBlocks(header);
  for (auto& block : blocks) {
    for (uint32_t t = 0; t < block.tokens(); ++t) Poke(block.mutable_keys(), t * 16 + 5, 400.0f);
  }
  auto request = Inline(header, blocks, {"int3.sym.tensor"});
  request.add_outlier_channels(5);
  ASSERT_OK_AND_ASSIGN(auto response, Simulate(request));
  // All other channels round to 0: their relative error is 1 while the whole tensor's is tiny.
  EXPECT_EQ(response.errors(0).keys().relative_mse_without_outliers(), 1);
  EXPECT_LT(response.errors(0).keys().relative_mse(), 1e-3);
}

TEST_F(QuantsimTest, CaptureAndInlineGiveTheSameErrors) {
  const auto header = SmallHeader();
  const auto blocks = RandomBlocks(header);
  const std::string digest = RecordCapture(header, blocks);
  const std::vector<std::string> formats = {"int4.asym.token", "int4.sym.group4", "fp8_e5m2", "fp"};
  ASSERT_OK_AND_ASSIGN(auto sent_along, Simulate(Inline(header, blocks, formats)));
  v1::SimulateRequest request;
  for (const std::string& format : formats) request.add_formats(format);
  request.set_capture("cap-1");
  ASSERT_OK_AND_ASSIGN(auto by_id, Simulate(request));
  EXPECT_EQ(by_id.capture_digest(), digest);
  by_id.clear_capture_digest();
  EXPECT_EQ(by_id.SerializeAsString(), sent_along.SerializeAsString());
  request.add_layers(7);
  ASSERT_OK_AND_ASSIGN(auto one_layer, Simulate(request));
  ASSERT_EQ(one_layer.errors_size(), 4);
  EXPECT_EQ(one_layer.errors(0).SerializeAsString(), by_id.errors(1).SerializeAsString());
}

TEST_F(QuantsimTest, OneChangedCapturedValueChangesTheErrors) {
  const auto header = SmallHeader();
  auto blocks = RandomBlocks(header);
  ASSERT_OK_AND_ASSIGN(auto before, Simulate(Inline(header, blocks, {"int4.sym.tensor"})));
  Poke(blocks[0].mutable_keys(), 0, 50.0f);
  ASSERT_OK_AND_ASSIGN(auto after, Simulate(Inline(header, blocks, {"int4.sym.tensor"})));
  EXPECT_GT(after.errors(0).keys().mse(), 2 * before.errors(0).keys().mse());
  EXPECT_EQ(after.errors(1).SerializeAsString(), before.errors(1).SerializeAsString());
}

TEST_F(QuantsimTest, FewerBitsHurtAttentionMoreAndFpDoesNot) {
  const auto header = SmallHeader();
  ASSERT_OK_AND_ASSIGN(
      auto response,
      Simulate(Inline(header, RandomBlocks(header),
                      {"fp", "int8.asym.token", "int4.asym.token", "int2.asym.token"})));
  const auto scores = [&](int format) {
    return response.errors(2 * format).attention_score_relative_mse();
  };
  const auto outputs = [&](int format) {
    return response.errors(2 * format).attention_output_relative_mse();
  };
  EXPECT_EQ(scores(0), 0);
  EXPECT_EQ(outputs(0), 0);
  for (int format = 1; format < 4; ++format) {
    EXPECT_GT(scores(format), scores(format - 1));
    EXPECT_GT(outputs(format), outputs(format - 1));
  }
}

TEST_F(QuantsimTest, WithoutQueriesThereIsNoAttentionError) {
  const auto header = SmallHeader();
  auto blocks = RandomBlocks(header);
  for (auto& block : blocks) block.clear_queries();
  ASSERT_OK_AND_ASSIGN(auto response, Simulate(Inline(header, blocks, {"int2.asym.token"})));
  EXPECT_EQ(response.errors(0).attention_score_relative_mse(), 0);
  EXPECT_GT(response.errors(0).keys().mse(), 0);
}

TEST_F(QuantsimTest, RotationMattersForAttentionAndAllowsFormatsAfterRope) {
  auto header = SmallHeader();
  const auto blocks = RandomBlocks(header);
  ASSERT_OK_AND_ASSIGN(auto plain, Simulate(Inline(header, blocks, {"int3.asym.token"})));
  EXPECT_THAT(Simulate(Inline(header, blocks, {"int3.asym.token.post"})),
              StatusIs(kInvalid, HasSubstr("rope_inverse_frequency")));
  for (int i = 0; i < 4; ++i) header.add_rope_inverse_frequency(std::pow(10000.0, -i / 4.0));
  ASSERT_OK_AND_ASSIGN(
      auto rotated, Simulate(Inline(header, blocks, {"int3.asym.token", "int3.asym.token.post"})));
  EXPECT_EQ(plain.errors(0).keys().mse(), rotated.errors(0).keys().mse());
  EXPECT_NE(plain.errors(0).attention_output_relative_mse(),
            rotated.errors(0).attention_output_relative_mse());
  EXPECT_NE(rotated.errors(0).keys().mse(), rotated.errors(2).keys().mse());
  EXPECT_EQ(rotated.errors(0).values().mse(), rotated.errors(2).values().mse());
}

TEST_F(QuantsimTest, CalibratedFormatsTakeTheCapturesStatistics) {
  const auto header = SmallHeader();
  const auto blocks = RandomBlocks(header);
  const std::string digest = RecordCapture(header, blocks);
  const std::string calibrated = absl::StrCat("int4.sym.channel.calibrated(", digest, ")");
  ASSERT_OK_AND_ASSIGN(auto response,
                       Simulate(Inline(header, blocks, {calibrated, "int4.sym.channel.prompt"})));
  EXPECT_GT(response.errors(0).keys().mse(), 0);
  // The capture's ranges are at least as wide as any prompt's own.
  EXPECT_GT(response.errors(0).keys().mse(), response.errors(2).keys().mse());
  const std::string unknown =
      absl::StrCat("int4.sym.channel.calibrated(", std::string(64, 'a'), ")");
  EXPECT_THAT(Simulate(Inline(header, blocks, {unknown})), StatusIs(absl::StatusCode::kNotFound));
}

TEST_F(QuantsimTest, BadRequestsAreNamed) {
  const auto header = SmallHeader();
  const auto blocks = RandomBlocks(header);
  const auto refused = [&](auto change, const char* names) {
    v1::SimulateRequest request = Inline(header, blocks, {"int4.asym.token"});
    change(&request);
    EXPECT_THAT(Simulate(request), StatusIs(kInvalid, HasSubstr(names)));
  };
  using Request = v1::SimulateRequest;
  refused([](Request* r) { r->clear_source(); }, "source is not set");
  refused([](Request* r) { r->clear_formats(); }, "1..512");
  refused([](Request* r) { r->set_formats(0, "int7.sym.tensor"); }, "formats[0]");
  refused([](Request* r) { r->set_formats(0, "fp|fp|fp"); }, "'fp|fp|fp'");
  refused([](Request* r) { r->set_formats(0, "int4.asym.channel.step"); }, "formats[0]");
  refused([](Request* r) { r->set_formats(0, "int4.sym.group64.heads(9)"); }, "9");
  refused([](Request* r) { r->add_outlier_channels(16); }, "below 16");
  refused([](Request* r) { r->add_layers(4); }, "layer 4");
  refused([](Request* r) { r->mutable_inline_activations()->mutable_header()->set_head_dim(0); },
          "head_dim");
  refused([](Request* r) { r->mutable_inline_activations()->mutable_blocks()->RemoveLast(); },
          "layer 7, prompt 2");
  refused(
      [](Request* r) {
        Poke(r->mutable_inline_activations()->mutable_blocks(1)->mutable_keys(), 0, NAN);
      },
      "blocks[1]");
  v1::SimulateRequest request;
  request.set_capture("nothing");
  request.add_formats("fp");
  EXPECT_THAT(Simulate(request), StatusIs(absl::StatusCode::kNotFound, HasSubstr("'nothing'")));
}

TEST_F(QuantsimTest, AnAbsentCaptureServiceIsUnavailable) {
  capture_server_->Drain();
  v1::SimulateRequest request;
  request.set_capture("cap-1");
  request.add_formats("fp");
  EXPECT_THAT(Simulate(request),
              StatusIs(absl::StatusCode::kUnavailable, HasSubstr(capture_server_->address())));
}

TEST_F(QuantsimTest, QuantizeTensorGivesCodesThatDecodeToItsValues) {
  const auto block = RandomBlock(SmallHeader(), 3, 0, 6, 4);
  v1::QuantizeTensorRequest request;
  request.set_tokens(6);
  request.set_kv_heads(2);
  request.set_head_dim(8);
  request.set_values(block.keys());
  request.set_format("int3.sym.tensor");
  ASSERT_OK_AND_ASSIGN(auto sym, client_->Call(&Stub::QuantizeTensor, request));
  ASSERT_EQ(sym.codes_size(), 96);
  ASSERT_EQ(sym.scales_size(), 1);
  const auto values = FloatsOf(sym.values());
  bool negative = false;
  for (int i = 0; i < 96; ++i) {
    EXPECT_EQ(values[i], static_cast<float>(sym.codes(i)) * sym.scales(0));
    EXPECT_LE(std::abs(sym.codes(i)), 3);
    negative = negative || sym.codes(i) < 0;
  }
  EXPECT_TRUE(negative);
  request.set_format("int4.asym.token");
  ASSERT_OK_AND_ASSIGN(auto asym, client_->Call(&Stub::QuantizeTensor, request));
  ASSERT_EQ(asym.scales_size(), 6);
  ASSERT_EQ(asym.zeros_size(), 6);
  for (int i = 0; i < 96; ++i) {
    const float expected =
        (static_cast<float>(asym.codes(i)) - asym.zeros(i / 16)) * asym.scales(i / 16);
    EXPECT_EQ(FloatsOf(asym.values())[i], expected);
    EXPECT_GE(asym.codes(i), 0);
    EXPECT_LE(asym.codes(i), 15);
  }
  request.set_format("fp");
  ASSERT_OK_AND_ASSIGN(auto fp, client_->Call(&Stub::QuantizeTensor, request));
  EXPECT_EQ(fp.values(), block.keys());
  EXPECT_EQ(fp.codes_size(), 0);
  request.set_bf16(true);
  ASSERT_OK_AND_ASSIGN(auto bf16, client_->Call(&Stub::QuantizeTensor, request));
  for (int i = 0; i < 96; ++i) {
    EXPECT_EQ(FloatsOf(bf16.values())[i], RoundToBf16(FloatsOf(block.keys())[i]));
  }
}

TEST_F(QuantsimTest, CodesOfSelectedChannelsStandAtTheirPlaces) {
  const auto block = RandomBlock(SmallHeader(), 3, 0, 6, 4);
  v1::QuantizeTensorRequest request;
  request.set_tokens(6);
  request.set_kv_heads(2);
  request.set_head_dim(8);
  request.set_values(block.keys());
  request.set_format("int8.sym.tensor.ch(1,9)");
  ASSERT_OK_AND_ASSIGN(auto response, client_->Call(&Stub::QuantizeTensor, request));
  const auto before = FloatsOf(block.keys()), after = FloatsOf(response.values());
  for (int i = 0; i < 96; ++i) {
    if (i % 16 == 1 || i % 16 == 9) {
      EXPECT_EQ(after[i], static_cast<float>(response.codes(i)) * response.scales(0));
    } else {
      EXPECT_EQ(after[i], before[i]);
      EXPECT_EQ(response.codes(i), 0);
    }
  }
}

TEST_F(QuantsimTest, BadTensorsAreNamed) {
  const auto refused = [&](auto change, const char* names) {
    v1::QuantizeTensorRequest request;
    request.set_format("int4.asym.token");
    request.set_tokens(1);
    request.set_kv_heads(1);
    request.set_head_dim(2);
    request.set_values(std::string(8, '\0'));
    change(&request);
    EXPECT_THAT(client_->Call(&Stub::QuantizeTensor, request),
                StatusIs(kInvalid, HasSubstr(names)));
  };
  using Request = v1::QuantizeTensorRequest;
  refused([](Request* r) { r->set_format("int4"); }, "int4");
  refused([](Request* r) { r->clear_format(); }, "format");
  refused([](Request* r) { r->set_tokens(0); }, "tokens must be 1..");
  refused([](Request* r) { r->set_kv_heads(5000); }, "5000");
  refused([](Request* r) { r->set_head_dim(3); }, "12 bytes");
  refused(
      [](Request* r) {
        r->set_format(absl::StrCat("int4.sym.channel.calibrated(", std::string(64, 'a'), ")"));
      },
      "ask Simulate");
}

TEST(SimulateFormatsTest, StopsWhenTheCallerIsGone) {
  const auto header = SmallHeader();
  int asked = 0;
  SimulationOptions options{.header = header, .cancelled = [&] { return ++asked == 2; }};
  ASSERT_OK_AND_ASSIGN(LayerFormat format, ParseFormatPair("int4.asym.token", false));
  EXPECT_THAT(SimulateFormats(options, {"int4.asym.token"}, {format}, 3, RandomBlocks(header)),
              StatusIs(absl::StatusCode::kCancelled));
  EXPECT_EQ(asked, 2);
}

// Rotation by hand: position 1, one pair, a quarter turn.
TEST(Rotation, TurnsPairsByPositionTimesFrequency) {
  std::vector<float> rows = {1, 0, 1, 0};  // two tokens, one head of two channels
  RotateRows({std::acos(-1.0) / 2}, 1, 2, &rows);
  EXPECT_EQ(rows[0], 1);
  EXPECT_EQ(rows[1], 0);
  EXPECT_NEAR(rows[2], 0, 1e-7);
  EXPECT_NEAR(rows[3], 1, 1e-7);
}

// Two tokens, one head of one channel: all by hand. q = 1, k = (0, ln 3), v = (0, 4):
// outputs are 0 and 3/4 * 4 = 3. Stored keys (0, 0): outputs 0 and 2.
TEST(AttentionError, EqualsAnExampleByHand) {
  const std::vector<float> keys = {0, static_cast<float>(std::log(3.0))}, values = {0, 4};
  const std::vector<float> stored_keys = {0, 0};
  const auto errors =
      AttentionErrors({.heads = 1, .kv_heads = 1, .head_dim = 1}, {1, 1}, {&keys, &values},
                      {{&stored_keys, &values}, {&keys, &values}});
  ASSERT_EQ(errors.size(), 2u);
  EXPECT_NEAR(errors[0].score_relative_mse(), 1, 1e-12);
  EXPECT_NEAR(errors[0].output_relative_mse(), 1.0 / 9, 1e-6);
  EXPECT_EQ(errors[1].score_relative_mse(), 0);
  EXPECT_EQ(errors[1].output_relative_mse(), 0);
}

// 37 tokens (more than a tile, no multiple of one), four heads on two, against the formula written
// out; the same bits with more threads.
TEST(AttentionError, EqualsTheFormulaOverTilesAndHeads) {
  constexpr int32_t kTokens = 37, kHeads = 4, kKvHeads = 2, kDim = 6;
  std::mt19937 random(7);
  std::normal_distribution<float> normal;
  const auto draw = [&](size_t count) {
    std::vector<float> values(count);
    for (float& value : values) value = normal(random);
    return values;
  };
  const std::vector<float> queries = draw(size_t{kTokens} * kHeads * kDim);
  const std::vector<float> keys = draw(size_t{kTokens} * kKvHeads * kDim),
                           values = draw(keys.size());
  const std::vector<float> stored_keys = draw(keys.size()), stored_values = draw(keys.size());

  const auto output = [&](const std::vector<float>& k, const std::vector<float>& v, int t, int head,
                          std::vector<double>* scores) {
    const int kv = head / (kHeads / kKvHeads);
    scores->assign(static_cast<size_t>(t) + 1, 0);
    double total = 0;
    std::vector<double> out(kDim);
    for (int s = 0; s <= t; ++s) {
      double& score = (*scores)[static_cast<size_t>(s)];
      for (int d = 0; d < kDim; ++d) {
        score += double{queries[static_cast<size_t>((t * kHeads + head) * kDim + d)]} *
                 k[static_cast<size_t>((s * kKvHeads + kv) * kDim + d)];
      }
      score /= std::sqrt(double{kDim});
      total += std::exp(score);
      for (int d = 0; d < kDim; ++d) {
        out[static_cast<size_t>(d)] +=
            std::exp(score) * v[static_cast<size_t>((s * kKvHeads + kv) * kDim + d)];
      }
    }
    for (double& value : out) value /= total;
    return out;
  };
  AttentionError expected;
  const auto add = [](const std::vector<double>& exact, const std::vector<double>& stored,
                      double* error, double* energy) {
    for (size_t i = 0; i < exact.size(); ++i) {
      *error += (stored[i] - exact[i]) * (stored[i] - exact[i]);
      *energy += exact[i] * exact[i];
    }
  };
  for (int head = 0; head < kHeads; ++head) {
    for (int t = 0; t < kTokens; ++t) {
      std::vector<double> exact_scores, scores;
      const auto exact = output(keys, values, t, head, &exact_scores);
      const auto stored = output(stored_keys, stored_values, t, head, &scores);
      add(exact_scores, scores, &expected.score_error, &expected.score_energy);
      add(exact, stored, &expected.output_error, &expected.output_energy);
    }
  }
  const AttentionShape shape = {kHeads, kKvHeads, kDim};
  const auto one =
      AttentionErrors(shape, queries, {&keys, &values}, {{&stored_keys, &stored_values}});
  SetThreads(3);
  const auto three =
      AttentionErrors(shape, queries, {&keys, &values}, {{&stored_keys, &stored_values}});
  SetThreads(1);
  ASSERT_EQ(one.size(), 1u);
  EXPECT_NEAR(one[0].score_error, expected.score_error, 1e-12 * expected.score_error);
  EXPECT_NEAR(one[0].output_error, expected.output_error, 1e-12 * expected.output_error);
  EXPECT_NEAR(one[0].score_relative_mse(), expected.score_relative_mse(), 1e-12);
  EXPECT_NEAR(one[0].output_relative_mse(), expected.output_relative_mse(), 1e-12);
  EXPECT_EQ(one[0].score_error, three[0].score_error);
  EXPECT_EQ(one[0].output_error, three[0].output_error);
}

}  // namespace
}  // namespace plumbline
