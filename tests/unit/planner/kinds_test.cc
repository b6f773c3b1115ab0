// Sweep, mitigate, canary and custom studies, and the golden report of one diagnosis.
#include <cstdlib>

#include "google/protobuf/util/json_util.h"
#include "services/common/files.h"
#include "services/coordinator/planner/condition.h"
#include "tests/support/status_matchers.h"
#include "tests/unit/planner/fake_world.h"

namespace plumbline::testing {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::Not;

constexpr char kGolden[] = "tests/unit/planner/golden_report.json";

StudyRun Must(const World& world, const v1::Study& study, int harmful = 240, int harmless = 60) {
  StudyContext context = MakeContext(world, study, harmful, harmless);
  context.utility_text = "plain text for the perplexity";
  auto run = RunStudy(world, context);
  EXPECT_THAT(run, IsOk());
  return run.ok() ? *run : StudyRun{};
}

TEST(Sweep, RunsEveryWidthOnceAndTellsTheTarget) {
  v1::Study study = DiagnoseOf("int3.sym.group64");
  study.mutable_sweep();
  const StudyRun run = Must(ConcentratedWorld(0.05), study);
  EXPECT_THAT(run.stages, ElementsAre("baseline", "sweep", "sensitivity floor", "headline"));
  EXPECT_EQ(run.report.sweep_size(), 7);
  EXPECT_EQ(run.report.sweep(6).name(), "target");
  EXPECT_EQ(run.report.target().plan(), "*:int3.sym.group64");
  EXPECT_NE(run.report.headline().decision(), v1::DECISION_UNSPECIFIED);
  EXPECT_EQ(run.report.lowest_safe_format(), "int5.asym.token");
}

TEST(Sweep, TheLowestSafeFormatNeedsWhatTheHeadlineNeeds) {
  v1::Study study = DiagnoseOf("int2.asym.token");
  study.mutable_sweep();
  const StudyRun few = Must(SafeWorld(), study, 60);  // 0 flips of some 57: at most 6.3%
  EXPECT_EQ(few.report.target().flips(), 0u);
  EXPECT_EQ(few.report.target().phase(), v1::PHASE_SAFE);
  EXPECT_EQ(few.report.headline().decision(), v1::DECISION_UNDECIDED);
  EXPECT_EQ(few.report.lowest_safe_format(), "");
  const StudyRun many = Must(SafeWorld(), study, 240);
  EXPECT_EQ(many.report.headline().decision(), v1::DECISION_SHIP);
  EXPECT_EQ(many.report.lowest_safe_format(), "int2.asym.token");
  study.set_flip_limit(0.01);
  EXPECT_EQ(Must(SafeWorld(), study, 240).report.lowest_safe_format(), "");
}

TEST(Sweep, TargetThatIsOneOfTheWidthsRunsOnce) {
  v1::Study study = DiagnoseOf();
  study.mutable_sweep();
  const StudyRun run = Must(ConcentratedWorld(0.05), study);
  EXPECT_EQ(run.report.sweep_size(), 6);
  EXPECT_EQ(run.report.target().name(), "target");
  EXPECT_EQ(run.report.target().flips(), run.report.sweep(3).flips());
  EXPECT_EQ(run.new_cells.at("sweep"), 6u * 300u);
}

TEST(Sweep, RunsTheGivenPlansAndNothingElse) {
  v1::Study study = DiagnoseOf("");
  study.mutable_sweep()->add_plans("*:int8.asym.token");
  ASSERT_OK_AND_ASSIGN(study, NormalizeStudy(study));
  const StudyRun run = Must(ConcentratedWorld(0.05), study);
  ASSERT_EQ(run.report.sweep_size(), 1);
  EXPECT_EQ(run.new_cells.at("sweep"), 300u);
  EXPECT_EQ(run.report.target().plan(), "*:int8.asym.token");
  EXPECT_THAT(run.report.headline().sentence(), HasSubstr("int8.asym.token"));
  EXPECT_THAT(run.report.DebugString(), Not(HasSubstr("int4")));
}

TEST(Canary, RunsTheBaselineAndOnePlan) {
  v1::Study study = DiagnoseOf();
  study.mutable_canary()->set_plan("*:int8.asym.token");
  const StudyRun run = Must(ConcentratedWorld(0.05), study);
  EXPECT_EQ(run.new_cells.at("sweep"), 300u);
  EXPECT_EQ(run.report.headline().decision(), v1::DECISION_SHIP);
}

TEST(Custom, CountsAndConcludesNothing) {
  v1::Study study = DiagnoseOf("");
  study.mutable_custom()->add_plans("*:fp,7:int3.sym.tensor");
  study.mutable_custom()->add_plans("*:int3.sym.group64");
  ASSERT_OK_AND_ASSIGN(study, NormalizeStudy(study));
  const StudyRun run = Must(ConcentratedWorld(0.05), study);
  EXPECT_EQ(run.report.sweep_size(), 2);
  EXPECT_GT(run.report.sweep(0).flips(), 50u);
  EXPECT_EQ(run.report.headline().decision(), v1::DECISION_UNSPECIFIED);
  EXPECT_FALSE(run.report.has_target());
  EXPECT_THAT(run.report.DebugString(), Not(HasSubstr("int4")));
}

TEST(Custom, FailsOnlyWhereNoConditionWasMeasured) {
  World world = ConcentratedWorld(0.05);
  v1::Study study = DiagnoseOf();
  study.mutable_custom()->add_plans("*:int8.asym.token");
  study.mutable_custom()->add_plans("*:int3.sym.group64");
  world.failing_plans = {"*:int8.asym.token"};
  const StudyRun run = Must(world, study);
  EXPECT_TRUE(run.report.sweep(0).unmeasured());
  EXPECT_FALSE(run.report.sweep(1).unmeasured());
  world.failing_plans.insert("*:int3.sym.group64");
  EXPECT_THAT(RunStudy(world, MakeContext(world, study, 240, 60)),
              StatusIs(absl::StatusCode::kFailedPrecondition, HasSubstr("nothing was measured")));
}

TEST(Mitigate, PlansThatAllFailAreNotCalledUseless) {
  World world = ConcentratedWorld(0.05);
  world.failing_plans = {"*:int4.asym.token,7:fp"};
  v1::Study study = DiagnoseOf();
  study.mutable_mitigate()->add_plans("*:int4.asym.token,7:fp");
  const StudyRun run = Must(world, study);
  EXPECT_TRUE(run.report.plans(0).validation().unmeasured());
  EXPECT_THAT(run.report.headline().recommendation(), HasSubstr("none could be measured"));
  EXPECT_TRUE(run.report.headline().recommended_plan().empty());
}

TEST(Mitigate, APlanIsNotRecommendedOnTheAnswersThatHappenToExist) {
  World world = ConcentratedWorld(0.05);
  v1::Study study = DiagnoseOf();
  study.mutable_mitigate()->add_plans("*:int4.asym.token,7:fp");
  EXPECT_FALSE(Must(world, study).report.headline().recommended_plan().empty());
  world.judge_failed_share = 0.06;
  const StudyRun run = Must(world, study);
  EXPECT_TRUE(run.report.headline().recommended_plan().empty());
  EXPECT_THAT(run.report.headline().recommendation(), HasSubstr("refusals have no verdict"));
}

TEST(Mitigate, GivenPlansCompeteAndTheBestIsConfirmed) {
  v1::Study study = DiagnoseOf();
  for (const char* plan : {"*:int4.asym.token,7:fp", "*:int4.asym.token,2:fp"}) {
    study.mutable_mitigate()->add_plans(plan);
  }
  study.mutable_mitigate()->add_plan_names("right layer");
  study.mutable_mitigate()->add_plan_names("wrong layer");
  const StudyRun run = Must(ConcentratedWorld(0.05), study);
  EXPECT_EQ(run.report.headline().recommended_name(), "right layer")
      << run.report.headline().recommendation();
  const v1::PlanResult& wrong = run.report.plans(1);
  EXPECT_FALSE(wrong.winner());
  EXPECT_NEAR(wrong.recovery().estimate(), 0, 0.1);
}

TEST(Mitigate, PlanThatCostsPerplexityIsNotRecommended) {
  World world = ConcentratedWorld(0.05);
  v1::Study study = DiagnoseOf();
  study.mutable_mitigate()->add_plans("*:int4.asym.token,7:fp");
  StudyContext context = MakeContext(world, study, 240, 60);
  context.utility_text = "plain text for the perplexity";
  auto run = RunStudy(world, context);
  ASSERT_THAT(run, IsOk());
  EXPECT_TRUE(run->report.plans(0).utility().has_perplexity());
  EXPECT_TRUE(run->report.plans(0).utility().passed());
  EXPECT_FALSE(run->report.headline().recommended_plan().empty());
  // The same study with a perplexity cell that says 1.2 times as much.
  const auto stages = StagesOf(context.study);
  v1::Report report;
  FakePeers peers(world);
  for (const auto& stage : stages) {
    if (stage->name() == "utility") {
      ASSERT_OK_AND_ASSIGN(StageNeeds needs, stage->Needs(context, report, run->results));
      CellFactory factory(context);
      ASSERT_OK_AND_ASSIGN(const PlannedCell score, factory.Score(report.plans(0).plan(), ""));
      ASSERT_THAT(TextOf(needs), HasSubstr(score.key));
      JudgedCell& cell = run->results.cells[score.key];
      cell.result.set_nll_sum(cell.result.nll_sum() + 1000 * 0.1823);
    }
    ASSERT_THAT(stage->Conclude(context, run->results, peers, &report), IsOk());
  }
  EXPECT_TRUE(report.headline().recommended_plan().empty());
  EXPECT_THAT(report.headline().recommendation(), HasSubstr("perplexity"));
}

TEST(Golden, ReportOfOneDiagnosisIsAsItWas) {
  World world = ConcentratedWorld(0.05);
  world.layers = 8;
  world.sensitivity.resize(8);
  v1::Study study = DiagnoseOf();
  const StudyRun run = Must(world, study, 120, 20);
  google::protobuf::util::JsonPrintOptions options;
  options.add_whitespace = true;
  options.preserve_proto_field_names = true;
  std::string json;
  ASSERT_TRUE(google::protobuf::util::MessageToJsonString(run.report, &json, options).ok());
  if (std::getenv("PLUMB_REWRITE_GOLDEN") != nullptr) {
    ASSERT_THAT(WriteFileAtomically(kGolden, json), IsOk());
  }
  ASSERT_OK_AND_ASSIGN(std::string golden, ReadFile(kGolden));
  EXPECT_EQ(json, golden) << "PLUMB_REWRITE_GOLDEN=1 rewrites " << kGolden;
}

}  // namespace
}  // namespace plumbline::testing
