#include <cmath>
#include <filesystem>
#include <fstream>

#include "services/engine/cpu/cpu_model.h"
#include "tests/unit/engine/engine_fixture.h"

namespace plumbline {
namespace {

using ::plumbline::testing::IsOk;
using ::plumbline::testing::OpenEngine;
using ::plumbline::testing::Prompt;
using ::plumbline::testing::Request;
using ::plumbline::testing::RunAll;
using ::plumbline::testing::RunOne;
using ::plumbline::testing::StatusIs;
using ::plumbline::testing::TinyBundle;
using ::plumbline::testing::TinyModel;
using ::testing::AllOf;
using ::testing::HasSubstr;
using ::testing::SizeIs;

class CpuEngineTest : public ::testing::Test {
 protected:
  CpuEngineTest() : engine_(OpenEngine(bundle_)) {}

  SequenceRequest Cell(const std::string& plan, int max_new = 12) {
    return Request(*engine_, next_id_++, Prompt(30, 3), plan, max_new);
  }
  SequenceResult Run(SequenceRequest request) { return RunOne(engine_.get(), std::move(request)); }

  TinyBundle bundle_;
  std::unique_ptr<Engine> engine_;
  uint64_t next_id_ = 1;
};

TEST_F(CpuEngineTest, TellsItsShapeAndNumericsClass) {
  EXPECT_EQ(engine_->shape().num_layers, 4);
  EXPECT_EQ(engine_->shape().vocab_size, 97);
  EXPECT_THAT(engine_->numerics_class(),
              AllOf(HasSubstr("cpu/"), HasSubstr("dtype=fp32"), HasSubstr("libc=")));
}

TEST_F(CpuEngineTest, AVerdictStopsAtAPrefixOfTheFullAnswer) {
  const SequenceResult full = Run(Cell("*:int4.asym.token", 20));
  for (size_t stop : {1, 5, 19}) {
    SequenceRequest request = Cell("*:int4.asym.token", 20);
    size_t seen = 0;
    request.verdict_decided = [&seen, stop](int32_t) { return ++seen == stop; };
    const SequenceResult early = Run(std::move(request));
    EXPECT_EQ(early.finish_reason, FinishReason::kVerdict);
    EXPECT_EQ(early.tokens, std::vector<int32_t>(full.tokens.begin(), full.tokens.begin() + stop));
  }
}

TEST_F(CpuEngineTest, FormatsChangeTheAnswerAndTheShareOfQuantizedElementsIsTold) {
  const SequenceResult fp = Run(Cell("*:fp"));
  const SequenceResult keys = Run(Cell("*:int2.sym.tensor|fp"));
  const SequenceResult one_layer = Run(Cell("*:fp,1:int2.sym.tensor"));
  EXPECT_NE(fp.logit_digest, keys.logit_digest);
  EXPECT_NE(fp.logit_digest, one_layer.logit_digest);
  // 30 prompt tokens and 11 fed ones, 4 layers, keys and values, 2 heads of 16.
  EXPECT_EQ(fp.kv_elements, 41 * 4 * 2 * 32);
  EXPECT_EQ(fp.kv_elements_quantized, 0);
  EXPECT_EQ(keys.kv_elements_quantized, keys.kv_elements / 2);
  EXPECT_EQ(one_layer.kv_elements_quantized, one_layer.kv_elements / 4);
}

TEST_F(CpuEngineTest, WideFormatsStayCloserToUnquantizedThanNarrowOnes) {
  const SequenceResult fp = Run(Cell("*:fp", 16));
  const auto steps = [&](const std::string& plan) {
    SequenceRequest request = Cell(plan, 16);
    request.forced_tokens = fp.tokens;
    return Run(std::move(request)).steps;
  };
  const auto distance = [&](const std::string& plan) {
    double total = 0;
    const auto exact = steps("*:fp"), other = steps(plan);
    for (size_t i = 0; i < exact.size(); ++i) {
      total += std::abs(exact[i].top1_logit - other[i].top1_logit);
    }
    return total;
  };
  const double eight = distance("*:int8.sym.token"), two = distance("*:int2.sym.token");
  EXPECT_GT(eight, 0);
  EXPECT_LT(eight * 4, two);
}

// With exact prefill the prompt does not feel the format; the first token is chosen on exact
// states.
TEST_F(CpuEngineTest, ExactPrefillLeavesTheFirstStepUnquantized) {
  const SequenceResult fp = Run(Cell("*:fp", 1));
  EXPECT_EQ(Run(Cell("*:int2.sym.tensor.exact", 1)).logit_digest, fp.logit_digest);
  EXPECT_EQ(Run(Cell("*:int2.sym.tensor.post.exact", 1)).logit_digest, fp.logit_digest);
  EXPECT_NE(Run(Cell("*:int2.sym.tensor", 1)).logit_digest, fp.logit_digest);
  EXPECT_NE(Run(Cell("*:int2.sym.tensor.exact", 2)).logit_digest,
            Run(Cell("*:fp", 2)).logit_digest);
}

TEST_F(CpuEngineTest, PlaceBeforeOrAfterRopeMattersForKeys) {
  EXPECT_NE(Run(Cell("*:int3.sym.tensor|fp")).logit_digest,
            Run(Cell("*:int3.sym.tensor.post|fp")).logit_digest);
}

// The window is wider than the sequence, so nothing is quantized and nothing may differ.
TEST_F(CpuEngineTest, AWindowWiderThanTheSequenceIsUnquantizedBitForBit) {
  const SequenceResult fp = Run(Cell("*:fp"));
  for (const char* plan : {"*:int4.affine.channel.window128x32.post.perhead.exact|"
                           "int4.affine.group16.window128.perhead.exact",
                           "*:int4.affine.channel.window128x32|int4.affine.group16.window128"}) {
    const SequenceResult windowed = Run(Cell(plan));
    EXPECT_EQ(windowed.logit_digest, fp.logit_digest) << plan;
    EXPECT_EQ(windowed.kv_elements_quantized, 0);
  }
}

TEST_F(CpuEngineTest, JitterIsAFunctionOfItsSeed) {
  const auto digest = [this](uint64_t seed) {
    SequenceRequest request = Cell("*:int4.asym.token");
    request.jitter_seed = seed;
    return Run(std::move(request)).logit_digest;
  };
  EXPECT_EQ(digest(7), digest(7));
  EXPECT_NE(digest(7), digest(8));
  EXPECT_NE(digest(7), digest(0));
}

TEST_F(CpuEngineTest, JitterMovesUnquantizedLogitsOnlyALittle) {
  SequenceRequest plain = Cell("*:fp", 1), jittered = Cell("*:fp", 1);
  plain.want_steps = jittered.want_steps = true;
  jittered.jitter_seed = 3;
  const SequenceResult a = Run(std::move(plain)), b = Run(std::move(jittered));
  EXPECT_NE(a.logit_digest, b.logit_digest);
  EXPECT_NEAR(a.steps[0].top1_logit, b.steps[0].top1_logit, 1e-3);
}

TEST_F(CpuEngineTest, SamplingIsReproducibleAndSharesItsNoiseAcrossPlans) {
  const auto sample = [this](const std::string& plan, uint64_t stream) {
    SequenceRequest request = Cell(plan, 30);
    request.sampling.temperature = 1.5;
    request.sampling.seed = 4;
    request.sampling.stream = stream;
    return Run(std::move(request)).tokens;
  };
  EXPECT_EQ(sample("*:fp", 1), sample("*:fp", 1));
  EXPECT_NE(sample("*:fp", 1), sample("*:fp", 2));
  // Eight bits move logits little, so shared noise mostly draws the same first tokens.
  EXPECT_EQ(sample("*:fp", 1)[0], sample("*:int8.asym.token", 1)[0]);
}

TEST_F(CpuEngineTest, ForcingAnAnswerReplaysItsLogits) {
  const SequenceResult free = Run(Cell("*:int4.asym.token", 15));
  SequenceRequest request = Cell("*:int4.asym.token", 15);
  request.forced_tokens = free.tokens;
  const SequenceResult forced = Run(std::move(request));
  EXPECT_EQ(forced.logit_digest, free.logit_digest);
  for (const StepTrace& step : forced.steps) EXPECT_EQ(step.regret, 0);
}

TEST_F(CpuEngineTest, ScoringAgreesWithForcingTheSameTokens) {
  const std::vector<int32_t> text = Prompt(40, 9);
  SequenceRequest score = Cell("*:fp", 0);
  score.prompt_tokens = text;
  score.score_from = 0;
  const SequenceResult scored = Run(std::move(score));
  EXPECT_EQ(scored.nll_tokens, 39);
  // log softmax from below: the regret alone is a part of the likelihood.
  EXPECT_GT(scored.nll_sum / 39, 1.0);
  SequenceRequest late = Cell("*:fp", 0);
  late.prompt_tokens = text;
  late.score_from = 30;
  const SequenceResult tail = Run(std::move(late));
  EXPECT_EQ(tail.nll_tokens, 10);
  EXPECT_LT(tail.nll_sum, scored.nll_sum);
}

TEST_F(CpuEngineTest, CaptureIsWhatAttentionReadsOfAnUnquantizedSequence) {
  SequenceRequest request = Cell("*:fp", 3);
  request.capture_layers = {LayerIndex(1), LayerIndex(3)};
  const std::vector<int32_t> prompt = request.prompt_tokens;
  const SequenceResult result = Run(std::move(request));
  ASSERT_THAT(result.captured, SizeIs(2));
  EXPECT_EQ(result.captured[1].layer, LayerIndex(3));
  for (const CapturedLayer& captured : result.captured) {
    EXPECT_EQ(captured.tokens, 30);
    EXPECT_THAT(captured.keys, SizeIs(30 * 32));
    EXPECT_THAT(captured.values, SizeIs(30 * 32));
    EXPECT_THAT(captured.queries, SizeIs(30 * 64));
  }
  // The same prompt once more below the Engine interface, looking at what attention is given.
  EngineOptions options;
  options.bundle_dir = bundle_.dir();
  options.threads = 2;
  ASSERT_OK_AND_ASSIGN(auto model, CreateCpuForward<float>(options));
  std::map<int, std::pair<std::vector<float>, std::vector<float>>> seen;
  model->layer_runner().set_probe(
      [&seen](int layer, const LayerRun<float>& run, AttentionView<float> view) {
        seen[layer] = {{view.keys, view.keys + run.rows * 32},
                       {view.values, view.values + run.rows * 32}};
      });
  SequenceRequest again = Cell("*:fp", 1);
  again.prompt_tokens = prompt;
  ASSERT_OK_AND_ASSIGN(auto state, model->Open(again));
  EngineStats stats;
  ASSERT_OK(model->Run({{state.get(), prompt, 0, true, {}}}, &stats).status());
  for (const CapturedLayer& captured : result.captured) {
    const auto& [keys, values] = seen.at(captured.layer.value());
    EXPECT_EQ(captured.values, values);
    // Keys are captured before rotation; position 0 is not rotated, others keep each pair's norm.
    for (int i = 0; i < 32; ++i) EXPECT_EQ(captured.keys[i], keys[i]);
    for (int pair = 0; pair < 8; ++pair) {
      const size_t a = 29 * 32 + pair, b = a + 8;
      EXPECT_NEAR(std::hypot(captured.keys[a], captured.keys[b]), std::hypot(keys[a], keys[b]),
                  1e-5);
      EXPECT_NE(captured.keys[a], keys[a]);
    }
  }
}

TEST_F(CpuEngineTest, RefusesWhatDoesNotFitTheModel) {
  SequenceRequest bad_token = Cell("*:fp");
  bad_token.prompt_tokens[4] = 97;
  EXPECT_THAT(engine_->Submit(bad_token),
              StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr("[4] = 97")));
  SequenceRequest too_long = Cell("*:fp", 500);
  EXPECT_THAT(engine_->Submit(too_long),
              StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr("context of 512")));
  SequenceRequest calibrated = Cell("*:fp");
  calibrated.layers[2].key.type = KvType::kInt4;
  calibrated.layers[2].key.symmetry = Symmetry::kSym;
  calibrated.layers[2].key.granularity = Granularity::kTensor;
  calibrated.layers[2].key.scope = Scope::kCalibrated;
  EXPECT_THAT(engine_->Submit(calibrated),
              StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr("layer 2")));
  EXPECT_EQ(engine_->active(), 0);
}

TEST_F(CpuEngineTest, ASequenceLargerThanThePoolIsResourceExhausted) {
  EngineOptions options;
  options.kv_pool_bytes = 10000;
  auto engine = OpenEngine(bundle_, options);
  EXPECT_THAT(engine->Submit(Request(*engine, 1, Prompt(30, 3), "*:fp", 100)),
              StatusIs(absl::StatusCode::kResourceExhausted, HasSubstr("10000")));
  EXPECT_THAT(RunOne(engine.get(), Request(*engine, 2, Prompt(3, 3), "*:fp", 2)).tokens, SizeIs(2));
}

TEST(CpuEngineNanTest, ANanWeightEndsTheSequenceAsNonFinite) {
  const TinyBundle bundle({}, [](TinyBundle::Weights& weights) {
    weights["model.layers.2.mlp.down_proj.weight"].second[5] = std::nanf("");
  });
  auto engine = OpenEngine(bundle);
  for (const char* plan : {"*:fp", "*:int4.asym.token", "*:int3.sym.tensor"}) {
    const SequenceResult result = RunOne(engine.get(), Request(*engine, 1, Prompt(9, 1), plan));
    EXPECT_EQ(result.finish_reason, FinishReason::kNonFinite) << plan;
    EXPECT_THAT(result.tokens, SizeIs(0));
  }
}

TEST(CpuEngineLoadTest, NamesWhatIsWrongWithTheWeights) {
  const auto status = [](std::function<void(TinyBundle::Weights&)> edit) {
    const TinyBundle bundle({}, std::move(edit));
    EngineOptions options;
    options.bundle_dir = bundle.dir();
    return CreateCpuEngine(options).status();
  };
  EXPECT_THAT(
      status([](auto& w) { w.erase("model.layers.1.mlp.up_proj.weight"); }),
      StatusIs(absl::StatusCode::kNotFound, HasSubstr("model.layers.1.mlp.up_proj.weight")));
  EXPECT_THAT(status([](auto& w) {
                w["model.norm.weight"] = {{32}, std::vector<float>(32)};
              }),
              StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr("model.norm.weight")));
  EXPECT_THAT(status([](auto& w) {
                w["model.layers.0.self_attn.q_proj.bias"] = {{64}, std::vector<float>(64)};
              }),
              StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr("q_proj.bias")));
}

TEST(CpuEngineLoadTest, AChangedWeightFileIsDataLossUnlessDigestsAreNotAskedFor) {
  const TinyBundle bundle;
  const std::string path = bundle.dir() + "/model.safetensors";
  const auto size = static_cast<std::streamoff>(std::filesystem::file_size(path));
  std::fstream file(path, std::ios::in | std::ios::out | std::ios::binary);
  file.seekg(size - 1);
  const char last = static_cast<char>(file.get());
  file.seekp(size - 1);
  file.put(static_cast<char>(last ^ 1));
  file.close();
  EngineOptions options;
  options.bundle_dir = bundle.dir();
  EXPECT_THAT(CreateCpuEngine(options),
              StatusIs(absl::StatusCode::kDataLoss, HasSubstr("model.safetensors")));
  options.verify_digests = false;
  EXPECT_THAT(CreateCpuEngine(options), IsOk());
}

TEST(CpuEngineLoadTest, RefusesOptionsOutsideTheirRange) {
  const TinyBundle bundle;
  EngineOptions options;
  options.bundle_dir = bundle.dir();
  options.max_running = 0;
  EXPECT_THAT(CreateCpuEngine(options),
              StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr("max_running")));
  options.max_running = 1;
  options.threads = -3;
  EXPECT_THAT(CreateCpuEngine(options),
              StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr("-3")));
  options.bundle_dir = "/nonexistent/model";
  options.threads = 1;
  EXPECT_THAT(CreateCpuEngine(options),
              StatusIs(absl::StatusCode::kNotFound, HasSubstr("/nonexistent/model")));
}

}  // namespace
}  // namespace plumbline
