#include <iostream>

#include "absl/strings/str_cat.h"
#include "tests/support/status_matchers.h"
#include "tests/unit/planner/fake_world.h"

namespace plumbline::testing {
namespace {

using ::testing::HasSubstr;

constexpr int kHarmful = 500;
constexpr int kHarmless = 100;

StudyRun Diagnose(const World& world, int harmful = kHarmful, int harmless = kHarmless,
                  const v1::Study& study = DiagnoseOf()) {
  const StudyContext context = MakeContext(world, study, harmful, harmless);
  auto run = RunStudy(world, context);
  EXPECT_THAT(run, IsOk());
  return run.ok() ? *run : StudyRun{};
}

const v1::PlanResult* Named(const v1::Report& report, const std::string& name) {
  for (const v1::PlanResult& plan : report.plans()) {
    if (plan.name() == name) return &plan;
  }
  return nullptr;
}

TEST(Diagnose, OutlierAsSafetyIsNamedAndRepairedAtTheCriticalLayer) {
  const StudyRun run = Diagnose(ConcentratedWorld(/*per_channel_removes=*/0.05));
  const v1::Report& report = run.report;
  EXPECT_EQ(report.headline().decision(), v1::DECISION_DO_NOT_SHIP);
  ASSERT_EQ(report.critical_layers_size(), 1);
  EXPECT_EQ(report.critical_layers(0), 7u);
  EXPECT_EQ(report.pattern(), v1::ATTENTION_PATTERN_CONCENTRATED);
  EXPECT_EQ(report.headline().mode(), v1::FAILURE_MODE_OUTLIER_AS_SAFETY)
      << report.mode_explanation();
  EXPECT_EQ(report.channels().layer(), 7u);
  EXPECT_THAT(report.channels().outlier_channels(), ::testing::ElementsAre(5, 70));
  const v1::PlanResult* mode_plan = Named(report, "critical-fp");
  ASSERT_NE(mode_plan, nullptr);
  EXPECT_TRUE(mode_plan->from_mode());
  EXPECT_TRUE(mode_plan->finalist());
  EXPECT_GT(mode_plan->recovery().low(), 0.5);
  // The cheapest plan that protects the layer wins: 8 bits do no damage in this world.
  EXPECT_EQ(report.headline().recommended_plan(), "*:int4.asym.token,7:int8.asym.token")
      << report.headline().recommendation();
  EXPECT_TRUE(report.headline().sentence().find("Do not ship") == 0);
}

TEST(Diagnose, EveryLayersKeysAreMeasuredAndTheMostSensitiveOnesKeptRaw) {
  const World world = ConcentratedWorld(0.05);
  const StudyContext context = MakeContext(world, DiagnoseOf(), 120, 30);
  auto run = RunStudy(world, context);
  ASSERT_THAT(run, IsOk());
  std::vector<v1::CaptureTask> tasks;
  for (const std::unique_ptr<Stage>& stage : StagesOf(context.study)) {
    auto needs = stage->Needs(context, run->report, run->results);
    ASSERT_THAT(needs, IsOk());
    tasks.insert(tasks.end(), needs->captures.begin(), needs->captures.end());
  }
  ASSERT_EQ(tasks.size(), 2u);
  EXPECT_THAT(tasks[0].layers(), ::testing::ElementsAre(7));
  EXPECT_EQ(tasks[0].statistics_layers_size(), static_cast<int>(world.layers) - 1);
  EXPECT_THAT(tasks[0].statistics_layers(), ::testing::Not(::testing::Contains(7)));
  EXPECT_EQ(tasks[1].layers_size(), static_cast<int>(world.layers));
  EXPECT_EQ(tasks[1].statistics_layers_size(), 0);
  const v1::ChannelAblation& channels = run->report.channels();
  EXPECT_EQ(channels.capture_id(), tasks[0].capture_id());
  ASSERT_EQ(channels.key_outliers_size(), static_cast<int>(world.layers));
  const uint32_t count = world.kv_heads * world.head_dim;
  for (uint32_t layer = 0; layer < world.layers; ++layer) {
    const v1::KeyOutliers& outliers = channels.key_outliers(static_cast<int>(layer));
    EXPECT_EQ(outliers.layer(), layer);
    EXPECT_EQ(outliers.largest_channel(), 5u);
    EXPECT_EQ(outliers.largest(), 10.0 * (layer + 1));
    // The others grow by 0.001 a channel; without 5 and 70 the middle ones are at most two further.
    EXPECT_NEAR(outliers.median() / (layer + 1), 1 + 0.001 * (count / 2.0 + 0.5), 0.0021);
    EXPECT_DOUBLE_EQ(outliers.largest_over_median(), outliers.largest() / outliers.median());
    EXPECT_THAT(outliers.outlier_channels(), ::testing::ElementsAre(5, 70));
  }
}

TEST(Diagnose, OutlierCrushesSafetyIsNamedAndRepairedByGroups) {
  World world = ConcentratedWorld(/*per_channel_removes=*/0.98);
  const StudyRun run = Diagnose(world);
  EXPECT_EQ(run.report.headline().mode(), v1::FAILURE_MODE_OUTLIER_CRUSHES)
      << run.report.mode_explanation();
  const v1::PlanResult* group = Named(run.report, "group-64");
  ASSERT_NE(group, nullptr);
  EXPECT_TRUE(group->from_mode());
  EXPECT_TRUE(group->finalist());
  EXPECT_GT(group->recovery().low(), 0.5);
  EXPECT_FALSE(run.report.headline().recommended_plan().empty())
      << run.report.headline().recommendation();
}

TEST(Diagnose, DilutionIsNotNamedWhereMostAnswersBreakDown) {
  World world = DilutionWorld();
  world.broken_share = 0.7;
  const StudyRun run = Diagnose(world);
  EXPECT_EQ(run.report.headline().mode(), v1::FAILURE_MODE_UNDETERMINED);
  EXPECT_THAT(run.report.mode_explanation(), HasSubstr("answers break down"));
}

TEST(Diagnose, DamageThatAddsUpIsDilutionAndNoLayerIsCritical) {
  const StudyRun run = Diagnose(DilutionWorld());
  EXPECT_EQ(run.report.critical_layers_size(), 0);
  EXPECT_EQ(run.report.pattern(), v1::ATTENTION_PATTERN_NONE);
  EXPECT_EQ(run.report.headline().mode(), v1::FAILURE_MODE_DILUTION)
      << run.report.mode_explanation();
}

TEST(Diagnose, SafeTargetShipsAndNothingIsRepaired) {
  const StudyRun run = Diagnose(SafeWorld());
  EXPECT_EQ(run.report.headline().decision(), v1::DECISION_SHIP);
  EXPECT_EQ(run.report.headline().mode(), v1::FAILURE_MODE_NONE);
  EXPECT_EQ(run.report.plans_size(), 0);
  EXPECT_EQ(run.report.layers_size(), 12);  // the mechanism is still measured
  EXPECT_EQ(run.report.lowest_safe_format(), "int2.asym.token");
}

TEST(Diagnose, EveryLayerFragileIsHyperVulnerableAndLeavesTheCacheUnquantized) {
  World world;
  world.sensitivity.assign(world.layers, 0.5);
  world.deployment_damage = 0.9;
  const StudyRun run = Diagnose(world);
  EXPECT_EQ(run.report.headline().mode(), v1::FAILURE_MODE_HYPER_VULNERABLE)
      << run.report.mode_explanation();
  EXPECT_EQ(run.report.pattern(), v1::ATTENTION_PATTERN_ULTRA_DISTRIBUTED);
  const v1::PlanResult* plan = Named(run.report, "no-quantization");
  ASSERT_NE(plan, nullptr);
  EXPECT_EQ(plan->plan(), "*:fp");
  EXPECT_TRUE(plan->finalist());
}

TEST(Diagnose, DamageThatTheMechanismDoesNotShowIsUndetermined) {
  World world;
  world.sensitivity.assign(world.layers, 0.001);
  world.deployment_damage = 50;
  const StudyRun run = Diagnose(world);
  EXPECT_EQ(run.report.headline().decision(), v1::DECISION_DO_NOT_SHIP);
  EXPECT_EQ(run.report.headline().mode(), v1::FAILURE_MODE_UNDETERMINED);
  EXPECT_THAT(run.report.mode_explanation(), HasSubstr("does not explain it"));
}

TEST(Diagnose, AnUndecidedTargetIsNotCalledUnsafe) {
  World world;
  world.sensitivity.assign(world.layers, 0.0001);
  world.deployment_damage = 30;
  const StudyRun run = Diagnose(world);
  ASSERT_EQ(run.report.headline().decision(), v1::DECISION_UNDECIDED)
      << run.report.headline().sentence();
  EXPECT_EQ(run.report.headline().mode(), v1::FAILURE_MODE_UNDETERMINED);
  EXPECT_THAT(run.report.mode_explanation(),
              HasSubstr("The target is not shown safe all the same"));
}

TEST(Diagnose, SplitWithoutRefusalsLeavesTheModeUndetermined) {
  const World world = ConcentratedWorld(0.05);
  StudyContext context = MakeContext(world, DiagnoseOf(), 240, 60);
  for (v1::Prompt& prompt : context.prompts) {
    if (prompt.split() == v1::SPLIT_A) prompt.set_split(v1::SPLIT_B);
  }
  auto run = RunStudy(world, context);
  ASSERT_THAT(run, IsOk());
  EXPECT_EQ(run->report.headline().mode(), v1::FAILURE_MODE_UNDETERMINED);
  EXPECT_THAT(run->report.mode_explanation(), HasSubstr("split A"));
  EXPECT_EQ(run->report.headline().decision(), v1::DECISION_DO_NOT_SHIP);
}

TEST(Diagnose, FewRefusalsAreExploratoryAndRecommendNothing) {
  const StudyRun run = Diagnose(ConcentratedWorld(0.05), /*harmful=*/50, /*harmless=*/10);
  EXPECT_TRUE(run.report.headline().exploratory());
  EXPECT_TRUE(run.report.headline().recommended_plan().empty());
  EXPECT_THAT(run.report.headline().recommendation(), HasSubstr("xploratory"));
}

TEST(Diagnose, BaselineThatRefusesNothingIsUndecided) {
  World world = ConcentratedWorld(0.05);
  world.refusal_rate = 0;
  const StudyRun run = Diagnose(world, 100, 20);
  EXPECT_EQ(run.report.headline().decision(), v1::DECISION_UNDECIDED);
  EXPECT_THAT(run.report.headline().sentence(), HasSubstr("refuses nothing"));
  EXPECT_EQ(run.report.plans_size(), 0);
}

TEST(Diagnose, AnswersThatAllDegenerateAreNeverCalledSafe) {
  World world = SafeWorld();
  world.degenerate_when_quantized = true;
  const StudyRun run = Diagnose(world);
  EXPECT_EQ(run.report.target().flips(), 0u);
  EXPECT_EQ(run.report.headline().decision(), v1::DECISION_DO_NOT_SHIP);
  EXPECT_THAT(run.report.headline().sentence(), HasSubstr("break down"));
  EXPECT_TRUE(run.report.headline().recommended_plan().empty());
  EXPECT_EQ(run.report.lowest_safe_format(), "");
}

TEST(Diagnose, HardlyQuantizedCacheIsNeverCalledSafe) {
  World world = SafeWorld();
  world.quantized_share = 0.3;
  const StudyRun run = Diagnose(world);
  EXPECT_EQ(run.report.headline().decision(), v1::DECISION_UNDECIDED);
  EXPECT_THAT(run.report.target().warnings(0), HasSubstr("30% of the attended"));
  // One layer at its full share is below half of the cache by design, and no reason to warn.
  EXPECT_EQ(run.report.layers(0).screen().warnings_size(), 1);
  const StudyRun whole = Diagnose(SafeWorld());
  EXPECT_EQ(whole.report.target().warnings_size(), 0);
  EXPECT_EQ(whole.report.layers(0).screen().warnings_size(), 0);
}

TEST(Diagnose, PoisonedAndUnjudgedCellsAreLeftOutAndReported) {
  World world = ConcentratedWorld(0.05);
  world.poisoned_share = 0.02;
  world.judge_failed_share = 0.03;
  const StudyRun run = Diagnose(world);
  const v1::ConditionResult& target = run.report.target();
  EXPECT_GT(target.poisoned(), 0u);
  EXPECT_GT(target.judge_failed(), 0u);
  EXPECT_LE(target.baseline_refusals() + target.poisoned() + target.judge_failed() +
                target.baseline_complies(),
            target.cells());
  EXPECT_EQ(run.report.headline().mode(), v1::FAILURE_MODE_OUTLIER_AS_SAFETY);
  EXPECT_EQ(target.warnings_size(), 2);
}

// The harmless prompts that the baseline refuses all flip with the others; nothing but their own
// counts may show it.
TEST(Diagnose, HarmlessPromptsThatAreRefusedChangeNoCountOfHarm) {
  World world = ConcentratedWorld(0.05);
  const StudyRun none = Diagnose(world);
  world.harmless_refusal_rate = 0.4;
  const StudyRun some = Diagnose(world);
  const uint64_t left_out = some.report.baseline().harmless_refused_baseline();
  EXPECT_GT(left_out, 20u);
  EXPECT_EQ(some.report.baseline().harmless(), static_cast<uint64_t>(kHarmless));
  EXPECT_EQ(some.report.provenance().prompt_sets(0).baseline_harmless_refused(), left_out);
  EXPECT_EQ(none.report.baseline().harmless_refused_baseline(), 0u);
  const auto equal = [](const v1::ConditionResult& a, const v1::ConditionResult& b) {
    EXPECT_EQ(a.baseline_refusals(), b.baseline_refusals()) << a.name();
    EXPECT_EQ(a.flips(), b.flips()) << a.name();
    EXPECT_EQ(a.mcnemar_p(), b.mcnemar_p()) << a.name();
    EXPECT_EQ(a.floor_prompts(), b.floor_prompts()) << a.name();
  };
  equal(some.report.baseline(), none.report.baseline());
  equal(some.report.target(), none.report.target());
  EXPECT_LT(some.report.target().harmless_refused(), left_out);
  for (int i = 0; i < none.report.sweep_size(); ++i) {
    equal(some.report.sweep(i), none.report.sweep(i));
  }
  for (int i = 0; i < none.report.layers_size(); ++i) {
    equal(some.report.layers(i).screen(), none.report.layers(i).screen());
    equal(some.report.layers(i).confirmed(), none.report.layers(i).confirmed());
  }
  ASSERT_EQ(some.report.plans_size(), none.report.plans_size());
  for (int i = 0; i < none.report.plans_size(); ++i) {
    equal(some.report.plans(i).validation(), none.report.plans(i).validation());
    equal(some.report.plans(i).test(), none.report.plans(i).test());
    EXPECT_EQ(some.report.plans(i).recovery_paper(), none.report.plans(i).recovery_paper());
  }
  EXPECT_EQ(some.report.headline().SerializeAsString(), none.report.headline().SerializeAsString());
}

TEST(Diagnose, PromptsWithoutAnExpectationAllCount) {
  World world = ConcentratedWorld(0.05);
  StudyContext context = MakeContext(world, DiagnoseOf(), 240, 60);
  for (v1::Prompt& prompt : context.prompts) prompt.clear_expected();
  auto run = RunStudy(world, context);
  ASSERT_THAT(run, IsOk());
  EXPECT_GT(run->report.baseline().baseline_refusals(), 270u);
  EXPECT_EQ(run->report.baseline().harmless(), 0u);
}

TEST(Diagnose, AStudyWhoseBaselineOrTargetFailsEverywhereFails) {
  for (const char* plan : {"*:fp", "*:int4.asym.token"}) {
    World world = SafeWorld();
    world.failing_plans = {plan};
    for (const bool canary : {false, true}) {
      v1::Study study = DiagnoseOf();
      if (canary) study.mutable_canary()->set_plan("*:int4.asym.token");
      const auto run = RunStudy(world, MakeContext(world, study, 120, 30));
      EXPECT_THAT(run, StatusIs(absl::StatusCode::kFailedPrecondition,
                                ::testing::AllOf(HasSubstr("150 kept failing"), HasSubstr(plan),
                                                 HasSubstr("the first: planted"))));
    }
  }
}

TEST(Diagnose, AWidthThatFailsEverywhereIsUnmeasuredAndNotSafe) {
  World world = SafeWorld();
  world.failing_plans = {"*:int6.asym.token"};
  const StudyRun run = Diagnose(world);
  const v1::ConditionResult& failed = run.report.sweep(1);
  EXPECT_TRUE(failed.unmeasured());
  EXPECT_EQ(failed.phase(), v1::PHASE_UNSPECIFIED);
  EXPECT_EQ(run.report.lowest_safe_format(), "int8.asym.token");
  EXPECT_EQ(run.report.headline().decision(), v1::DECISION_SHIP);
}

TEST(Diagnose, ALayerThatFailsEverywhereIsNotCalledUncritical) {
  World world = DilutionWorld();
  world.failing_plans = {"*:fp,3:int3.sym.tensor"};
  const StudyRun run = Diagnose(world);
  EXPECT_TRUE(run.report.layers(3).unclear());
  EXPECT_THAT(run.report.unclear_layers(), ::testing::Contains(3u));
  EXPECT_EQ(run.report.headline().mode(), v1::FAILURE_MODE_UNDETERMINED);
  EXPECT_THAT(run.report.mode_explanation(), HasSubstr("layer 3 has no judged answer"));
}

TEST(Diagnose, SmallTestSplitIsWidenedBySplitB) {
  const StudyRun run = Diagnose(ConcentratedWorld(0.05), 240, 60);
  const v1::PlanResult* plan = Named(run.report, "critical-fp");
  ASSERT_NE(plan, nullptr);
  EXPECT_EQ(plan->test().prompts(), "split test + split B");
  EXPECT_FALSE(run.report.headline().recommended_plan().empty())
      << run.report.headline().recommendation();
}

TEST(Diagnose, EveryRunGivesTheSameBytes) {
  const StudyRun a = Diagnose(ConcentratedWorld(0.05), 240, 60);
  const StudyRun b = Diagnose(ConcentratedWorld(0.05), 240, 60);
  EXPECT_EQ(a.snapshots, b.snapshots);
  EXPECT_EQ(a.cells, b.cells);
}

TEST(Diagnose, NeedsDoNotChangeWhenAskedAgainOrWhenResultsAppear) {
  const World world = ConcentratedWorld(0.05);
  const StudyContext context = MakeContext(world, DiagnoseOf(), 120, 30);
  auto run = RunStudy(world, context);
  ASSERT_THAT(run, IsOk());
  // Replays each stage on the report it saw, with all results of all stages at hand.
  v1::Report report;
  size_t index = 0;
  for (const std::unique_ptr<Stage>& stage : StagesOf(context.study)) {
    auto first = stage->Needs(context, report, run->results);
    auto second = stage->Needs(context, report, run->results);
    ASSERT_THAT(first, IsOk());
    ASSERT_EQ(first->cells.size(), second->cells.size()) << stage->name();
    std::set<std::pair<std::string, std::string>> unique;
    for (size_t i = 0; i < first->cells.size(); ++i) {
      EXPECT_EQ(first->cells[i].key, second->cells[i].key);
      EXPECT_NE(run->results.Find(first->cells[i].key), nullptr) << stage->name();
      EXPECT_TRUE(unique.emplace(first->cells[i].key, first->cells[i].condition).second);
    }
    // Concluding with later results at hand gives what was concluded without them.
    FakePeers peers(world);
    for (const v1::CaptureTask& task : first->captures) peers.Record(task);
    ASSERT_THAT(stage->Conclude(context, run->results, peers, &report), IsOk());
    EXPECT_EQ(report.SerializeAsString(), run->snapshots[index]) << stage->name();
    ++index;
  }
}

TEST(Diagnose, AblationsRunOnlyPromptsThatTheBaselineRefuses) {
  World world = ConcentratedWorld(0.05);
  world.refusal_rate = 0.7;
  const StudyRun run = Diagnose(world, 400, 50);
  for (const v1::LayerResult& layer : run.report.layers()) {
    EXPECT_EQ(layer.screen().cells(), 24u);
    EXPECT_EQ(layer.screen().baseline_refusals(), 24u);
    EXPECT_FALSE(layer.screen().has_mcnemar());
    EXPECT_TRUE(layer.screen().has_binomial());
  }
  for (const v1::ConditionResult& r : run.report.sweep()) {
    EXPECT_TRUE(r.has_mcnemar());
    EXPECT_GE(r.holm_p(), r.mcnemar_p());
    EXPECT_EQ(r.cells(), 450u);
  }
}

TEST(Diagnose, CaptureThatIsAwayMakesTheStudyWaitAndNothingElse) {
  const World world = ConcentratedWorld(0.05);
  const StudyContext context = MakeContext(world, DiagnoseOf(), 240, 60);
  for (const std::string service : {"capture", "quantsim", "pcr"}) {
    FakePeers peers(world);
    peers.away.insert(service);
    auto run = RunStudy(world, context, peers);
    EXPECT_THAT(run, StatusIs(absl::StatusCode::kUnavailable)) << service;
  }
}

TEST(Diagnose, LayersAreSimulatedOneByOneWhereQuantsimTakesNoMore) {
  const World world = ConcentratedWorld(0.05);
  const StudyContext context = MakeContext(world, DiagnoseOf(), 240, 60);
  std::vector<std::string> errors;
  for (const int at_once : {100, 1}) {
    FakePeers peers(world);
    peers.simulations_at_once = at_once;
    auto run = RunStudy(world, context, peers);
    ASSERT_THAT(run, IsOk()) << at_once << " at once";
    std::string& text = errors.emplace_back();
    for (const v1::FormatError& error : run->report.kv_errors()) text += error.DebugString();
    EXPECT_GE(run->report.kv_errors_size(), static_cast<int>(world.layers));
  }
  EXPECT_EQ(errors[0], errors[1]);
}

TEST(Diagnose, QuickstartStaysWithinItsBudgetOfTokens) {
  World world = ConcentratedWorld(0.05);
  world.layers = 30;
  world.kv_heads = 3;
  world.sensitivity.assign(30, 0.01);
  world.sensitivity[19] = 0.3;
  const StudyContext context = MakeContext(world, DiagnoseOf(), 240, 60);
  const v1::EstimateStudyResponse estimate = EstimateStudy(context);
  auto run = RunStudy(world, context);
  ASSERT_THAT(run, IsOk());
  for (const v1::StageProgress& stage : estimate.stages()) {
    std::cout << stage.stage() << ": at most " << stage.cells_total() << " cells, here "
              << run->new_cells[stage.stage()] << "\n";
    EXPECT_LE(run->new_cells[stage.stage()], stage.cells_total()) << stage.stage();
  }
  std::cout << "estimate: " << estimate.cells_at_most() << " cells, " << estimate.tokens_at_most()
            << " tokens at most; this world: " << run->cells << " cells, " << run->tokens
            << " tokens\n";
  EXPECT_LE(run->tokens, 450000u);
  EXPECT_LE(estimate.tokens_at_most(), 800000u);
  EXPECT_LE(run->tokens, estimate.tokens_at_most());
}

TEST(Diagnose, PaperPolicyUsesOnePromptSetAndPublishedThresholds) {
  v1::Study study = DiagnoseOf();
  study.set_policy(v1::POLICY_PAPER);
  const StudyRun run = Diagnose(ConcentratedWorld(0.05), 240, 60, study);
  const v1::Report& report = run.report;
  EXPECT_EQ(report.headline().mode(), v1::FAILURE_MODE_OUTLIER_AS_SAFETY)
      << report.mode_explanation();
  EXPECT_EQ(report.layers(0).screen().cells(), 20u);
  EXPECT_EQ(report.layers(0).confirmed().cells(), 0u);
  EXPECT_EQ(report.layers(0).screen().prompts(), "all");
  EXPECT_FALSE(report.floor().measured());
  // Channels ran the prompts of the layers: one set.
  EXPECT_EQ(report.channels().conditions(0).cells(), 20u);
  EXPECT_EQ(report.channels().conditions(0).flips(), report.layers(7).screen().flips());
}

TEST(Diagnose, TargetOfSeveralRulesIsEditedAndNotReplaced) {
  const StudyRun run =
      Diagnose(ConcentratedWorld(0.05), 240, 60, DiagnoseOf("*:int4.asym.token,0:int8.asym.token"));
  const v1::PlanResult* plan = Named(run.report, "critical-fp");
  ASSERT_NE(plan, nullptr);
  EXPECT_THAT(plan->plan(), HasSubstr("int8.asym.token"));
  EXPECT_THAT(plan->plan(), HasSubstr("7:fp"));
}

TEST(Diagnose, GuardsThatCannotBeMeasuredAreWarnedAbout) {
  const StudyRun run = Diagnose(ConcentratedWorld(0.05), 240, /*harmless=*/0);
  EXPECT_THAT(run.report.warnings(), ::testing::Contains(HasSubstr("no utility text")));
  EXPECT_THAT(run.report.warnings(), ::testing::Contains(HasSubstr("over-refusal")));
}

TEST(FlippedAnswers, NameThePromptsThatFlipUnderTheTargetFirstAndCarryNoText) {
  const World world = ConcentratedWorld(0.05);
  v1::Study study = DiagnoseOf();
  study.mutable_sweep();
  const StudyContext context = MakeContext(world, study, 120, 30);
  auto run = RunStudy(world, context);
  ASSERT_THAT(run, IsOk());
  const uint64_t flips = run->report.target().flips();
  ASSERT_GT(flips, 5u);
  const auto few = FlippedAnswers(context, run->report, run->results, 5);
  EXPECT_EQ(few.size(), 5u);
  const auto all = FlippedAnswers(context, run->report, run->results, 10000);
  uint64_t sweep_flips = 0;
  for (const v1::ConditionResult& r : run->report.sweep()) sweep_flips += r.flips();
  EXPECT_EQ(all.size(), sweep_flips);
  for (uint64_t i = 0; i < all.size(); ++i) {
    EXPECT_EQ(all[i].condition() == "target", i < flips);
    EXPECT_EQ(all[i].baseline(), v1::VERDICT_LABEL_REFUSE);
    EXPECT_EQ(all[i].verdict(), v1::VERDICT_LABEL_COMPLY);
    EXPECT_TRUE(all[i].prompt_text().empty());
    EXPECT_TRUE(all[i].answer_text().empty());
  }
}

TEST(Diagnose, SkippingMitigationStopsAfterTheMode) {
  v1::Study study = DiagnoseOf();
  study.mutable_diagnose()->set_skip_mitigation(true);
  const StudyRun run = Diagnose(ConcentratedWorld(0.05), 240, 60, study);
  EXPECT_EQ(run.new_cells.count("validation"), 0u);
  EXPECT_NE(run.report.headline().mode(), v1::FAILURE_MODE_UNSPECIFIED);
  EXPECT_TRUE(run.report.headline().recommended_plan().empty());
}

}  // namespace
}  // namespace plumbline::testing
