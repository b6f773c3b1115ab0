// Statistics of prompts from the CPU engine: those of the rows that a capture would hold, whatever
// shares the batch.
#include <algorithm>

#include "tests/unit/engine/engine_fixture.h"
#include "tests/unit/engine/measured_rows.h"

namespace plumbline {
namespace {

using ::plumbline::testing::MeasuredOf;
using ::plumbline::testing::OpenEngine;
using ::plumbline::testing::Prompt;
using ::plumbline::testing::Request;
using ::plumbline::testing::RunAll;
using ::plumbline::testing::RunOne;
using ::plumbline::testing::StatusIs;
using ::plumbline::testing::TinyBundle;
using ::testing::HasSubstr;
using ::testing::SizeIs;
using Results = std::map<uint64_t, SequenceResult>;

class MeasureTest : public ::testing::TestWithParam<ComputeDtype> {
 protected:
  std::unique_ptr<Engine> Open(int max_running = 256) {
    EngineOptions options;
    options.dtype = GetParam();
    options.max_running = max_running;
    return OpenEngine(bundle_, options);
  }

  // Prompts of one segment and of several; quantized ones and one with noise among them.
  static std::vector<SequenceRequest> Mix(const Engine& engine, bool measured) {
    std::vector<SequenceRequest> requests;
    for (uint64_t id = 0; id < 12; ++id) {
      const int length = 1 + static_cast<int>(id * 37 % 90);
      requests.push_back(Request(engine, id, Prompt(length, id % 4 + 1),
                                 id % 3 == 1 ? "*:int4.asym.token" : "*:fp", 3));
      requests.back().jitter_seed = id == 5 ? 9 : 0;
      if (!measured || id % 4 == 3) continue;
      requests.back().measure_layers = {LayerIndex(3), LayerIndex(0)};
    }
    return requests;
  }

  TinyBundle bundle_;
};
INSTANTIATE_TEST_SUITE_P(Dtypes, MeasureTest,
                         ::testing::Values(ComputeDtype::kF32, ComputeDtype::kBf16));

TEST_P(MeasureTest, EqualsTheStatisticsOfCapturedRows) {
  auto engine = Open();
  auto requests = Mix(*engine, true), captures = Mix(*engine, false);
  for (SequenceRequest& request : captures) request.capture_layers = {LayerIndex(0), LayerIndex(3)};
  Results measured = RunAll(engine.get(), requests), captured = RunAll(engine.get(), captures);
  for (const SequenceRequest& request : requests) {
    const SequenceResult& result = measured[request.id];
    ASSERT_THAT(result.measured, SizeIs(request.measure_layers.size()));
    for (size_t i = 0; i < result.measured.size(); ++i) {
      CapturedLayer rows = captured[request.id].captured[i];
      EXPECT_EQ(result.measured[i], MeasuredOf(rows, engine->shape()));
      rows.values[rows.values.size() / 2] += 0.5f;
      EXPECT_FALSE(result.measured[i] == MeasuredOf(rows, engine->shape()));
    }
  }
}

TEST_P(MeasureTest, DependsOnTheRequestAlone) {
  auto engine = Open();
  Results all = RunAll(engine.get(), Mix(*engine, true));
  auto reversed = Mix(*engine, true);
  std::reverse(reversed.begin(), reversed.end());
  auto narrow = Open(/*max_running=*/3);
  Results other = RunAll(narrow.get(), std::move(reversed));
  const Results plain = RunAll(engine.get(), Mix(*engine, false));
  for (SequenceRequest& request : Mix(*engine, true)) {
    const uint64_t id = request.id;
    EXPECT_EQ(all[id].measured, other[id].measured);
    EXPECT_EQ(all[id].logit_digest, plain.at(id).logit_digest) << "measuring moves no bit";
    auto alone = Open();
    EXPECT_EQ(RunOne(alone.get(), std::move(request)).measured, all[id].measured);
  }
}

TEST_P(MeasureTest, RefusesALayerThatTheModelHasNot) {
  auto engine = Open();
  SequenceRequest request = Request(*engine, 1, Prompt(5, 1), "*:fp");
  request.measure_layers = {LayerIndex(4)};
  EXPECT_THAT(engine->Submit(request), StatusIs(absl::StatusCode::kInvalidArgument,
                                                HasSubstr("measure layer 4 is outside [0, 4)")));
}

TEST_P(MeasureTest, PromptsAddUpToAllOfTheirRows) {
  auto engine = Open();
  auto requests = Mix(*engine, false);
  for (SequenceRequest& request : requests) request.capture_layers = {LayerIndex(2)};
  CapturedLayer rows;
  MeasuredLayer sum;
  rows.layer = LayerIndex(2);
  for (const auto& [id, result] : RunAll(engine.get(), requests)) {
    const CapturedLayer& captured = result.captured[0];
    rows.tokens += captured.tokens;
    rows.keys.insert(rows.keys.end(), captured.keys.begin(), captured.keys.end());
    rows.values.insert(rows.values.end(), captured.values.begin(), captured.values.end());
    AddMeasured(MeasuredOf(captured, engine->shape()), &sum);
  }
  const MeasuredLayer whole = MeasuredOf(rows, engine->shape());
  EXPECT_EQ(sum.layer, whole.layer);
  EXPECT_EQ(sum.tokens, whole.tokens);
  for (auto [a, b] : {std::pair(&sum.keys, &whole.keys), std::pair(&sum.values, &whole.values)}) {
    EXPECT_EQ(a->min, b->min);
    EXPECT_EQ(a->max, b->max);
    EXPECT_EQ(a->counts, b->counts);
    const std::vector<float> absmax = Absmax(*a);
    for (size_t c = 0; c < absmax.size(); ++c) {
      EXPECT_EQ(absmax[c], std::max(-b->min[c], b->max[c]));
      // Segments and merges err by a few hundred units of rounding at most (channel_stats_test.cc).
      const double unit = 0x1p-53 * absmax[c];
      EXPECT_NEAR(a->mean[c], b->mean[c], 400 * unit);
      EXPECT_NEAR(a->squares[c], b->squares[c], 2000 * unit * absmax[c] * whole.tokens);
    }
  }
}

}  // namespace
}  // namespace plumbline
