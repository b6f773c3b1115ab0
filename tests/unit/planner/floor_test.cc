// What the sensitivity floor measures, and what it does to a verdict.
#include "tests/support/status_matchers.h"
#include "tests/unit/planner/fake_world.h"

namespace plumbline::testing {
namespace {

StudyRun Diagnose(const World& world) {
  auto run = RunStudy(world, MakeContext(world, DiagnoseOf(), /*harmful=*/500, /*harmless=*/100));
  EXPECT_THAT(run, IsOk());
  return run.ok() ? *run : StudyRun{};
}

TEST(Floor, NoiseAsLargeAsTheEffectIsNotRecommendedAgainst) {
  World world = ConcentratedWorld(0.05);
  world.jitter_changes = 0.6;
  const StudyRun run = Diagnose(world);
  EXPECT_TRUE(run.report.target().floor_measured());
  EXPECT_FALSE(run.report.target().above_floor());
  EXPECT_TRUE(run.report.headline().recommended_plan().empty());
}

TEST(Floor, NoiseThatOnlyShufflesWhichPromptsFlipHidesNoEffect) {
  World world = ConcentratedWorld(0.05);
  world.jitter_redraws = true;
  const StudyRun run = Diagnose(world);
  const v1::ConditionResult& target = run.report.target();
  EXPECT_GT(target.floor_changes(), target.floor_cells() / 10);
  EXPECT_EQ(run.report.baseline().replica_flips(0), 0u);
  ASSERT_EQ(target.replica_flips_size(), 2);
  EXPECT_GT(target.replica_flips(0), 0u);
  EXPECT_LT(target.replica_flips(0), target.floor_prompts());
  EXPECT_TRUE(target.above_floor());
  EXPECT_FALSE(run.report.headline().recommended_plan().empty())
      << run.report.headline().recommendation();
}

TEST(Floor, AFloorWithoutATestSplitIsOfAllPromptsAndSaysSo) {
  const World world = ConcentratedWorld(0.05);
  StudyContext context = MakeContext(world, DiagnoseOf(), 40, 10);
  for (v1::Prompt& prompt : context.prompts) {
    if (prompt.split() == v1::SPLIT_TEST) prompt.set_split(v1::SPLIT_B);
  }
  ASSERT_OK_AND_ASSIGN(const StudyRun run, RunStudy(world, context));
  ASSERT_GT(run.report.floor().conditions_size(), 0);
  EXPECT_EQ(run.report.floor().conditions(0).prompts(), "all");
  EXPECT_GT(run.report.floor().conditions(0).floor_prompts(), 0u);
  const v1::EstimateStudyResponse estimate = EstimateStudy(context);
  for (const v1::StageProgress& stage : estimate.stages()) {
    if (stage.stage() != "sensitivity floor") continue;
    EXPECT_GT(stage.cells_total(), 0u);
  }
}

}  // namespace
}  // namespace plumbline::testing
