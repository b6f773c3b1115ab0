#include <algorithm>
#include <cstdio>
#include <random>
#include <vector>

#include "tests/gpu/attention_reference.h"
#include "tests/gpu/attention_scene.h"
#include "tests/gpu/small_run.h"

namespace plumbline::cuda {
namespace {

// The largest error over its tolerance.
template <typename T>
double WorstError(const SceneData<T>& data, const std::vector<SceneRun>& runs,
                  const SceneOutput<T>& out, int row_step = 1, bool forget_one = false) {
  double worst = 0;
  const int hd = data.dims.head_dim;
  for (const SceneRun& run : runs) {
    if (run.start_layer > kSceneLayer) continue;
    for (int i = run.rows - 1; i >= 0; i -= row_step) {
      const int position = run.first + i;
      const std::vector<T>& got = out.at({run.sequence, position});
      for (int head = 0; head < data.dims.heads; ++head) {
        const HeadReference want = Reference(data, run, position, head, forget_one ? position : -1);
        for (int c = 0; c < hd; ++c) {
          const double error = std::abs(kernels::ToFloat(got[head * hd + c]) - want.out[c]);
          const double ratio = error / want.tolerance[c];
          worst = std::isnan(ratio) ? INFINITY : std::max(worst, ratio);
        }
      }
    }
  }
  return worst;
}

// Prompts and generated tokens around every boundary of pages, warps and splits.
std::vector<SceneRun> MixedRuns() {
  std::vector<SceneRun> runs;
  int sequence = 0;
  for (int first :
       {0, 1, 14, 15, 16, 17, 62, 63, 64, 255, 256, 300, 1022, 1023, 1024, 1025, 2100}) {
    runs.push_back({sequence++, first, 1, false, 0, 0, sequence % 4 == 0 ? 2 : 0});
  }
  runs.push_back({sequence++, 0, 37, true, 0});
  runs.push_back({sequence++, 0, 1, true, 1});
  runs.push_back({sequence++, 0, 21, true, 1, 0, 1});
  runs.push_back({sequence++, 5, 20, true, 2});
  runs.push_back({sequence++, 1017, 12, true, 0});
  runs.push_back({sequence++, 0, 6, true, 0, kSceneLayer + 1});
  runs.push_back({sequence++, 9, 1, false, 0, kSceneLayer});
  return runs;
}

// Under a slow tool every third, the second first.
std::vector<int> SomeOf(const std::vector<int>& all) {
  if (!SmallRun()) return all;
  std::vector<int> some;
  for (size_t i = 1; i < all.size(); i += 3) some.push_back(all[i]);
  return some;
}

template <typename T>
class AttentionTest : public testing::Test {
 protected:
  void SetUp() override { PLUMB_NEEDS_GPU(); }
};
using Dtypes = testing::Types<float, Bf16>;
TYPED_TEST_SUITE(AttentionTest, Dtypes);

TYPED_TEST(AttentionTest, EqualsDoublesForEveryShape) {
  const std::vector<SceneRun> runs = MixedRuns();
  for (int head_dim : {64, 80, 96, 128, 256}) {
    for (int group : SomeOf({1, 2, 3, 4, 5, 6, 7, 8})) {
      const SceneShape shape = {group * (group % 2 + 1), group % 2 + 1, head_dim};
      const SceneData<TypeParam> data(shape);
      const double worst = WorstError(data, runs, RunScene(data, runs), 5);
      EXPECT_LE(worst, 1) << "head_dim " << head_dim << ", group " << group;
      if (group == 5) printf("head_dim %d: worst error %.3f of its bound\n", head_dim, worst);
    }
  }
}

TYPED_TEST(AttentionTest, BoundNoticesOneForgottenPosition) {
  const SceneData<TypeParam> data(SceneShape{4, 1, 128});
  const std::vector<SceneRun> runs = {{1, 1500, 1}};
  EXPECT_GT(WorstError(data, runs, RunScene(data, runs), 1, true), 2);
}

TYPED_TEST(AttentionTest, WindowAndCap) {
  std::vector<SceneRun> runs = MixedRuns();
  for (int window : SomeOf({1, 7, 16, 100, 1024, 1500})) {
    for (float cap : {0.0f, 3.0f}) {
      const SceneData<TypeParam> data(SceneShape{6, 2, 64, window, cap});
      const double worst = WorstError(data, runs, RunScene(data, runs), 3);
      EXPECT_LE(worst, 1) << "window " << window << ", cap " << cap;
    }
  }
}

TYPED_TEST(AttentionTest, LongContexts) {
  const SceneData<TypeParam> data(SceneShape{4, 2, 128, 0, 0, 32768});
  const std::vector<SceneRun> runs = {{1, 4999, 1}, {2, 32767, 1}, {3, 8191, 1}, {4, 2000, 3}};
  EXPECT_LE(WorstError(data, runs, RunScene(data, runs)), 1);
}

TYPED_TEST(AttentionTest, RowsKeepTheirBitsWhateverSharesTheStep) {
  for (int heads : SomeOf({4, 6, 16})) {
    const SceneData<TypeParam> data(SceneShape{heads, 2, 128});
    std::vector<SceneRun> runs = MixedRuns();
    for (SceneRun& run : runs) run.start_layer = 0;
    const SceneOutput<TypeParam> all = RunScene(data, runs);
    SceneOptions options;
    options.in_graph = true;
    EXPECT_TRUE(SameRows(all, RunScene(data, runs, options)));
    for (uint32_t seed = 2; seed < 5; ++seed) {
      std::shuffle(runs.begin(), runs.end(), std::mt19937(seed));
      options.seed = seed;
      options.in_graph = seed % 2 == 0;
      options.trailing_rows = static_cast<int>(seed) * 7;
      for (SceneRun& run : runs) run.gap = static_cast<int>(seed * run.sequence % 3);
      for (const auto& [key, values] : RunScene(data, runs, options)) {
        EXPECT_TRUE(SameBits(values, all.at(key))) << key.first << ", " << key.second;
      }
    }
    for (const SceneRun& run : runs) {
      for (const auto& [key, values] : RunScene(data, {run})) {
        EXPECT_TRUE(SameBits(values, all.at(key))) << key.first << ", " << key.second;
      }
    }
  }
}

TYPED_TEST(AttentionTest, PromptRowsEqualGeneratedRows) {
  const int tokens = SmallRun() ? 300 : 1100;
  for (int heads : SomeOf({1, 2, 3, 4, 8})) {
    for (int window : {0, 50}) {
      const SceneData<TypeParam> data(SceneShape{heads, 1, 64, window});
      const std::vector<SceneRun> whole = {{7, 0, tokens, true}};
      std::vector<SceneRun> single, pieces;
      for (int p = 0; p < tokens; ++p) single.push_back({7, p});
      for (int p = 0; p < tokens; p += 11) {
        pieces.push_back({7, p, std::min(11, tokens - p), true});
      }
      const SceneOutput<TypeParam> prompt = RunScene(data, whole);
      EXPECT_EQ(prompt.size(), static_cast<size_t>(tokens));
      EXPECT_TRUE(SameRows(prompt, RunScene(data, single))) << heads << " heads, as generated rows";
      EXPECT_TRUE(SameRows(prompt, RunScene(data, pieces))) << heads << " heads, in pieces";
    }
  }
}

TYPED_TEST(AttentionTest, BitsDoNotDependOnHowManyBlocksShareARow) {
  const SceneData<TypeParam> data(SceneShape{8, 2, 128, 0, 0, 40000});
  std::vector<SceneRun> runs = MixedRuns();
  runs.push_back({90, 4999, 1});
  runs.push_back({91, 7000, 8, true});
  SceneOptions one, several;
  one.max_context = 8192;
  several.max_context = 40000;
  ASSERT_EQ(AttentionWorkspaceBytes(data.dims, 100, one.max_context), 0);
  ASSERT_GT(AttentionWorkspaceBytes(data.dims, 100, several.max_context), 0);
  EXPECT_TRUE(SameRows(RunScene(data, runs, one), RunScene(data, runs, several)));
}

// One, two, four or all eight heads a block; two at a time go side by side where their columns fit.
TYPED_TEST(AttentionTest, BitsDoNotDependOnHowManyHeadsABlockTakes) {
  const std::vector<SceneRun> runs = MixedRuns();
  for (int head_dim : {64, 80, 96, 128, 256}) {
    for (int group : SomeOf({1, 2, 3, 4, 5, 8})) {
      for (int window : {0, 100}) {
        const SceneData<TypeParam> data(SceneShape{8 * group, 8, head_dim, window});
        SceneOptions options;
        options.block_heads = 1;
        const SceneOutput<TypeParam> alone = RunScene(data, runs, options);
        for (int heads : {2, 4, 8}) {
          options.block_heads = heads;
          EXPECT_TRUE(SameRows(alone, RunScene(data, runs, options)))
              << head_dim << " channels, group " << group << ", window " << window << ", " << heads
              << " heads a block";
        }
      }
    }
  }
}

TYPED_TEST(AttentionTest, RefusesShapesThatItDoesNotServe) {
  Attention args;
  args.dtype = kDtypeOf<TypeParam>;
  args.max_context = 100;
  args.step.max_rows = 1;
  for (const auto& [heads, kv_heads, head_dim] :
       {std::tuple{9, 1, 64}, {3, 2, 64}, {4, 0, 64}, {4, 1, 72}, {4, 1, 512}}) {
    args.dims.heads = heads;
    args.dims.kv_heads = kv_heads;
    args.dims.head_dim = head_dim;
    EXPECT_EQ(LaunchAttention(args, nullptr), cudaErrorInvalidValue) << head_dim;
  }
}

}  // namespace
}  // namespace plumbline::cuda
