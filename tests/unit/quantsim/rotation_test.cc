// The rotation that a capture carries, against the engine that made it.
#include <map>

#include "services/common/files.h"
#include "services/engine/cpu/cpu_model.h"
#include "services/engine/cpu/rope_table.h"
#include "services/quantsim/attention_error.h"
#include "services/quantsim/simulator.h"
#include "tests/unit/capture/activations.h"
#include "tests/unit/engine/engine_fixture.h"

namespace plumbline {
namespace {

using namespace testing;  // NOLINT: the matchers and makers
using ::testing::SizeIs;

constexpr int kTokens = 150;  // beyond the tiny bundle's original context of llama3 scaling
constexpr int kKvHeads = 2, kHeads = 4, kHeadDim = 16;

class RotationTest : public ::testing::TestWithParam<TinyModel> {
 protected:
  RotationTest() : bundle_(GetParam()) {}

  std::vector<double> Rotation() {
    const auto json = ReadFile(JoinPath(bundle_.dir(), "config.json"), 1 << 20);
    EXPECT_THAT(json, IsOk());
    const auto rope = RopeTable::Create(*ParseModelConfig(*json), /*bf16=*/false);
    EXPECT_THAT(rope, IsOk());
    return {rope->inverse_frequencies().begin(), rope->inverse_frequencies().end()};
  }

  // What a capture holds, and the keys that attention reads in the same prompt.
  void Capture() {
    const std::vector<int32_t> prompt = Prompt(kTokens, 3);
    auto engine = OpenEngine(bundle_);
    SequenceRequest request = Request(*engine, 1, prompt, "*:fp", 1);
    request.capture_layers = {LayerIndex(1), LayerIndex(3)};
    captured_ = RunOne(engine.get(), request).captured;
    ASSERT_THAT(captured_, SizeIs(2));
    ASSERT_OK_AND_ASSIGN(auto model,
                         CreateCpuForward<float>({.bundle_dir = bundle_.dir(), .threads = 1}));
    model->layer_runner().set_probe(
        [this](int layer, const LayerRun<float>& run, AttentionView<float> view) {
          read_[layer] = {view.keys, view.keys + run.rows * kKvHeads * kHeadDim};
        });
    ASSERT_OK_AND_ASSIGN(auto state, model->Open(Request(*engine, 2, prompt, "*:fp", 1)));
    EngineStats stats;
    ASSERT_OK(model->Run({{state.get(), prompt, 0, true, {}}}, &stats).status());
  }

  TinyBundle bundle_;
  std::vector<CapturedLayer> captured_;
  std::map<int, std::vector<float>> read_;
};

TEST_P(RotationTest, CapturedKeysRotatedAreTheKeysThatAttentionReads) {
  ASSERT_NO_FATAL_FAILURE(Capture());
  for (const CapturedLayer& captured : captured_) {
    std::vector<float> keys = captured.keys;
    ASSERT_NE(keys, read_.at(captured.layer.value()));
    RotateRows(Rotation(), kKvHeads, kHeadDim, &keys);
    EXPECT_EQ(keys, read_.at(captured.layer.value()));  // bit for bit
  }
}

TEST_P(RotationTest, AFormatAfterRopeQuantizesTheKeysThatAttentionReads) {
  ASSERT_NO_FATAL_FAILURE(Capture());
  v1::CaptureHeader header;
  header.set_num_kv_heads(kKvHeads);
  header.set_num_heads(kHeads);
  header.set_head_dim(kHeadDim);
  for (const double frequency : Rotation()) header.add_rope_inverse_frequency(frequency);
  v1::ActivationBlock block;
  block.set_tokens(kTokens);
  block.set_keys(Bytes(captured_[0].keys));
  block.set_values(Bytes(captured_[0].values));
  block.set_queries(Bytes(captured_[0].queries));
  const std::string text = "int3.asym.token.post";
  ASSERT_OK_AND_ASSIGN(const LayerFormat format, ParseFormatPair(text, false));
  ASSERT_OK_AND_ASSIGN(const std::vector<v1::FormatError> errors,
                       SimulateFormats({.header = header}, {text}, {format}, 1, {block}));
  ASSERT_EQ(errors.size(), 1u);
  const v1::FormatError& error = errors[0];

  const std::vector<float>& keys = read_.at(1);
  std::vector<float> stored = keys;
  ASSERT_OK_AND_ASSIGN(
      auto quantizer,
      TensorQuantizer::Create(format.key, {kKvHeads, kHeadDim, KvDtype::kF32}, nullptr));
  quantizer->Append(stored.data(), 0, kTokens, Phase::kPromptLast);
  double squares = 0, energy = 0;
  for (size_t i = 0; i < keys.size(); ++i) {
    squares += (double{stored[i]} - keys[i]) * (double{stored[i]} - keys[i]);
    energy += double{keys[i]} * keys[i];
  }
  EXPECT_GT(error.keys().relative_mse(), 0);
  EXPECT_NEAR(error.keys().relative_mse(), squares / energy, 1e-12 * squares / energy);
  EXPECT_GT(error.attention_output_relative_mse(), 0);
}

INSTANTIATE_TEST_SUITE_P(Models, RotationTest,
                         ::testing::Values(TinyModel{}, TinyModel{.llama3_rope = true},
                                           TinyModel{.family = "qwen2"}),
                         [](const auto& info) {
                           return info.param.llama3_rope ? "llama3_scaling" : info.param.family;
                         });

}  // namespace
}  // namespace plumbline
