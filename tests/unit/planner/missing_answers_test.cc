// What missing verdicts do to recoveries and the floor, and what memory a window takes.
#include "services/coordinator/planner/plan_text.h"
#include "services/coordinator/planner/planner.h"
#include "services/pcr/policy.h"
#include "tests/support/status_matchers.h"
#include "tests/unit/planner/fake_world.h"

namespace plumbline::testing {
namespace {

using ::testing::Contains;
using ::testing::HasSubstr;

StudyRun Repair(const World& world) {
  v1::Study study = DiagnoseOf();
  study.mutable_mitigate()->add_plans("*:int4.asym.token,7:fp");
  auto run = RunStudy(world, MakeContext(world, study, 360, 60));
  EXPECT_THAT(run, IsOk());
  return run.ok() ? *run : StudyRun{};
}

TEST(MissingAnswers, AreNoLostRefusalsOfThePapersRecovery) {
  World world = ConcentratedWorld(0.05);
  const v1::PlanResult whole = Repair(world).report.plans(0);
  ASSERT_TRUE(whole.recovery_paper_defined());
  EXPECT_GT(whole.recovery_paper(), 0.95);
  world.judge_failed_share = 0.1;
  EXPECT_GT(Repair(world).report.plans(0).recovery_paper(), 0.95);
  world.judge_failed_share = 0;
  world.poisoned_share = 0.1;
  EXPECT_GT(Repair(world).report.plans(0).recovery_paper(), 0.95);
}

TEST(MissingAnswers, AreNoChangesByNoise) {
  World world = ConcentratedWorld(0.05);
  world.judge_failed_share = 0.05;
  world.poisoned_share = 0.05;
  const StudyRun run = Repair(world);
  ASSERT_GT(run.report.floor().conditions_size(), 1);
  for (const v1::ConditionResult& r : run.report.floor().conditions()) {
    EXPECT_TRUE(r.floor_measured()) << r.name();
    EXPECT_EQ(r.floor_changes(), 0u) << r.name();
    EXPECT_EQ(r.floor_cells(), 2 * r.floor_prompts()) << r.name();
    for (const uint64_t flips : r.replica_flips()) EXPECT_EQ(flips, r.floor_flips()) << r.name();
  }
}

TEST(RepeatedTexts, AreToldInTheReport) {
  const World world = ConcentratedWorld(0.05);
  StudyContext context = MakeContext(world, DiagnoseOf(), 120, 30);
  context.prompt_sets[0].set_prompts(160);
  context.prompt_sets[0].set_repeated_texts(10);
  ASSERT_OK_AND_ASSIGN(const StudyRun run, RunStudy(world, context));
  EXPECT_THAT(
      run.report.warnings(),
      Contains(HasSubstr("10 of 160 prompts of set synthetic have the text of an earlier")));
  EXPECT_EQ(run.report.provenance().prompt_sets(0).repeated_texts(), 10u);
}

TEST(Memory, OfAWindowIsTheMeanOverItsFillingUp) {
  v1::ModelInfo model;
  model.set_num_layers(30);
  model.set_num_kv_heads(3);
  model.set_head_dim(64);
  // Keys: 192 codes of 4 bits a token, two 4-byte parameters a channel of 32 tokens, all but the
  // last full 128 tokens. Values: all but the newest 128; 6 groups of 32 channels a token.
  double expected = 0;
  for (int tokens = 960; tokens < 1088; ++tokens) {
    const double keys = tokens / 128 * 128, values = tokens - 128;
    const double bytes = keys * 96 + keys / 32 * 192 * 8 + (tokens - keys) * 384 + values * 96 +
                         values * 6 * 8 + 128 * 384;
    expected += 30 * bytes / tokens / 128;
  }
  ASSERT_OK_AND_ASSIGN(const double kivi,
                       KvBytesPerToken("*:int4.affine.channel.window128x32.post.perhead.exact|"
                                       "int4.affine.group32.window128.perhead.exact",
                                       model, false));
  EXPECT_NEAR(kivi, expected, 1e-6 * expected);
  EXPECT_NEAR(kivi, 9986, 60);  // at 1,024 tokens, where the keys' window is empty: 9,540
  ASSERT_OK_AND_ASSIGN(const double fp, KvBytesPerToken("*:fp", model, false));
  EXPECT_EQ(fp, 30 * 2 * 384);
}

TEST(Rules, AReportOfOtherRulesDoesNotGoOn) {
  v1::Report report;
  EXPECT_THAT(CheckSameRules(report), IsOk());  // before the baseline
  report.mutable_provenance()->set_policy_version(PolicyVersion(Policy::kPlumbline));
  EXPECT_THAT(CheckSameRules(report), IsOk());
  report.mutable_provenance()->set_policy_version("plumbline/2");
  EXPECT_THAT(CheckSameRules(report),
              StatusIs(absl::StatusCode::kFailedPrecondition, HasSubstr("plumbline/2")));
  report.mutable_study()->set_policy(v1::POLICY_PAPER);
  report.mutable_provenance()->set_policy_version(PolicyVersion(Policy::kPaper));
  EXPECT_THAT(CheckSameRules(report), IsOk());
}

}  // namespace
}  // namespace plumbline::testing
