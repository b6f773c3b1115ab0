// On the GPU as on the CPU: a sequence's tokens and logit bits depend on its request alone.
#include <algorithm>
#include <random>

#include "tests/gpu/engine_fixture.h"

namespace plumbline {
namespace {

using ::plumbline::testing::Differences;
using ::plumbline::testing::DigestOf;
using ::plumbline::testing::GpuOptions;
using ::plumbline::testing::GpuPlans;
using ::plumbline::testing::GpuVariant;
using ::plumbline::testing::GpuVariants;
using ::plumbline::testing::OpenGpu;
using ::plumbline::testing::Prompt;
using ::plumbline::testing::Request;
using ::plumbline::testing::RunAll;
using ::plumbline::testing::RunOne;
using ::plumbline::testing::TinyBundle;
using Results = std::map<uint64_t, SequenceResult>;

int Cells() { return SmallRun() ? 18 : 540; }

// Mixed lengths and plans; every third is sampled (every ninth from a nucleus), some have noise,
// some score their prompt.
std::vector<SequenceRequest> Mix(const Engine& engine) {
  std::vector<SequenceRequest> requests;
  for (uint64_t id = 0; id < static_cast<uint64_t>(Cells()); ++id) {
    const int length = 1 + static_cast<int>(id * 13 % 90);
    SequenceRequest request =
        Request(engine, id, Prompt(length, id % 11 + 1, 504), GpuPlans()[id % GpuPlans().size()],
                SmallRun() ? 3 : 4 + id % 9);
    if (id % 3 == 2) {
      request.sampling.temperature = 0.9;
      request.sampling.top_p = id % 9 == 8 ? 0.95 : 1;
      request.sampling.stream = id;
    }
    if (id % 7 == 3) request.jitter_seed = id;
    if (id % 5 == 4 && length > 3) request.score_from = length / 2;
    requests.push_back(std::move(request));
  }
  return requests;
}

class EngineInvarianceTest : public ::testing::TestWithParam<GpuVariant> {
 protected:
  void SetUp() override { SKIP_WITHOUT_GPU(); }
  EngineInvarianceTest() : bundle_(GetParam().model) {}

  std::unique_ptr<Engine> Open(int max_running, int64_t wave_rows = 2048,
                               int64_t pool = int64_t{1} << 30) {
    GpuOptions options;
    options.dtype = GetParam().dtype;
    options.max_running = max_running;
    options.wave_rows = wave_rows;
    options.pool_bytes = pool;
    return OpenGpu(bundle_, options);
  }

  // One at a time, nothing shared.
  Results Alone() {
    GpuOptions options;
    options.dtype = GetParam().dtype;
    options.max_running = 1;
    options.prefix_bytes = 0;
    auto engine = OpenGpu(bundle_, options);
    Results results;
    for (SequenceRequest& request : Mix(*engine)) {
      const uint64_t id = request.id;
      results[id] = RunOne(engine.get(), std::move(request));
    }
    return results;
  }

  TinyBundle bundle_;
};

TEST_P(EngineInvarianceTest, AnyCompanyOrderOccupancyAndWaveGiveTheBitsOfEachSequenceAlone) {
  const Results alone = Alone();
  ASSERT_EQ(alone.size(), static_cast<size_t>(Cells()));
  {
    auto engine = Open(256);
    const Results together = RunAll(engine.get(), Mix(*engine));
    EXPECT_EQ(Differences(alone, together), 0) << "together";
    // run_on_device.sh compares these with and without kernels that start early.
    std::printf("digest %s alone %s\ndigest %s together %s\n", GetParam().name,
                DigestOf(alone).c_str(), GetParam().name, DigestOf(together).c_str());
    EXPECT_EQ(Differences(alone, RunAll(engine.get(), Mix(*engine))), 0) << "again, refilled";
  }
  {
    auto engine = Open(37);
    std::vector<SequenceRequest> requests = Mix(*engine);
    std::shuffle(requests.begin(), requests.end(), std::mt19937(5));
    EXPECT_EQ(Differences(alone, RunAll(engine.get(), std::move(requests))), 0) << "shuffled, 37";
  }
  {
    auto engine = Open(100, /*wave_rows=*/1);
    EXPECT_EQ(Differences(alone, RunAll(engine.get(), Mix(*engine))), 0) << "prompts in step";
  }
  {
    auto engine = Open(256, 2048, /*pool=*/3000000);
    EXPECT_EQ(Differences(alone, RunAll(engine.get(), Mix(*engine))), 0) << "a small pool";
  }
}

// Digests make the host wait for every step; without them the device runs ahead.
TEST_P(EngineInvarianceTest, RunningAheadOfTheHostChangesNoToken) {
  const auto tokens = [](Engine* engine, bool digests) {
    std::vector<SequenceRequest> requests = Mix(*engine);
    for (SequenceRequest& request : requests) {
      request.want_logit_digest = digests;
      request.sampling.top_p = 1;
    }
    std::map<uint64_t, std::vector<int32_t>> answers;
    for (auto& [id, result] : RunAll(engine, std::move(requests))) answers[id] = result.tokens;
    return answers;
  };
  auto engine = Open(64);
  EXPECT_EQ(tokens(engine.get(), true), tokens(engine.get(), false));
}

TEST_P(EngineInvarianceTest, LateArrivalsCancelledNeighboursAndVerdictsChangeNothing) {
  auto alone_engine = Open(256);
  const Results alone = RunAll(alone_engine.get(), Mix(*alone_engine));
  auto engine = Open(40);
  std::vector<SequenceRequest> requests = Mix(*engine);
  for (SequenceRequest& request : requests) {
    request.want_logit_digest = false;
    if (request.id % 4 == 0) {
      request.verdict_decided = [seen = 0](int32_t) mutable { return ++seen == 3; };
    }
  }
  Results results;
  uint64_t filler = 1000;
  for (size_t next = 0, step = 0; next < requests.size() || engine->active() > 0; ++step) {
    for (int i = 0; i < 3 && next < requests.size(); ++i) {
      ASSERT_OK(engine->Submit(std::move(requests[next++])));
    }
    if (step % 5 == 0 && next < requests.size()) {
      ++filler;
      ASSERT_OK(engine->Submit(Request(*engine, filler, Prompt(40, filler, 504), "*:fp", 50)));
    }
    if (step % 5 == 3 && filler > 1000) (void)engine->Cancel(filler);
    auto finished = engine->Step();
    ASSERT_OK(finished.status());
    for (SequenceResult& result : *finished) results[result.id] = std::move(result);
  }
  int compared = 0;
  for (const auto& [id, result] : alone) {
    ASSERT_TRUE(results.count(id) > 0) << id;
    std::vector<int32_t> expected = result.tokens;
    if (id % 4 == 0 && expected.size() > 3) expected.resize(3);
    EXPECT_EQ(results[id].tokens, expected) << "sequence " << id;
    EXPECT_EQ(results[id].nll_sum, result.nll_sum) << "sequence " << id;
    ++compared;
  }
  EXPECT_EQ(compared, Cells());
}

// Cells that share prompts and part at different layers, among others that share nothing.
TEST_P(EngineInvarianceTest, ReusedPromptStatesGiveTheSameBits) {
  const auto ablation = [](const Engine& engine) {
    std::vector<SequenceRequest> requests;
    const std::vector<std::string> plans = {"*:fp,0:int3.sym.tensor", "*:fp,1:int3.sym.tensor",
                                            "*:fp,1-2:int4.asym.token.exact",
                                            "*:fp,2:int3.sym.tensor|fp", "*:fp"};
    for (uint64_t id = 0; id < (SmallRun() ? 25 : 120); ++id) {
      requests.push_back(Request(engine, id,
                                 Prompt(33 + static_cast<int>(id / 5 % 4), id / 5 % 8, 504),
                                 plans[id % 5], 5 + static_cast<int>(id) % 7));
      if (id % 11 == 3) requests.back().jitter_seed = 5;
      if (id % 13 == 7) requests.back().score_from = 2;
      if (id % 17 == 9) requests.back().capture_layers = {LayerIndex(1)};
    }
    return requests;
  };
  GpuOptions options;
  options.dtype = GetParam().dtype;
  options.prefix_bytes = 0;
  auto without = OpenGpu(bundle_, options);
  const Results expected = RunAll(without.get(), ablation(*without));
  for (int64_t bytes : {int64_t{1} << 26, int64_t{700000}, int64_t{1000}}) {
    for (int max_running : {256, 9}) {
      if (SmallRun() && (max_running == 9) == (bytes == 1000)) continue;
      options.prefix_bytes = bytes;
      options.max_running = max_running;
      auto with = OpenGpu(bundle_, options);
      SCOPED_TRACE(bytes);
      EXPECT_EQ(Differences(expected, RunAll(with.get(), ablation(*with))), 0);
      EXPECT_EQ(Differences(expected, RunAll(with.get(), ablation(*with))), 0) << "all held";
    }
  }
}

INSTANTIATE_TEST_SUITE_P(Models, EngineInvarianceTest, ::testing::ValuesIn(GpuVariants()),
                         [](const auto& info) { return info.param.name; });

}  // namespace
}  // namespace plumbline
