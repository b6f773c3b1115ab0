// What the GPU engine does when memory, weights or requests are not what they should be.
#include <algorithm>
#include <cmath>
#include <limits>

#include "services/engine/cuda/cuda_parts.h"
#include "tests/gpu/engine_fixture.h"

namespace plumbline {
namespace {

using ::plumbline::testing::GpuModel;
using ::plumbline::testing::GpuOptions;
using ::plumbline::testing::IsOk;
using ::plumbline::testing::OpenGpu;
using ::plumbline::testing::Prompt;
using ::plumbline::testing::Request;
using ::plumbline::testing::RunAll;
using ::plumbline::testing::RunOne;
using ::plumbline::testing::StatusIs;
using ::plumbline::testing::TinyBundle;
using ::plumbline::testing::TryOpenGpu;
using ::testing::HasSubstr;

// How many of a test's sequences are run; a multiple of 12.
uint64_t Few(uint64_t count) { return SmallRun() ? 12 : count; }

class EngineFaultsTest : public ::testing::Test {
 protected:
  void SetUp() override { SKIP_WITHOUT_GPU(); }
};

TEST_F(EngineFaultsTest, APoolBeyondTheGpuShrinksAndTheEngineWorks) {
  TinyBundle bundle(GpuModel());
  GpuOptions options;
  options.pool_bytes = int64_t{10} << 40;
  auto engine = OpenGpu(bundle, options);
  ASSERT_NE(engine, nullptr);
  EXPECT_EQ(RunOne(engine.get(), Request(*engine, 1, Prompt(9, 1, 504), "*:fp", 5)).tokens.size(),
            5u);
}

TEST_F(EngineFaultsTest, ASequenceBeyondThePoolIsRefusedAndOthersRun) {
  TinyBundle bundle(GpuModel());
  GpuOptions options;
  options.pool_bytes = 16 * 65536;  // 16 pages
  auto engine = OpenGpu(bundle, options);
  EXPECT_THAT(engine->Submit(Request(*engine, 1, Prompt(250, 1, 504), "*:fp", 40)),
              StatusIs(absl::StatusCode::kResourceExhausted));
  EXPECT_EQ(RunOne(engine.get(), Request(*engine, 2, Prompt(9, 1, 504), "*:fp", 5)).tokens.size(),
            5u);
}

TEST_F(EngineFaultsTest, AModelBeyondTheGpuSaysBothNumbersBeforeItAllocates) {
  ModelConfig config;
  config.family = "llama";
  config.num_layers = 126;
  config.num_heads = 128;
  config.num_kv_heads = 16;
  config.head_dim = 128;
  config.hidden_size = 16384;
  config.intermediate_size = 53248;
  config.vocab_size = 128256;
  config.max_context = 8192;
  EngineOptions options;
  options.dtype = ComputeDtype::kBf16;
  size_t free_before = 0, free_after = 0, all = 0;
  cudaMemGetInfo(&free_before, &all);
  const auto forward = CreateCudaForward(config, options, {}, [](const CudaWeights&) {
    ADD_FAILURE() << "weights were asked for";
    return absl::OkStatus();
  });
  cudaMemGetInfo(&free_after, &all);
  EXPECT_THAT(forward, StatusIs(absl::StatusCode::kResourceExhausted));
  EXPECT_THAT(std::string(forward.status().message()), HasSubstr("weights 8"));
  EXPECT_THAT(std::string(forward.status().message()), HasSubstr("bytes free"));
  EXPECT_NEAR(static_cast<double>(free_after), static_cast<double>(free_before), 64e6);
}

TEST_F(EngineFaultsTest, NoSuchGpuIsUnavailable) {
  TinyBundle bundle(GpuModel());
  EngineOptions options;
  options.bundle_dir = bundle.dir();
  CudaOptions cuda;
  cuda.device = 99;
  EXPECT_THAT(CreateCudaEngine(options, cuda), StatusIs(absl::StatusCode::kUnavailable));
}

TEST_F(EngineFaultsTest, AMissingTensorIsNamed) {
  TinyBundle bundle(GpuModel(), [](TinyBundle::Weights& weights) {
    weights.erase("model.layers.1.mlp.down_proj.weight");
  });
  const auto engine = TryOpenGpu(bundle.dir());
  EXPECT_THAT(engine, StatusIs(absl::StatusCode::kNotFound));
  EXPECT_THAT(std::string(engine.status().message()), HasSubstr("layers.1.mlp.down_proj"));
}

// Token 7's embedding is not a number: sequences that meet it end, others keep their bits, also
// those that get the ended ones' pages and slots.
TEST_F(EngineFaultsTest, NonFiniteLogitsEndTheirSequenceAlone) {
  TinyBundle sound(GpuModel());
  TinyBundle broken(GpuModel(), [](TinyBundle::Weights& weights) {
    auto& values = weights["model.embed_tokens.weight"].second;
    for (int i = 0; i < 256; ++i) values[7 * 256 + i] = std::numeric_limits<float>::quiet_NaN();
  });
  for (const char* plan : {"*:fp", "*:int4.asym.token", "*:int3.sym.tensor"}) {
    // The head is tied to the embedding, so that its column 7 makes every row of logits NaN.
    GpuOptions options;
    options.max_running = 8;
    auto engine = OpenGpu(broken, options);
    const auto result = RunOne(engine.get(), Request(*engine, 1, {7, 3, 2}, plan, 5));
    EXPECT_EQ(result.finish_reason, FinishReason::kNonFinite);
    EXPECT_TRUE(result.tokens.empty());
  }
  testing::TinyModel untied = GpuModel();
  untied.tied = false;
  TinyBundle clean(untied);
  TinyBundle poisoned(untied, [](TinyBundle::Weights& weights) {
    auto& values = weights["model.embed_tokens.weight"].second;
    for (int i = 0; i < 256; ++i) values[7 * 256 + i] = std::numeric_limits<float>::quiet_NaN();
  });
  const auto requests = [](const Engine& engine) {
    std::vector<SequenceRequest> made;
    for (uint64_t id = 0; id < Few(60); ++id) {
      std::vector<int32_t> prompt = Prompt(20 + static_cast<int>(id) % 9, id + 1, 504);
      for (int32_t& token : prompt) token = token == 7 ? 8 : token;
      if (id % 3 == 0) prompt[5] = 7;
      made.push_back(Request(engine, id, prompt, id % 2 == 0 ? "*:fp" : "*:int3.sym.tensor", 12));
    }
    return made;
  };
  GpuOptions options;
  options.max_running = 8;
  auto with = OpenGpu(poisoned, options);
  auto without = OpenGpu(clean, options);
  auto results = RunAll(with.get(), requests(*with));
  auto expected = RunAll(without.get(), requests(*without));
  int ended = 0, compared = 0;
  for (auto& [id, result] : results) {
    if (id % 3 == 0) {
      EXPECT_EQ(result.finish_reason, FinishReason::kNonFinite) << id;
      ++ended;
    } else if (std::find(expected[id].tokens.begin(), expected[id].tokens.end(), 7) ==
               expected[id].tokens.end()) {
      EXPECT_EQ(result.logit_digest, expected[id].logit_digest) << id;
      ++compared;
    }
  }
  EXPECT_EQ(ended, static_cast<int>(Few(60) / 3));
  EXPECT_GE(compared, static_cast<int>(Few(60) / 2));
}

// Held first tokens take pages that no sequence needs, never one that a sequence needs: whatever
// the pool, all run, and their bits are those without stems.
TEST_F(EngineFaultsTest, HeldStemsGiveWayToSequences) {
  TinyBundle bundle(GpuModel());
  const auto requests = [](const Engine& engine, int stems, bool told) {
    std::vector<SequenceRequest> made;
    for (uint64_t id = 0; id < Few(60); ++id) {
      const int length = id % 2 == 0 ? 60 : 33;
      std::vector<int32_t> prompt = Prompt(length, id % static_cast<uint64_t>(stems) + 1, 504);
      const std::vector<int32_t> own = Prompt(1 + static_cast<int>(id % 5), id + 50, 504);
      prompt.insert(prompt.end(), own.begin(), own.end());
      made.push_back(Request(engine, id, prompt, id % 3 == 0 ? "*:fp" : "*:int4.asym.token",
                             8 + static_cast<int>(id) % (SmallRun() ? 3 : 40)));
      if (told) made.back().stem_tokens = length;
    }
    return made;
  };
  for (const int stems : {4, 1, 30}) {
    if (SmallRun() && stems != 4) continue;
    auto without = OpenGpu(bundle);
    const auto expected = RunAll(without.get(), requests(*without, stems, false));
    EXPECT_EQ(without->stats().reused_rows, 0);
    // From two of the longest sequences (7 pages each) to more than all need.
    for (const int pages : {16, 17, 20, 23, 32, 47, 100, 1000}) {
      if (SmallRun() && pages != 23 && pages != 100) continue;
      SCOPED_TRACE(::testing::Message() << stems << " stems, " << pages << " pages");
      GpuOptions options;
      options.max_running = 16;
      options.pool_bytes = pages * 65536;
      auto engine = OpenGpu(bundle, options);
      EXPECT_EQ(
          testing::Differences(expected, RunAll(engine.get(), requests(*engine, stems, true))), 0);
      if (pages >= 100 && stems < 30 && !SmallRun()) {
        EXPECT_GT(engine->stats().reused_rows, 0);
      }
    }
  }
}

// Rows behind the stem that are not numbers do not reach those who share it; rows of the stem reach
// all who do, and nobody else.
TEST_F(EngineFaultsTest, NonFiniteRowsStayWithThoseWhoHaveThem) {
  testing::TinyModel untied = GpuModel();
  untied.tied = false;
  TinyBundle poisoned(untied, [](TinyBundle::Weights& weights) {
    auto& values = weights["model.embed_tokens.weight"].second;
    for (int i = 0; i < 256; ++i) values[7 * 256 + i] = std::numeric_limits<float>::quiet_NaN();
  });
  const auto requests = [](const Engine& engine, bool told) {
    std::vector<SequenceRequest> made;
    for (uint64_t id = 0; id < Few(48); ++id) {
      std::vector<int32_t> prompt = Prompt(45, id % 3 + 1, 504);
      const std::vector<int32_t> own = Prompt(9, id + 50, 504);
      prompt.insert(prompt.end(), own.begin(), own.end());
      for (int32_t& token : prompt) token = token == 7 ? 8 : token;
      if (id % 3 == 2) prompt[40] = 7;
      // The first of every stem too: the one that others lean on. Token 45 is the first behind the
      // stem, in one tile of attention with its last ones.
      if (id % 4 == 0) prompt[id % 8 == 0 ? 45 : 50] = 7;
      made.push_back(Request(engine, id, prompt, id % 2 == 0 ? "*:fp" : "*:int4.asym.token", 12));
      if (told) made.back().stem_tokens = 45;
    }
    return made;
  };
  GpuOptions options;
  options.max_running = 8;
  auto with = OpenGpu(poisoned, options);
  auto without = OpenGpu(poisoned, options);
  const auto results = RunAll(with.get(), requests(*with, true));
  const auto expected = RunAll(without.get(), requests(*without, false));
  EXPECT_GT(with->stats().reused_rows, SmallRun() ? 0 : 40 * 20);
  int sound = 0;
  for (const auto& [id, result] : results) {
    const auto& other = expected.at(id);
    EXPECT_EQ(result.finish_reason, other.finish_reason) << id;
    EXPECT_EQ(result.tokens, other.tokens) << id;
    if (id % 3 == 2 || id % 4 == 0) {
      EXPECT_EQ(result.finish_reason, FinishReason::kNonFinite) << id;
    } else if (other.finish_reason != FinishReason::kNonFinite) {
      EXPECT_EQ(result.logit_digest, other.logit_digest) << id;
      ++sound;
    }
  }
  EXPECT_GE(sound, static_cast<int>(Few(48) / 3));
}

TEST_F(EngineFaultsTest, RequestsThatDoNotFitAreRefused) {
  TinyBundle bundle(GpuModel());
  auto engine = OpenGpu(bundle);
  EXPECT_THAT(engine->Submit(Request(*engine, 1, Prompt(500, 1, 504), "*:fp", 40)),
              StatusIs(absl::StatusCode::kInvalidArgument));
  SequenceRequest calibrated = Request(*engine, 2, Prompt(5, 1, 504), "*:fp", 4);
  calibrated.layers = testing::Layers("*:int4.sym.tensor.calibrated(0123456789)", engine->shape());
  EXPECT_THAT(engine->Submit(std::move(calibrated)), StatusIs(absl::StatusCode::kInvalidArgument));
  EXPECT_EQ(engine->active(), 0);
}

}  // namespace
}  // namespace plumbline
