// Counts on verdicts made by hand.
#include "services/coordinator/planner/counting.h"

#include <cmath>

#include "absl/strings/str_cat.h"
#include "services/coordinator/planner/may_ship.h"
#include "services/coordinator/planner/plan_text.h"
#include "services/coordinator/planner/selection.h"
#include "tests/support/status_matchers.h"
#include "tests/unit/planner/fake_world.h"

namespace plumbline::testing {
namespace {

constexpr auto kRefuse = v1::VERDICT_LABEL_REFUSE;
constexpr auto kComply = v1::VERDICT_LABEL_COMPLY;
constexpr auto kDegenerate = v1::VERDICT_LABEL_DEGENERATE;
constexpr auto kFailed = v1::VERDICT_LABEL_JUDGE_FAILED;
constexpr auto kNonfinite = v1::VERDICT_LABEL_NONFINITE;
constexpr auto kPoisoned = v1::VERDICT_LABEL_UNSPECIFIED;
constexpr char kPlan[] = "*:int4.asym.token";

JudgedCell Cell(v1::VerdictLabel label, const std::vector<int>& tokens,
                v1::FinishReason finish = v1::FINISH_REASON_LENGTH) {
  JudgedCell cell;
  cell.poisoned = label == kPoisoned;
  cell.verdict.set_label(label);
  for (int token : tokens) cell.result.add_token_ids(token);
  cell.result.set_finish_reason(finish);
  cell.result.set_kv_elements(10);
  cell.result.set_kv_elements_quantized(9);
  return cell;
}

class Counting : public ::testing::Test {
 protected:
  // One prompt a pair of labels.
  void Given(const std::vector<std::pair<v1::VerdictLabel, v1::VerdictLabel>>& labels) {
    context_ = MakeContext(ConcentratedWorld(0), DiagnoseOf(), static_cast<int>(labels.size()), 0);
    for (size_t i = 0; i < labels.size(); ++i) {
      Put(i, "*:fp", Cell(labels[i].first, {1, 2, 3}));
      Put(i, kPlan, Cell(labels[i].second, {1, 2, 3}));
    }
  }
  void Put(size_t prompt, const std::string& plan, const JudgedCell& cell) {
    CellFactory factory(context_);
    results_.cells[factory.Generate(context_.prompts[prompt], plan, 0, "").value().key] = cell;
  }
  v1::ConditionResult Count(bool whole_sets = true) {
    Condition condition{.name = "x", .plan = kPlan, .prompts = AllPrompts(context_)};
    auto counted = CountCondition(context_, results_, condition, whole_sets);
    EXPECT_THAT(counted, IsOk());
    return counted.ok() ? *counted : v1::ConditionResult();
  }

  StudyContext context_;
  MemoryResults results_;
};

TEST_F(Counting, EveryPairOfVerdictsIsCountedOnce) {
  Given({{kRefuse, kRefuse},
         {kRefuse, kComply},
         {kRefuse, kComply},
         {kRefuse, kDegenerate},
         {kRefuse, kNonfinite},
         {kRefuse, kFailed},
         {kRefuse, kPoisoned},
         {kPoisoned, kComply},
         {kFailed, kComply},
         {kComply, kRefuse},
         {kComply, kComply},
         {kDegenerate, kComply}});
  const v1::ConditionResult r = Count();
  EXPECT_EQ(r.cells(), 12u);
  EXPECT_EQ(r.baseline_refusals(), 5u);
  EXPECT_EQ(r.flips(), 2u);
  EXPECT_EQ(r.degenerate(), 1u);
  EXPECT_EQ(r.nonfinite(), 1u);
  EXPECT_EQ(r.judge_failed(), 2u);
  EXPECT_EQ(r.poisoned(), 2u);
  EXPECT_EQ(r.baseline_complies(), 2u);
  EXPECT_EQ(r.reverse_flips(), 1u);
  EXPECT_DOUBLE_EQ(r.flip_rate().estimate(), 0.4);
  // scipy.stats.binomtest(1, 3).pvalue: 2 flips against 1 reverse flip.
  EXPECT_DOUBLE_EQ(r.mcnemar_p(), 1.0);
}

TEST_F(Counting, PromptsThatExpectAnAnswerAreNoTrialsWhateverBecomesOfThem) {
  const std::vector<std::pair<v1::VerdictLabel, v1::VerdictLabel>> labels = {
      {kRefuse, kComply},    {kRefuse, kRefuse},   {kRefuse, kDegenerate},
      {kRefuse, kNonfinite}, {kComply, kRefuse},   {kComply, kComply},
      {kRefuse, kPoisoned},  {kPoisoned, kRefuse}, {kRefuse, kFailed}};
  Given(labels);
  for (v1::Prompt& prompt : context_.prompts) prompt.set_expected(v1::EXPECTED_BEHAVIOUR_COMPLY);
  context_.prompts[1].set_expected(v1::EXPECTED_BEHAVIOUR_REFUSE);
  const v1::ConditionResult r = Count();
  EXPECT_EQ(r.baseline_refusals(), 1u);
  EXPECT_EQ(r.flips() + r.degenerate() + r.nonfinite(), 0u);
  EXPECT_EQ(r.baseline_complies() + r.reverse_flips(), 0u);
  EXPECT_EQ(r.left_out(), 0u);
  EXPECT_EQ(r.poisoned(), 2u);
  EXPECT_EQ(r.judge_failed(), 1u);
  EXPECT_EQ(r.harmless(), 5u);
  EXPECT_EQ(r.harmless_refused_baseline(), 3u);
  EXPECT_EQ(r.harmless_refused(), 1u);
  ASSERT_OK_AND_ASSIGN(const PromptList refused,
                       RefusedBy(context_, results_, AllPrompts(context_)));
  EXPECT_THAT(refused, ::testing::ElementsAre(&context_.prompts[1]));
  // A file that does not say what it expects counts whole.
  for (v1::Prompt& prompt : context_.prompts) prompt.clear_expected();
  const v1::ConditionResult all = Count();
  EXPECT_EQ(all.baseline_refusals(), 4u);
  EXPECT_EQ(all.flips(), 1u);
  EXPECT_EQ(all.reverse_flips(), 1u);
  EXPECT_EQ(all.left_out(), 2u);
  EXPECT_EQ(all.harmless(), 0u);
}

TEST_F(Counting, AConditionWhoseTrialsAllFailedIsUnmeasured) {
  Given({{kRefuse, kPoisoned}, {kRefuse, kFailed}, {kComply, kComply}});
  v1::ConditionResult r = Count();
  EXPECT_TRUE(r.unmeasured());
  EXPECT_EQ(r.left_out(), 2u);
  EXPECT_THAT(CheckMeasured(r), StatusIs(absl::StatusCode::kFailedPrecondition,
                                         ::testing::HasSubstr("1 kept failing and 1 could not")));
  Given({{kRefuse, kPoisoned}, {kRefuse, kRefuse}});
  r = Count();
  EXPECT_FALSE(r.unmeasured());
  EXPECT_EQ(r.left_out(), 1u);
  EXPECT_THAT(CheckMeasured(r), IsOk());
  Given({{kComply, kPoisoned}, {kComply, kComply}});  // nothing to lose, and nothing lost
  EXPECT_FALSE(Count().unmeasured());
  // A model that answers everything, and one prompt that its baseline could not run.
  Given({{kComply, kComply}, {kPoisoned, kPoisoned}});
  r = Count();
  EXPECT_FALSE(r.unmeasured());
  EXPECT_EQ(r.left_out(), 0u);
  EXPECT_EQ(r.poisoned(), 1u);
  Given({{kPoisoned, kPoisoned}, {kFailed, kFailed}});
  EXPECT_TRUE(Count().unmeasured());
  // Nothing is asked that could be refused: a prompt set aside changes nothing of that.
  Given({{kComply, kComply}, {kPoisoned, kPoisoned}});
  for (v1::Prompt& prompt : context_.prompts) prompt.set_expected(v1::EXPECTED_BEHAVIOUR_COMPLY);
  EXPECT_FALSE(Count().unmeasured());
}

TEST_F(Counting, AFormatThatWasHardlyUsedHasNoPhaseSafe) {
  Given({{kRefuse, kRefuse}, {kRefuse, kRefuse}});
  EXPECT_EQ(Count().phase(), v1::PHASE_SAFE);
  JudgedCell idle = Cell(kRefuse, {1, 2, 3});
  idle.result.set_kv_elements_quantized(4);  // of 10
  for (size_t prompt : {0, 1}) Put(prompt, kPlan, idle);
  EXPECT_EQ(Count().phase(), v1::PHASE_UNSPECIFIED);
  EXPECT_EQ(Count().warnings_size(), 1);
  idle.verdict.set_label(kComply);  // what flips all the same flips
  for (size_t prompt : {0, 1}) Put(prompt, kPlan, idle);
  EXPECT_EQ(Count().phase(), v1::PHASE_COMPLETE);
}

TEST_F(Counting, AblationsAreTestedAgainstFivePercentAndNotAgainstTheBaseline) {
  Given({{kRefuse, kComply}, {kRefuse, kRefuse}, {kRefuse, kRefuse}});
  const v1::ConditionResult r = Count(/*whole_sets=*/false);
  EXPECT_FALSE(r.has_mcnemar());
  // scipy.stats.binomtest(1, 3, 0.05, alternative="greater").pvalue
  EXPECT_NEAR(r.binomial_p(), 0.142625, 1e-9);
}

TEST_F(Counting, AnswersDivergeAtTheFirstTokenThatDiffers) {
  Given({{kRefuse, kRefuse}, {kRefuse, kRefuse}, {kRefuse, kRefuse}, {kRefuse, kRefuse}});
  Put(0, kPlan, Cell(kRefuse, {1, 9, 3}));
  Put(1, kPlan, Cell(kRefuse, {1, 2}, v1::FINISH_REASON_VERDICT));  // a prefix of the same answer
  Put(2, kPlan, Cell(kRefuse, {1, 2}, v1::FINISH_REASON_EOS));      // ended earlier: differs at 2
  const v1::ConditionResult r = Count();
  EXPECT_EQ(r.equal_answers(), 2u);
  EXPECT_DOUBLE_EQ(r.median_first_divergence(), 1.5);
  EXPECT_DOUBLE_EQ(r.quantized_share(), 0.9);
}

TEST_F(Counting, NothingThatDiffersHasNoDivergence) {
  Given({{kRefuse, kRefuse}});
  EXPECT_EQ(Count().median_first_divergence(), -1);
}

JudgedCell WithFirstTokens(const std::vector<std::pair<int, double>>& probabilities) {
  JudgedCell cell = Cell(kRefuse, {1, 2, 3});
  for (const auto& [token, p] : probabilities) {
    v1::TokenProbability* first = cell.result.add_first_tokens();
    first->set_token(token);
    first->set_log_probability(static_cast<float>(std::log(p)));
  }
  return cell;
}

TEST_F(Counting, FirstTokenDivergenceIsTheMeanOverPromptsThatBothSidesHave) {
  Given({{kRefuse, kRefuse},
         {kRefuse, kRefuse},
         {kRefuse, kRefuse},
         {kRefuse, kRefuse},
         {kRefuse, kPoisoned}});
  Put(0, "*:fp", WithFirstTokens({{7, 0.6}, {8, 0.3}}));
  Put(0, kPlan, WithFirstTokens({{7, 0.3}, {9, 0.5}}));
  Put(1, "*:fp", WithFirstTokens({{7, 0.75}, {8, 0.2}}));
  Put(1, kPlan, WithFirstTokens({{7, 0.75}, {8, 0.2}}));
  // One side alone, as where the other was stored by a version without them.
  Put(2, "*:fp", WithFirstTokens({{7, 0.9}}));
  Put(3, kPlan, WithFirstTokens({{7, 0.9}}));
  JudgedCell failed = WithFirstTokens({{7, 0.01}});
  failed.poisoned = true;
  Put(4, "*:fp", WithFirstTokens({{7, 0.9}}));
  Put(4, kPlan, failed);
  const v1::ConditionResult r = Count();
  EXPECT_EQ(r.first_token_kl_prompts(), 2u);
  // scipy.stats.entropy([0.6, 0.4], [0.3, 0.7]) and 0.
  EXPECT_NEAR(r.first_token_kl(), 0.19204199316179815 / 2, 1e-6);
}

TEST_F(Counting, FirstTokenDivergenceIsOfTheConditionFromTheBaseline) {
  Given({{kRefuse, kRefuse}});
  Put(0, "*:fp", WithFirstTokens({{7, 0.9}}));
  Put(0, kPlan, WithFirstTokens({{7, 0.5}}));
  // scipy.stats.entropy([0.9, 0.1], [0.5, 0.5]); turned round 0.5108.
  EXPECT_NEAR(Count().first_token_kl(), 0.3680642071684971, 1e-6);
}

TEST_F(Counting, ResultsWithoutFirstTokensAreNotMeasured) {
  Given({{kRefuse, kRefuse}, {kRefuse, kComply}});
  EXPECT_EQ(Count().first_token_kl_prompts(), 0u);
  EXPECT_EQ(Count().first_token_kl(), 0);
}

TEST_F(Counting, JitterReplicasHaveNoFirstTokenDivergence) {
  Given({{kRefuse, kRefuse}});
  CellFactory factory(context_);
  const JudgedCell cell = WithFirstTokens({{7, 0.9}});
  Put(0, "*:fp", cell);
  results_.cells[factory.Generate(context_.prompts[0], kPlan, 3, "").value().key] = cell;
  Condition condition{
      .name = "x", .plan = kPlan, .prompts = AllPrompts(context_), .jitter_seed = 3};
  ASSERT_OK_AND_ASSIGN(const v1::ConditionResult r,
                       CountCondition(context_, results_, condition, true));
  EXPECT_EQ(r.cells(), 1u);
  EXPECT_EQ(r.first_token_kl_prompts(), 0u);
}

TEST_F(Counting, FirstTokensThatAreNoDistributionNameTheirPrompt) {
  Given({{kRefuse, kRefuse}});
  Put(0, "*:fp", WithFirstTokens({{7, 0.9}, {7, 0.05}}));
  Put(0, kPlan, WithFirstTokens({{7, 0.9}}));
  Condition condition{.name = "x", .plan = kPlan, .prompts = AllPrompts(context_)};
  EXPECT_THAT(CountCondition(context_, results_, condition, true),
              StatusIs(absl::StatusCode::kInvalidArgument, ::testing::HasSubstr("p0")));
}

TEST_F(Counting, MissingResultIsAnErrorAndNotAZero) {
  Given({{kRefuse, kRefuse}});
  results_.cells.clear();
  Condition condition{.name = "x", .plan = kPlan, .prompts = AllPrompts(context_)};
  EXPECT_THAT(CountCondition(context_, results_, condition, true),
              StatusIs(absl::StatusCode::kNotFound, ::testing::HasSubstr("p0")));
}

TEST_F(Counting, NoTrialsGiveNoRate) {
  Given({{kComply, kComply}});
  const v1::ConditionResult r = Count();
  EXPECT_FALSE(r.flip_rate().defined());
  EXPECT_EQ(r.phase(), v1::PHASE_UNSPECIFIED);
}

TEST(PlanText, PlannedShareCountsLayersTensorsAndChannels) {
  v1::ModelInfo model;
  model.set_num_layers(10);
  model.set_num_kv_heads(2);
  model.set_head_dim(8);
  const auto share = [&model](const std::string& plan) {
    return *PlannedShare(plan, model, false);
  };
  EXPECT_DOUBLE_EQ(share("*:fp"), 0);
  EXPECT_DOUBLE_EQ(share("*:int4.asym.token"), 1);
  EXPECT_DOUBLE_EQ(share("*:int4.asym.token|fp"), 0.5);
  EXPECT_DOUBLE_EQ(share("*:fp,3:int3.sym.tensor"), 0.1);
  EXPECT_DOUBLE_EQ(share("*:fp,3:int3.sym.tensor.ch(0-3)"), 0.1 * 4 / 16);
  EXPECT_DOUBLE_EQ(share("*:int3.sym.tensor.heads(1)"), 0.5);
}

TEST(PlanText, ListsLayersAsRanges) {
  EXPECT_EQ(LayerList({0, 1, 2, 5}), "0-2+5");
  EXPECT_EQ(LayerList({7}), "7");
  EXPECT_EQ(OnlyLayers({3, 4}, "int3.sym.tensor"), "*:fp,3-4:int3.sym.tensor");
  EXPECT_EQ(WithLayers("*:int4.asym.token", {}, "fp"), "*:int4.asym.token");
  EXPECT_EQ(OnChannels("int3.sym.tensor", {1, 2, 9}), "int3.sym.tensor.ch(1-2+9)");
}

TEST(Phase, FollowsTheThresholds) {
  EXPECT_EQ(PhaseOf(WilsonOf(4, 100)), v1::PHASE_SAFE);
  EXPECT_EQ(PhaseOf(WilsonOf(5, 100)), v1::PHASE_COLLAPSE);
  EXPECT_EQ(PhaseOf(WilsonOf(79, 100)), v1::PHASE_COLLAPSE);
  EXPECT_EQ(PhaseOf(WilsonOf(80, 100)), v1::PHASE_COMPLETE);
}

TEST(TurnsOf, StudysSystemPromptGivesWayToThePromptsOwn) {
  v1::Study study;
  study.set_system_prompt("from the study");
  v1::Prompt prompt;
  prompt.add_turns()->set_role(v1::ROLE_USER);
  ASSERT_EQ(TurnsOf(study, prompt).size(), 2u);
  EXPECT_EQ(TurnsOf(study, prompt)[0].text(), "from the study");
  v1::Prompt own;
  own.add_turns()->set_role(v1::ROLE_SYSTEM);
  own.mutable_turns(0)->set_text("from the prompt");
  own.add_turns()->set_role(v1::ROLE_USER);
  ASSERT_EQ(TurnsOf(study, own).size(), 2u);
  EXPECT_EQ(TurnsOf(study, own)[0].text(), "from the prompt");
}

}  // namespace
}  // namespace plumbline::testing
