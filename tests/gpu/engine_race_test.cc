// A small run of everything that the engine launches, for compute-sanitizer's racecheck: formats,
// scopes, windows, noise, sampling, scores, lists, captures, statistics, shared first tokens and
// reused prompt states. run_on_device.sh has only our own kernels checked.
#include "tests/gpu/engine_fixture.h"

namespace plumbline {
namespace {

using ::plumbline::testing::Differences;
using ::plumbline::testing::GpuOptions;
using ::plumbline::testing::GpuQwen;
using ::plumbline::testing::OpenGpu;
using ::plumbline::testing::Prompt;
using ::plumbline::testing::Request;
using ::plumbline::testing::RunAll;
using ::plumbline::testing::TinyBundle;
using ::plumbline::testing::TinyModel;

// One a request; the first six share their first tokens, two of a plan.
constexpr const char* kPlans[] = {
    "*:fp",
    "*:fp",
    "*:fp,1:int3.sym.tensor",
    "*:fp,1:int3.sym.tensor",
    "*:int4.asym.token",
    "*:int4.asym.token",
    "*:int4.sym.channel.prompt",
    "*:int4.affine.channel.window16x8|int4.affine.token.window16.sink4",
    "*:int4.affine.channel.window16x8.post.perhead.exact|"
    "int4.affine.group16.window16.perhead.exact",
    "*:int3.asym.token.sink4.hadamard",
    "*:fp|fp8_e4m3",
    "*:fp",
    "*:fp"};

std::vector<SequenceRequest> Requests(const Engine& engine) {
  std::vector<SequenceRequest> requests;
  for (uint64_t id = 0; id < std::size(kPlans); ++id) {
    SequenceRequest request = Request(engine, id, Prompt(37, 1, 504), kPlans[id], 4);
    request.want_logit_digest = id % 2 == 0;
    request.first_top = 5;
    if (id < 6) request.stem_tokens = 20;
    if (id % 3 == 1) {
      request.sampling.temperature = 0.9;
      request.sampling.stream = id;
    }
    if (id == 7) request.jitter_seed = id;
    if (id == 10) request.score_from = 1;
    for (int layer = 0; layer < engine.shape().num_layers; ++layer) {
      if (id == 11) request.measure_layers.push_back(LayerIndex(layer));
      if (id == 12) request.capture_layers.push_back(LayerIndex(layer));
    }
    requests.push_back(std::move(request));
  }
  return requests;
}

class EngineRaceTest : public ::testing::TestWithParam<ComputeDtype> {
 protected:
  void SetUp() override { SKIP_WITHOUT_GPU(); }
};

TEST_P(EngineRaceTest, TheSameWorkTwiceGivesTheSameBits) {
  TinyModel model = GpuQwen();
  model.layers = 2;
  const TinyBundle bundle(model);
  GpuOptions options;
  options.dtype = GetParam();
  options.max_running = 6;
  options.chunk_rows = 64;
  options.wave_rows = 64;
  options.max_positions = 128;
  options.pool_bytes = int64_t{4} << 20;
  options.prefix_bytes = int64_t{4} << 20;
  options.measure_bytes = int64_t{1} << 20;
  auto engine = OpenGpu(bundle, options);
  ASSERT_NE(engine, nullptr);
  const auto first = RunAll(engine.get(), Requests(*engine));
  EXPECT_EQ(first.size(), std::size(kPlans));
  EXPECT_EQ(Differences(first, RunAll(engine.get(), Requests(*engine))), 0);
}

INSTANTIATE_TEST_SUITE_P(Dtypes, EngineRaceTest,
                         ::testing::Values(ComputeDtype::kF32, ComputeDtype::kBf16),
                         [](const auto& info) {
                           return info.param == ComputeDtype::kF32 ? "fp32" : "bf16";
                         });

}  // namespace
}  // namespace plumbline
