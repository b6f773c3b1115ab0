// The utility guard: what is measured before a plan is chosen, and what a plan that fails cannot
// do.
#include "services/coordinator/planner/condition.h"
#include "services/coordinator/planner/plan_text.h"
#include "services/coordinator/planner/utility_guard.h"
#include "tests/support/status_matchers.h"
#include "tests/unit/planner/fake_world.h"

namespace plumbline::testing {
namespace {

using ::testing::AllOf;
using ::testing::Contains;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::Not;
using ::testing::SizeIs;

constexpr char kCheap[] = "*:int4.asym.token,7:int8.asym.token";
constexpr char kDear[] = "*:int4.asym.token,7:fp";

v1::Study Mitigate(const std::vector<std::string>& plans) {
  v1::Study study = DiagnoseOf();
  for (const std::string& plan : plans) study.mutable_mitigate()->add_plans(plan);
  return study;
}

StudyContext ContextOf(const World& world, const v1::Study& study) {
  StudyContext context = MakeContext(world, study, 360, 60);
  context.utility_text = "plain text for the perplexity";
  return context;
}

StudyRun Must(const World& world, const v1::Study& study) {
  auto run = RunStudy(world, ContextOf(world, study));
  EXPECT_THAT(run, IsOk());
  return run.ok() ? *run : StudyRun{};
}

TEST(Utility, IsMeasuredBeforeThePlansMeetTheTestPrompts) {
  const StudyRun run = Must(ConcentratedWorld(0.05), Mitigate({kCheap, kDear}));
  EXPECT_THAT(run.stages, ElementsAre("baseline", "sweep", "given plans", "validation", "utility",
                                      "test", "sensitivity floor", "headline"));
  EXPECT_EQ(run.report.headline().recommended_plan(), kCheap);
  EXPECT_TRUE(run.report.plans(1).contender());
}

TEST(Utility, APlanThatRefusesHarmlessPromptsCannotWin) {
  World world = ConcentratedWorld(0.05);
  world.over_refusal[kCheap] = 0.3;
  const StudyRun run = Must(world, Mitigate({kCheap, kDear}));
  const v1::PlanResult& cheap = run.report.plans(0);
  EXPECT_TRUE(cheap.contender());
  EXPECT_FALSE(cheap.utility().passed());
  EXPECT_FALSE(cheap.finalist());
  EXPECT_EQ(cheap.test().cells(), 0u);
  EXPECT_THAT(cheap.not_recommended_because(),
              AllOf(HasSubstr("not a finalist: utility guard"), HasSubstr("of 60 harmless")));
  EXPECT_TRUE(run.report.plans(1).winner());
  EXPECT_EQ(run.report.headline().recommended_plan(), kDear)
      << run.report.headline().recommendation();
}

TEST(Utility, WhereEveryContenderFailsNoneIsFoundAndTheGuardIsNamed) {
  World world = ConcentratedWorld(0.05);
  world.over_refusal = {{kCheap, 0.3}, {kDear, 0.3}};
  const StudyRun run = Must(world, Mitigate({kCheap, kDear}));
  EXPECT_TRUE(run.report.headline().recommended_plan().empty());
  EXPECT_THAT(run.report.headline().recommendation(),
              AllOf(HasSubstr("None found"), HasSubstr("but utility guard:")));
  EXPECT_EQ(run.new_cells.count("test"), 0u);
}

TEST(Utility, ContendersAreFew) {
  World world = ConcentratedWorld(0.05);
  const StudyRun run = Must(world, DiagnoseOf());
  int contenders = 0;
  for (const v1::PlanResult& plan : run.report.plans()) {
    contenders += plan.contender();
    EXPECT_EQ(plan.has_utility(), plan.contender()) << plan.name();
    EXPECT_TRUE(plan.contender() || !plan.finalist()) << plan.name();
  }
  EXPECT_GT(run.report.plans_size(), 20);
  EXPECT_GE(contenders, 3);
  EXPECT_LE(contenders, 6);
}

TEST(Utility, AFormatWithAnExactPromptIsScoredFromItsQuantizedCache) {
  const std::string plan = "*:int4.asym.token.exact,7:fp";
  const World world = ConcentratedWorld(0.05);
  const StudyContext context = ContextOf(world, Mitigate({plan}));
  CellFactory factory(context);
  ASSERT_OK_AND_ASSIGN(const PlannedCell scored, factory.Score(plan, ""));
  EXPECT_EQ(scored.spec.plan(), "*:int4.asym.token,7:fp");
  ASSERT_OK_AND_ASSIGN(const PlannedCell same, factory.Score("*:int4.asym.token,7:fp", ""));
  EXPECT_EQ(scored.key, same.key);
  ASSERT_OK_AND_ASSIGN(const StudyRun run, RunStudy(world, context));
  const v1::UtilityResult& utility = run.report.plans(0).utility();
  EXPECT_TRUE(utility.has_perplexity());
  EXPECT_GT(utility.perplexity_ratio(), 1);
  EXPECT_EQ(utility.scored_plan(), "*:int4.asym.token,7:fp");
  EXPECT_THAT(run.report.warnings(), Contains(HasSubstr("`seen` in place of `exact`")));
  const StudyRun seen = Must(world, Mitigate({"*:int4.asym.token,7:fp"}));
  EXPECT_THAT(seen.report.warnings(), Not(Contains(HasSubstr("in place of"))));
}

TEST(Utility, KivisKeysAndValuesAreReadAsTheyAreStored) {
  const World world = ConcentratedWorld(0.05);
  const StudyContext context = ContextOf(world, DiagnoseOf());
  ASSERT_OK_AND_ASSIGN(const std::string plan,
                       ReadAsStored("*:int4.affine.channel.window128x32.post.perhead.exact|"
                                    "int4.affine.group32.window128.perhead.exact",
                                    context.model, false));
  EXPECT_THAT(plan, AllOf(HasSubstr("window128x32"), HasSubstr("group32"), HasSubstr("|"),
                          Not(HasSubstr("exact"))));
}

void ExpectUnmeasured(const World& world, const std::string& why) {
  const StudyRun run = Must(world, Mitigate({kDear}));
  const v1::UtilityResult& utility = run.report.plans(0).utility();
  EXPECT_FALSE(utility.has_perplexity()) << why;
  EXPECT_FALSE(utility.passed()) << why;
  EXPECT_THAT(utility.explanation(),
              AllOf(HasSubstr("perplexity could not be measured: "), HasSubstr(why)));
  EXPECT_TRUE(run.report.headline().recommended_plan().empty()) << why;
}

TEST(Utility, APerplexityThatSaysNothingDoesNotPass) {
  World world = ConcentratedWorld(0.05);
  world.score_nonfinite = {kDear};
  ExpectUnmeasured(world, "a NaN or an infinity reached the logits");
  world.score_nonfinite = {"*:fp"};
  ExpectUnmeasured(world, "the baseline");
  world = ConcentratedWorld(0.05);
  world.score_tokens[kDear] = 400;
  ExpectUnmeasured(world, "400 tokens were scored, 1000 of the baseline's text");
  world = ConcentratedWorld(0.05);
  world.score_quantized_share = 0.4;
  ExpectUnmeasured(world, "36.7% of the attended K and V elements");
}

TEST(Utility, WhatWasNotMeasuredDoesNotHold) {
  const World world = ConcentratedWorld(0.05);
  StudyContext context = ContextOf(world, DiagnoseOf());
  v1::UtilityResult utility;
  EXPECT_THAT(UtilityGuardOf(context, utility).unmeasured, SizeIs(2));
  EXPECT_FALSE(UtilityGuardOf(context, utility).holds());
  utility.set_has_perplexity(true);
  utility.set_perplexity_ratio(1.01);
  EXPECT_THAT(UtilityGuardOf(context, utility).unmeasured,
              ElementsAre(HasSubstr("none of 60 harmless prompts has a verdict")));
  utility.set_harmless(60);
  EXPECT_TRUE(UtilityGuardOf(context, utility).holds());
  utility.set_harmless_refused(4);
  EXPECT_FALSE(UtilityGuardOf(context, utility).holds());
  // Without a text and without harmless prompts there is nothing to hold; the report warns.
  context.utility_text.clear();
  context.prompts.clear();
  EXPECT_TRUE(UtilityGuardOf(context, v1::UtilityResult()).holds());
}

}  // namespace
}  // namespace plumbline::testing
