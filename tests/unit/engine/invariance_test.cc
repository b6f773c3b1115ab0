// A sequence's tokens and logit bits depend on its request alone: alone, in a batch, in another
// order, with other neighbours, at another occupancy, with and without reused prompt states.
#include <algorithm>

#include "tests/unit/engine/engine_fixture.h"

namespace plumbline {
namespace {

using ::plumbline::testing::OpenEngine;
using ::plumbline::testing::Prompt;
using ::plumbline::testing::Request;
using ::plumbline::testing::RunAll;
using ::plumbline::testing::RunOne;
using ::plumbline::testing::TinyBundle;
using ::plumbline::testing::TinyModel;
using Results = std::map<uint64_t, SequenceResult>;

const std::vector<std::string>& Plans() {
  static const auto& plans =
      *new std::vector<std::string>{"*:fp",
                                    "*:int4.asym.token",
                                    "*:fp,2:int3.sym.tensor",
                                    "*:int3.sym.group16",
                                    "*:int4.sym.channel.prompt",
                                    "*:int8.asym.token.post|fp",
                                    "*:fp|fp8_e4m3",
                                    "*:int4.affine.channel.window16x8.post.perhead.exact|"
                                    "int4.affine.group16.window16.perhead.exact"};
  return plans;
}

// One request for each of 24 sequences of mixed lengths and plans; every third is sampled.
std::vector<SequenceRequest> Mix(const Engine& engine) {
  std::vector<SequenceRequest> requests;
  for (uint64_t id = 0; id < 24; ++id) {
    const int length = 1 + static_cast<int>(id * 13 % 70);
    SequenceRequest request =
        Request(engine, id, Prompt(length, id % 5 + 1), Plans()[id % Plans().size()], 6 + id % 9);
    if (id % 3 == 2) {
      request.sampling.temperature = 0.9;
      request.sampling.top_p = 0.95;
      request.sampling.stream = id;
    }
    requests.push_back(std::move(request));
  }
  return requests;
}

void ExpectSame(const Results& a, const Results& b) {
  ASSERT_EQ(a.size(), b.size());
  for (const auto& [id, result] : a) {
    const SequenceResult& other = b.at(id);
    EXPECT_EQ(result.tokens, other.tokens) << "sequence " << id;
    EXPECT_EQ(result.logit_digest, other.logit_digest) << "sequence " << id;
    EXPECT_EQ(result.kv_elements, other.kv_elements);
    EXPECT_EQ(result.kv_elements_quantized, other.kv_elements_quantized);
  }
}

struct Variant {
  const char* name;
  TinyModel model;
  ComputeDtype dtype;
};

void PrintTo(const Variant& variant, std::ostream* out) { *out << variant.name; }

class InvarianceTest : public ::testing::TestWithParam<Variant> {
 protected:
  InvarianceTest() : bundle_(GetParam().model) {}

  std::unique_ptr<Engine> Open(int max_running = 256, int64_t prefix_bytes = 1 << 24,
                               int64_t pool = int64_t{1} << 30) {
    EngineOptions options;
    options.dtype = GetParam().dtype;
    options.max_running = max_running;
    options.prefix_cache_bytes = prefix_bytes;
    options.kv_pool_bytes = pool;
    return OpenEngine(bundle_, options);
  }

  Results Alone() {
    auto engine = Open(1, 0);
    Results results;
    for (SequenceRequest& request : Mix(*engine)) {
      const uint64_t id = request.id;
      results[id] = RunOne(engine.get(), std::move(request));
    }
    return results;
  }

  TinyBundle bundle_;
};

TEST_P(InvarianceTest, BatchesOfAnySizeAndOrderGiveTheBitsOfEachSequenceAlone) {
  const Results alone = Alone();
  for (int max_running : {2, 7, 256}) {
    auto engine = Open(max_running);
    std::vector<SequenceRequest> requests = Mix(*engine);
    if (max_running == 7) std::reverse(requests.begin(), requests.end());
    if (max_running == 256) std::rotate(requests.begin(), requests.begin() + 11, requests.end());
    SCOPED_TRACE(max_running);
    ExpectSame(alone, RunAll(engine.get(), std::move(requests)));
  }
}

TEST_P(InvarianceTest, OtherNeighboursChangeNothing) {
  const Results alone = Alone();
  auto engine = Open();
  std::vector<SequenceRequest> requests;
  for (SequenceRequest& request : Mix(*engine)) {
    if (request.id % 4 == 1) requests.push_back(std::move(request));
    SequenceRequest filler =
        Request(*engine, 1000 + requests.size(), Prompt(33, 90 + requests.size()), "*:fp", 20);
    if (requests.size() % 2 == 1) requests.push_back(std::move(filler));
  }
  const Results mixed = RunAll(engine.get(), std::move(requests));
  int compared = 0;
  for (const auto& [id, result] : mixed) {
    if (id >= 1000) continue;
    EXPECT_EQ(result.logit_digest, alone.at(id).logit_digest) << "sequence " << id;
    ++compared;
  }
  EXPECT_EQ(compared, 6);
}

TEST_P(InvarianceTest, LateArrivalsAndCancelledNeighboursChangeNothing) {
  const Results alone = Alone();
  auto engine = Open(5);
  Results results;
  std::vector<SequenceRequest> requests = Mix(*engine);
  ASSERT_OK(engine->Submit(Request(*engine, 500, Prompt(40, 77), "*:int4.asym.token", 100)));
  size_t next = 0;
  for (int step = 0; next < requests.size() || engine->active() > 0; ++step) {
    if (next < requests.size()) {
      ASSERT_OK(engine->Submit(std::move(requests[next++])));
    }
    auto finished = engine->Step();
    ASSERT_OK(finished.status());
    for (SequenceResult& result : *finished) results[result.id] = std::move(result);
    if (step == 9) {
      ASSERT_OK(engine->Cancel(500));
    }
  }
  ExpectSame(alone, results);
}

// Eleven cells that share one prompt and part at different layers.
TEST_P(InvarianceTest, ReusedPromptStatesGiveTheSameBits) {
  const auto ablation = [](const Engine& engine) {
    std::vector<SequenceRequest> requests;
    uint64_t id = 0;
    for (const char* plan : {"*:fp,0:int3.sym.tensor", "*:fp,1:int3.sym.tensor",
                             "*:fp,2:int3.sym.tensor", "*:fp,3:int3.sym.tensor", "*:fp"}) {
      for (uint32_t prompt : {1, 2}) {
        requests.push_back(Request(engine, id++, Prompt(40, prompt), plan, 10));
      }
    }
    SequenceRequest jitter = Request(engine, id++, Prompt(40, 1), "*:fp,2:int3.sym.tensor", 10);
    jitter.jitter_seed = 5;
    requests.push_back(std::move(jitter));
    return requests;
  };
  auto without = Open(256, 0);
  const Results expected = RunAll(without.get(), ablation(*without));
  for (int64_t bytes : {int64_t{1} << 24, int64_t{300000}, int64_t{1000}}) {
    auto with = Open(256, bytes);
    SCOPED_TRACE(bytes);
    ExpectSame(expected, RunAll(with.get(), ablation(*with)));
    ExpectSame(expected, RunAll(with.get(), ablation(*with)));  // everything is there already
  }
  EXPECT_NE(expected.at(10).logit_digest, expected.at(4).logit_digest);
}

// Prompts that begin with the same 17 tokens, under plans that let those rows be shared and under
// plans that do not.
TEST_P(InvarianceTest, ReusedStemsGiveTheSameBits) {
  const std::vector<std::string> plans = {"*:fp",
                                          "*:int4.asym.token",
                                          "*:fp,2:int3.sym.group16",
                                          "*:int8.asym.token.post|fp8_e4m3",
                                          "*:int3.asym.token.sink4.hadamard",
                                          "*:fp,2:int3.sym.tensor",
                                          "*:int4.sym.channel.prompt",
                                          "*:int4.asym.token.exact"};
  const auto requests = [&](const Engine& engine, int stem_tokens) {
    std::vector<SequenceRequest> made;
    for (uint64_t id = 0; id < 4 * plans.size(); ++id) {
      std::vector<int32_t> prompt = Prompt(17, 3);
      const std::vector<int32_t> own = Prompt(1 + static_cast<int>(id) % 9, id % 3 + 50);
      prompt.insert(prompt.end(), own.begin(), own.end());
      made.push_back(Request(engine, id, prompt, plans[id % plans.size()], 8));
      made.back().stem_tokens = stem_tokens;
      made.back().jitter_seed = id / plans.size() == 3 ? 9 : 0;
    }
    return made;
  };
  auto without = Open(256, 0);
  const Results expected = RunAll(without.get(), requests(*without, 0));
  // The small cache holds stems but not the prompts whose hidden states they need.
  for (int64_t bytes : {int64_t{1} << 24, int64_t{150000}, int64_t{1000}}) {
    for (int max_running : {256, 3}) {
      auto with = Open(max_running, bytes);
      SCOPED_TRACE(bytes);
      ExpectSame(expected, RunAll(with.get(), requests(*with, 17)));
      if (bytes == 1 << 24) {
        EXPECT_GT(with->stats().reused_rows, 17 * 8);
      }
      ExpectSame(expected, RunAll(with.get(), requests(*with, 17)));
    }
  }
}

TEST_P(InvarianceTest, ASmallPoolOnlyMakesSequencesWait) {
  const Results alone = Alone();
  auto engine = Open(256, 1 << 24, 500000);
  ExpectSame(alone, RunAll(engine.get(), Mix(*engine)));
}

TinyModel Qwen() {
  TinyModel model;
  model.family = "qwen2";
  model.kv_heads = 1;
  return model;
}
TinyModel Untied() {
  TinyModel model;
  model.tied = false;
  model.llama3_rope = true;
  model.heads = 6;
  model.hidden = 96;
  return model;
}

INSTANTIATE_TEST_SUITE_P(Models, InvarianceTest,
                         ::testing::Values(Variant{"llama_fp32", {}, ComputeDtype::kF32},
                                           Variant{"llama_bf16", {}, ComputeDtype::kBf16},
                                           Variant{"qwen2_fp32", Qwen(), ComputeDtype::kF32},
                                           Variant{"untied_llama3_bf16", Untied(),
                                                   ComputeDtype::kBf16}),
                         [](const auto& info) { return info.param.name; });

}  // namespace
}  // namespace plumbline
