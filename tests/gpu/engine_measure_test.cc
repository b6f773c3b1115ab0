// Statistics of prompts from the GPU engine: bit-equal to the CPU's kernel over the rows that the
// same request captures, whatever shares the batch.
#include <algorithm>

#include "tests/gpu/engine_fixture.h"
#include "tests/unit/engine/measured_rows.h"

namespace plumbline {
namespace {

using ::plumbline::testing::GpuOptions;
using ::plumbline::testing::GpuVariant;
using ::plumbline::testing::GpuVariants;
using ::plumbline::testing::MeasuredOf;
using ::plumbline::testing::OpenGpu;
using ::plumbline::testing::Prompt;
using ::plumbline::testing::Request;
using ::plumbline::testing::RunAll;
using ::plumbline::testing::RunOne;
using ::plumbline::testing::TinyBundle;
using Results = std::map<uint64_t, SequenceResult>;

enum class Ask { kNothing, kMeasures, kCaptures };

class EngineMeasureTest : public ::testing::TestWithParam<GpuVariant> {
 protected:
  void SetUp() override { SKIP_WITHOUT_GPU(); }
  std::unique_ptr<Engine> Open(GpuOptions options = {}) {
    options.dtype = GetParam().dtype;
    return OpenGpu(bundle_, options);
  }
  std::vector<LayerIndex> Layers() const {
    return {LayerIndex(GetParam().model.layers - 1), LayerIndex(0)};
  }

  // Enough for several steps; some want nothing, some are quantized, some have noise.
  std::vector<SequenceRequest> Mix(const Engine& engine, Ask ask) const {
    std::vector<SequenceRequest> requests;
    for (uint64_t id = 0; id < (SmallRun() ? 9u : 90u); ++id) {
      const int length = 1 + static_cast<int>(id * 37 % 150);
      requests.push_back(Request(engine, id, Prompt(length, id % 7 + 1, 504),
                                 id % 3 == 1 ? "*:int4.asym.token" : "*:fp", 1 + id % 5));
      requests.back().jitter_seed = id % 10 == 5 ? 9 : 0;
      if (id % 4 == 3) continue;
      if (ask == Ask::kMeasures) requests.back().measure_layers = Layers();
      if (ask == Ask::kCaptures) requests.back().capture_layers = Layers();
    }
    return requests;
  }

  TinyBundle bundle_{GetParam().model};
};

TEST_P(EngineMeasureTest, EqualsTheCpusStatisticsOfCapturedRows) {
  auto engine = Open();
  Results measured = RunAll(engine.get(), Mix(*engine, Ask::kMeasures));
  const Results captured = RunAll(engine.get(), Mix(*engine, Ask::kCaptures));
  int compared = 0;
  for (const auto& [id, result] : captured) {
    ASSERT_EQ(measured[id].measured.size(), result.captured.size());
    for (size_t i = 0; i < result.captured.size(); ++i, ++compared) {
      CapturedLayer rows = result.captured[i];
      EXPECT_TRUE(measured[id].measured[i] == MeasuredOf(rows, engine->shape()))
          << "sequence " << id << ", layer " << rows.layer.value();
      rows.keys[rows.keys.size() / 2] += 0.5f;
      EXPECT_FALSE(measured[id].measured[i] == MeasuredOf(rows, engine->shape()));
    }
  }
  EXPECT_GE(compared, SmallRun() ? 12 : 130);
}

TEST_P(EngineMeasureTest, DependsOnTheRequestAloneAndMovesNoToken) {
  auto engine = Open();
  Results all = RunAll(engine.get(), Mix(*engine, Ask::kMeasures));
  const Results plain = RunAll(engine.get(), Mix(*engine, Ask::kNothing));
  auto reversed = Mix(*engine, Ask::kMeasures);
  std::reverse(reversed.begin(), reversed.end());
  auto narrow = Open({.max_running = 5});
  Results other = RunAll(narrow.get(), std::move(reversed));
  for (SequenceRequest& request : Mix(*engine, Ask::kMeasures)) {
    const uint64_t id = request.id;
    EXPECT_EQ(all[id].tokens, plain.at(id).tokens);
    EXPECT_EQ(all[id].logit_digest, plain.at(id).logit_digest);
    EXPECT_TRUE(all[id].measured == other[id].measured) << "sequence " << id;
    if (id % 8 != 0) continue;
    EXPECT_TRUE(RunOne(engine.get(), std::move(request)).measured == all[id].measured);
  }
}

// Room for one prompt a step on the device; the others of a step are measured on the host.
TEST_P(EngineMeasureTest, PromptsBeyondTheSpaceHaveTheSameStatistics) {
  auto roomy = Open(), tight = Open({.measure_bytes = 1});
  Results expected = RunAll(roomy.get(), Mix(*roomy, Ask::kMeasures));
  Results measured = RunAll(tight.get(), Mix(*tight, Ask::kMeasures));
  for (const auto& [id, result] : expected) {
    EXPECT_TRUE(result.measured == measured[id].measured) << "sequence " << id;
  }
}

TEST_P(EngineMeasureTest, ACancelledSequenceLeavesTheOthersTheirs) {
  auto engine = Open();
  Results expected = RunAll(engine.get(), Mix(*engine, Ask::kMeasures));
  auto requests = Mix(*engine, Ask::kMeasures);
  for (SequenceRequest& request : requests) EXPECT_OK(engine->Submit(request));
  auto finished = engine->Step();
  ASSERT_OK(finished.status());
  Results results;
  for (uint64_t id = 0; id < requests.size(); id += 3) (void)engine->Cancel(id);
  while (true) {
    for (SequenceResult& result : *finished) results[result.id] = std::move(result);
    if (engine->active() == 0) break;
    finished = engine->Step();
    ASSERT_OK(finished.status());
  }
  EXPECT_GE(results.size(), requests.size() / 2);
  for (const auto& [id, result] : results) {
    EXPECT_TRUE(result.measured == expected[id].measured) << "sequence " << id;
  }
}

INSTANTIATE_TEST_SUITE_P(Models, EngineMeasureTest, ::testing::ValuesIn(GpuVariants()),
                         [](const auto& info) { return info.param.name; });

}  // namespace
}  // namespace plumbline
