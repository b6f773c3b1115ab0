// Prompts that begin alike share pages of the cache and compute what follows alone: that changes no
// bit, whatever shares the batch, is held, is cancelled or is thrown out.
#include <algorithm>
#include <random>

#include "tests/gpu/engine_fixture.h"

namespace plumbline {
namespace {

using ::plumbline::testing::Differences;
using ::plumbline::testing::GpuOptions;
using ::plumbline::testing::GpuVariant;
using ::plumbline::testing::GpuVariants;
using ::plumbline::testing::OpenGpu;
using ::plumbline::testing::Prompt;
using ::plumbline::testing::Request;
using ::plumbline::testing::RunAll;
using ::plumbline::testing::RunOne;
using ::plumbline::testing::TinyBundle;
using Results = std::map<uint64_t, SequenceResult>;

struct StemPlan {
  const char* text;
  bool shares;  // its stored rows stand alone
};
const StemPlan kPlans[] = {{"*:fp", true},
                           {"*:int4.asym.token", true},
                           {"*:fp,2:int3.sym.group16", true},
                           {"*:int8.asym.token.post|fp8_e4m3", true},
                           {"*:int3.asym.token.sink4.hadamard", true},
                           {"*:int5.asym.token.native.s16|int6.affine.group32.sb16", true},
                           {"*:fp,1:fp|fp8_e5m2.torchcast", true},
                           {"*:fp,2:int3.sym.tensor", false},
                           {"*:int4.sym.channel.prompt", false},
                           {"*:int4.asym.token.exact", false},
                           {"*:int4.affine.channel.window16x8|int4.affine.token.window16", false}};
constexpr int kPlanCount = sizeof(kPlans) / sizeof(kPlans[0]);
// Less than a page, a page, pages and a part, and more than attention takes in one piece; held are
// whole tiles of attention: 8, 16, 40, 64 and 296 of them.
constexpr int kStems[] = {12, 16, 43, 64, 299};
constexpr int kStemCount = sizeof(kStems) / sizeof(kStems[0]);

int StemOf(uint64_t id) { return SmallRun() ? 43 : kStems[id / kPlanCount % kStemCount]; }
int64_t HeldOf(int stem) { return stem / 8 * 8; }
int Cells() { return kPlanCount * (SmallRun() ? 2 : 6 * kStemCount); }
bool Declines(uint64_t id) { return id % 29 == 4 || id % 31 == 7; }
// Tokens of the prompt that a run may start behind.
int64_t Reusable(uint64_t id) {
  return kPlans[id % kPlanCount].shares && !Declines(id) ? HeldOf(StemOf(id)) : 0;
}

// All plans behind all stems; some sampled, some with noise (its own stems), some with a scored
// prompt or a capture, which share nothing. `changed`: another last token of what is held.
std::vector<SequenceRequest> Requests(const Engine& engine, bool stems, bool changed = false) {
  std::vector<SequenceRequest> requests;
  for (uint64_t id = 0; id < static_cast<uint64_t>(Cells()); ++id) {
    const int stem = StemOf(id);
    std::vector<int32_t> prompt = Prompt(stem, static_cast<uint32_t>(stem), 504);
    if (changed) {
      int32_t& last = prompt[HeldOf(stem) - 1];
      last = (last + 1) % 504;
    }
    const std::vector<int32_t> own =
        Prompt(1 + static_cast<int>(id * 7 % 40), static_cast<uint32_t>(id % 13) + 50, 504);
    prompt.insert(prompt.end(), own.begin(), own.end());
    requests.push_back(Request(engine, id, std::move(prompt), kPlans[id % kPlanCount].text,
                               SmallRun() ? 2 : 3 + static_cast<int>(id) % 7));
    SequenceRequest& request = requests.back();
    if (stems) request.stem_tokens = stem;
    if (id % 5 == 2) {
      request.sampling.temperature = 0.9;
      request.sampling.stream = id;
    }
    if (id % 6 == 5) request.jitter_seed = 9;
    if (id % 29 == 4) request.score_from = 1;
    if (id % 31 == 7) request.capture_layers = {LayerIndex(1)};
  }
  return requests;
}

class EngineStemsTest : public ::testing::TestWithParam<GpuVariant> {
 protected:
  void SetUp() override { SKIP_WITHOUT_GPU(); }
  EngineStemsTest() : bundle_(GetParam().model) {}

  GpuOptions Options(int max_running = 256) {
    GpuOptions options;
    options.dtype = GetParam().dtype;
    options.max_running = max_running;
    options.prefix_bytes = int64_t{1} << 29;
    return options;
  }
  int64_t PageBytes() const {
    const testing::TinyModel& m = GetParam().model;
    const int64_t element = GetParam().dtype == ComputeDtype::kF32 ? 4 : 2;
    return int64_t{2} * m.layers * m.kv_heads * m.head_dim * 16 * element;
  }
  // One at a time, nothing shared; computed once a model.
  const Results& Alone() {
    static auto& all = *new std::map<std::string, Results>();
    Results& results = all[GetParam().name];
    if (!results.empty()) return results;
    GpuOptions options = Options(1);
    options.prefix_bytes = 0;
    auto engine = OpenGpu(bundle_, options);
    for (SequenceRequest& request : Requests(*engine, true)) {
      const uint64_t id = request.id;
      results[id] = RunOne(engine.get(), std::move(request));
    }
    EXPECT_EQ(engine->stats().reused_rows, 0);
    return results;
  }
  static int64_t AllReusable() {
    int64_t rows = 0;
    for (int id = 0; id < Cells(); ++id) rows += Reusable(id);
    return rows;
  }

  TinyBundle bundle_;
};

TEST_P(EngineStemsTest, ReusedFirstTokensGiveTheBitsOfEachSequenceAlone) {
  const Results& alone = Alone();
  ASSERT_EQ(alone.size(), static_cast<size_t>(Cells()));
  {
    auto engine = OpenGpu(bundle_, Options());
    EXPECT_EQ(Differences(alone, RunAll(engine.get(), Requests(*engine, true))), 0) << "together";
    const int64_t first = engine->stats().reused_rows;
    std::printf("%s: %lld of %lld rows of stems reused\n", GetParam().name,
                static_cast<long long>(first), static_cast<long long>(AllReusable()));
    EXPECT_GT(first, AllReusable() / 8);
    EXPECT_EQ(Differences(alone, RunAll(engine.get(), Requests(*engine, true))), 0) << "refilled";
    EXPECT_EQ(engine->stats().reused_rows - first, AllReusable());
    EXPECT_EQ(Differences(alone, RunAll(engine.get(), Requests(*engine, false))), 0)
        << "not told of stems";
    EXPECT_EQ(engine->stats().reused_rows - first, AllReusable());
  }
  {
    auto engine = OpenGpu(bundle_, Options(9));
    std::vector<SequenceRequest> requests = Requests(*engine, true);
    std::shuffle(requests.begin(), requests.end(), std::mt19937(5));
    EXPECT_EQ(Differences(alone, RunAll(engine.get(), std::move(requests))), 0) << "shuffled, 9";
    EXPECT_GT(engine->stats().reused_rows, AllReusable() / 8);
  }
  {
    GpuOptions options = Options(100);
    options.wave_rows = 1;
    auto engine = OpenGpu(bundle_, options);
    EXPECT_EQ(Differences(alone, RunAll(engine.get(), Requests(*engine, true))), 0)
        << "a prompt a step";
  }
}

// Little room for pages, for hidden states, or for both: less is reused, nothing fails.
TEST_P(EngineStemsTest, LittleRoomChangesNothingButWhatIsReused) {
  const Results& alone = Alone();
  for (const int64_t pool : {int64_t{1} << 30, int64_t{8000000}, int64_t{1}}) {
    for (const int64_t prefix : {int64_t{1} << 29, int64_t{900000}, int64_t{1000}}) {
      if (SmallRun() && (pool != 1 || prefix == 1000)) continue;
      SCOPED_TRACE(::testing::Message() << "pool " << pool << ", states " << prefix);
      GpuOptions options = Options(pool == 1 ? 40 : 256);
      // At least what the longest sequence needs: 348 positions, keys before rotation too.
      options.pool_bytes = std::max<int64_t>(pool, 44 * PageBytes());
      options.prefix_bytes = prefix;
      auto engine = OpenGpu(bundle_, options);
      EXPECT_EQ(Differences(alone, RunAll(engine.get(), Requests(*engine, true))), 0);
      if (pool == int64_t{1} << 30) {
        EXPECT_GT(engine->stats().reused_rows, 0);
      }
      EXPECT_EQ(Differences(alone, RunAll(engine.get(), Requests(*engine, true))), 0) << "again";
    }
  }
}

// Those whose pages others read go, in the middle of their answers, and their room is used by
// strangers at once.
TEST_P(EngineStemsTest, CancellingTheSequenceThatOthersLeanOnChangesNothing) {
  const Results& alone = Alone();
  GpuOptions options = Options(48);
  options.pool_bytes = 260 * PageBytes();
  auto engine = OpenGpu(bundle_, options);
  std::vector<SequenceRequest> requests = Requests(*engine, true);
  Results results;
  uint64_t stranger = 100000;
  int cancelled = 0;
  for (size_t next = 0, step = 0; next < requests.size() || engine->active() > 0; ++step) {
    for (int i = 0; i < 5 && next < requests.size(); ++i) {
      // A leader with the same stem and plan as the next, and a long answer that it never ends.
      SequenceRequest leader = requests[next];
      leader.id = 200000 + next;
      leader.max_new_tokens = SmallRun() ? 9 : 40;
      ASSERT_OK(engine->Submit(std::move(leader)));
      ASSERT_OK(engine->Submit(std::move(requests[next++])));
    }
    auto finished = engine->Step();
    ASSERT_OK(finished.status());
    for (SequenceResult& result : *finished) results[result.id] = std::move(result);
    if (step % 3 == 2 && next < requests.size()) {
      for (size_t id = 200000; id < 200000 + next; ++id) cancelled += engine->Cancel(id).ok();
      ++stranger;
      ASSERT_OK(engine->Submit(
          Request(*engine, stranger, Prompt(60, stranger, 504), "*:int4.asym.token", 9)));
    }
  }
  EXPECT_GT(cancelled, Cells() / 2);
  if (!SmallRun()) {
    EXPECT_GT(engine->stats().reused_rows, 0);
  }
  Results own;
  for (auto& [id, result] : results) {
    if (id < 100000) own[id] = std::move(result);
  }
  EXPECT_EQ(Differences(alone, own), 0);
}

// The comparison sees one changed token of what is shared, in every sequence.
TEST_P(EngineStemsTest, AWrongStemWouldBeSeen) {
  auto engine = OpenGpu(bundle_, Options());
  const Results expected = RunAll(engine.get(), Requests(*engine, true));
  EXPECT_EQ(Differences(expected, RunAll(engine.get(), Requests(*engine, true, true))), Cells());
}

// A stem's hidden states that a plan quantized early has left serve no plan that keeps deeper ones.
TEST(EngineStemStatesTest, ShallowStatesServeNoDeeperPlan) {
  SKIP_WITHOUT_GPU();
  const TinyBundle bundle(testing::GpuModel());
  const auto request = [](const Engine& engine, uint64_t id, const char* plan, bool stem) {
    std::vector<int32_t> prompt = Prompt(48, stem ? 1 : static_cast<uint32_t>(id) + 9, 504);
    const std::vector<int32_t> own = Prompt(12, static_cast<uint32_t>(id) + 50, 504);
    prompt.insert(prompt.end(), own.begin(), own.end());
    SequenceRequest made = Request(engine, id, std::move(prompt), plan, 6);
    if (stem) made.stem_tokens = 48;
    return made;
  };
  const auto run = [&](int64_t prefix_bytes, Results* results) {
    GpuOptions options;
    options.prefix_bytes = prefix_bytes;
    auto engine = OpenGpu(bundle, options);
    std::vector<int64_t> reused;
    const auto one = [&](uint64_t key, uint64_t id, const char* plan, bool stem) {
      const int64_t before = engine->stats().reused_rows;
      (*results)[key] = RunOne(engine.get(), request(*engine, id, plan, stem));
      reused.push_back(engine->stats().reused_rows - before);
    };
    one(1, 1, "*:fp", true);  // the stem's pages for this plan, its states of every layer
    one(2, 2, "*:fp", true);
    one(3, 3, "*:fp", false);  // strangers push those states out
    one(4, 4, "*:fp", false);
    one(5, 5, "*:fp,1:fp|fp8_e5m2.torchcast", true);  // states of the first layer alone
    one(6, 6, "*:fp", true);
    one(7, 6, "*:fp,3:int3.sym.tensor", true);  // starts from what the one before has kept
    return reused;
  };
  Results expected, results;
  const std::vector<int64_t> none(7, 0);
  EXPECT_EQ(run(0, &expected), none);
  // Room for two prompts of all layers (569,344 bytes each) or one with its stem's (442,368).
  EXPECT_EQ(run(1250000, &results), (std::vector<int64_t>{0, 48, 0, 0, 0, 0, 0}));
  EXPECT_EQ(Differences(expected, results), 0);
}

INSTANTIATE_TEST_SUITE_P(Models, EngineStemsTest, ::testing::ValuesIn(GpuVariants()),
                         [](const auto& info) { return info.param.name; });

}  // namespace
}  // namespace plumbline
