// Sequences of many thousand tokens: prompts in one step with a block a row, answers with several.
#include <algorithm>
#include <cmath>

#include "tests/gpu/engine_fixture.h"

namespace plumbline {
namespace {

using ::plumbline::testing::GpuModel;
using ::plumbline::testing::GpuOptions;
using ::plumbline::testing::OpenCpu;
using ::plumbline::testing::Prompt;
using ::plumbline::testing::Request;
using ::plumbline::testing::RunAll;
using ::plumbline::testing::TinyBundle;
using ::plumbline::testing::TinyModel;

constexpr int kPositions = 32768;

TinyModel LongModel() {
  TinyModel model = GpuModel();
  model.max_context = kPositions;
  return model;
}

std::unique_ptr<Engine> OpenLong(const TinyBundle& bundle, int max_running) {
  GpuOptions options;
  options.max_running = max_running;
  options.max_positions = kPositions;
  options.pool_bytes = int64_t{4} << 30;
  auto engine = testing::TryOpenGpu(bundle.dir(), options);
  EXPECT_THAT(engine, testing::IsOk());
  return engine.ok() ? std::move(engine).value() : nullptr;
}

std::vector<SequenceRequest> LongRequests(const Engine& engine, int tokens) {
  std::vector<SequenceRequest> requests;
  uint64_t id = 0;
  for (const char* plan : {"*:fp", "*:int4.asym.token", "*:int4.sym.channel.prompt"}) {
    requests.push_back(Request(engine, ++id, Prompt(tokens, 5, 504), plan, 8));
    requests.back().forced_tokens = Prompt(8, 99, 504);
    requests.back().want_steps = true;
  }
  return requests;
}

TEST(EngineLongContextTest, LogitsAreTheCpusWithinTheBound) {
  SKIP_WITHOUT_GPU();
  const TinyBundle bundle(LongModel());
  auto gpu = OpenLong(bundle, 16);
  auto cpu = OpenCpu(bundle, ComputeDtype::kF32);
  ASSERT_NE(gpu, nullptr);
  const int tokens = SmallRun() ? 300 : 12500;
  auto on_gpu = RunAll(gpu.get(), LongRequests(*gpu, tokens));
  auto on_cpu = RunAll(cpu.get(), LongRequests(*cpu, tokens));
  for (const auto& [id, expected] : on_cpu) {
    double worst = 0, scale = 0;
    ASSERT_EQ(on_gpu[id].steps.size(), expected.steps.size());
    for (size_t i = 0; i < expected.steps.size(); ++i) {
      scale = std::max<double>(scale, std::fabs(expected.steps[i].top1_logit));
      worst = std::max<double>(
          worst, std::fabs(expected.steps[i].top1_logit - on_gpu[id].steps[i].top1_logit));
    }
    std::printf("%d tokens, request %d: forced logits differ by %.3g of %.3g\n", tokens,
                static_cast<int>(id), worst, scale);
    ASSERT_GT(scale, 0);
    // Unquantized: the bound of engine_cpu_parity_test. Quantized: a code at a rounding boundary
    // that falls the other way moves a logit by a share of a quantization step.
    EXPECT_LE(worst, (id == 1 ? 2e-3 : 0.05) * scale);
  }
}

// Beside short sequences, whose steps have other numbers of rows, and alone.
TEST(EngineLongContextTest, CompanyChangesNoBit) {
  SKIP_WITHOUT_GPU();
  const TinyBundle bundle(LongModel());
  const int tokens = SmallRun() ? 300 : 31000;
  auto alone_engine = OpenLong(bundle, 1);
  ASSERT_NE(alone_engine, nullptr);
  const auto alone = RunAll(alone_engine.get(), LongRequests(*alone_engine, tokens));
  alone_engine.reset();
  auto engine = OpenLong(bundle, 700);  // three chunks of generated tokens: one block a row
  ASSERT_NE(engine, nullptr);
  std::vector<SequenceRequest> requests = LongRequests(*engine, tokens);
  const uint64_t others = SmallRun() ? 20 : 690;
  for (uint64_t id = 100; id < 100 + others; ++id) {
    requests.push_back(
        Request(*engine, id, Prompt(3 + static_cast<int>(id) % 40, id, 504), "*:fp", 24));
  }
  const auto together = RunAll(engine.get(), std::move(requests));
  for (const auto& [id, expected] : alone) {
    EXPECT_EQ(together.at(id).logit_digest, expected.logit_digest) << "request " << id;
    EXPECT_EQ(together.at(id).tokens, expected.tokens) << "request " << id;
  }
}

}  // namespace
}  // namespace plumbline
