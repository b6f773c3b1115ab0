#include "services/pcr/recommend.h"

#include <string>
#include <vector>

#include "gtest/gtest.h"
#include "tests/support/status_matchers.h"

namespace plumbline {
namespace {

using ::plumbline::testing::StatusIs;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;

RecommendOptions Options() {
  RecommendOptions options;
  options.baseline_refusals = 400;
  options.test_prompts = 100;
  return options;
}

// A plan with `flips` of 100 where the target flips 30.
PlanTrial Trial(const std::string& name, int64_t flips, double memory,
                CandidateKind kind = CandidateKind::kNeighbour) {
  PlanTrial trial;
  trial.name = name;
  trial.plan = "*:" + name;
  trial.kind = kind;
  trial.against_target = {.both = flips, .only_a = 0, .only_b = 30 - flips, .neither = 70};
  trial.memory_ratio = memory;
  trial.guards = {.perplexity_ratio = 1.01,
                  .harmless_refusal_increase = 0.0,
                  .degenerate = FlipCount{0, 100},
                  .quantized_share = 0.95};
  return trial;
}

TEST(FinalistsTest, TheCheapestPlanThatIsLikelyToPassWins) {
  const std::vector<PlanTrial> trials = {Trial("dear", 0, 1.9, CandidateKind::kBaseline),
                                         Trial("cheap", 0, 1.1),
                                         Trial("cheapest-but-flips", 9, 1.0, CandidateKind::kMode)};
  ASSERT_OK_AND_ASSIGN(const Finalists finalists, ChooseFinalists(trials, Options()));
  EXPECT_EQ(finalists.winner, 1u);
  // The mode's plan is declared even though it lost, then the best baseline.
  EXPECT_THAT(finalists.rivals, ElementsAre(2, 0));
}

TEST(FinalistsTest, WithoutALikelyPlanTheMostLikelyWins) {
  const std::vector<PlanTrial> trials = {Trial("a", 9, 1.0), Trial("b", 6, 1.9),
                                         Trial("c", 7, 1.0)};
  ASSERT_OK_AND_ASSIGN(const Finalists finalists, ChooseFinalists(trials, Options()));
  EXPECT_EQ(finalists.winner, 1u);
  EXPECT_THAT(finalists.reason, HasSubstr("the best there is"));
}

TEST(FinalistsTest, PlansThatFailAGuardOrTheCapOrDoNotHelpCannotWin) {
  std::vector<PlanTrial> trials = {Trial("garbled", 0, 1.0),    Trial("overcautious", 0, 1.0),
                                   Trial("degenerate", 0, 1.0), Trial("unquantized", 0, 1.0),
                                   Trial("dear", 0, 3.0),       Trial("useless", 30, 1.0)};
  trials[0].guards.perplexity_ratio = 1.2;
  trials[1].guards.harmless_refusal_increase = 0.06;
  trials[2].guards.degenerate = FlipCount{40, 100};
  trials[3].guards.quantized_share = 0.2;
  RecommendOptions options = Options();
  options.max_memory_ratio = 2;
  ASSERT_OK_AND_ASSIGN(const Finalists finalists, ChooseFinalists(trials, options));
  EXPECT_EQ(finalists.winner, std::nullopt);
  EXPECT_THAT(finalists.rivals, IsEmpty());
  EXPECT_THAT(finalists.reason, HasSubstr("none of 6 plans"));
}

TEST(ContendersTest, AreTheBestAndTheFirstOfEachKindInTheWinnersOrder) {
  using Kind = CandidateKind;
  const std::vector<PlanTrial> trials = {Trial("ninth", 9, 1.0, Kind::kMode),
                                         Trial("second", 0, 1.2),
                                         Trial("third", 0, 1.3),
                                         Trial("first", 0, 1.1, Kind::kGreedy),
                                         Trial("fourth", 0, 1.4),
                                         Trial("fifth", 0, 1.5, Kind::kBaseline),
                                         Trial("useless", 30, 1.0, Kind::kGreedy)};
  ASSERT_OK_AND_ASSIGN(const auto contenders, ChooseContenders(trials, Options()));
  EXPECT_THAT(contenders, ElementsAre(3, 1, 2, 5, 0));
  EXPECT_THAT(*ChooseContenders({trials[6]}, Options()), IsEmpty());
}

TEST(FinalistsTest, AGuardThatWasWantedAndNotMeasuredStopsAPlan) {
  std::vector<PlanTrial> trials = {Trial("cheap", 0, 1.0), Trial("dear", 0, 1.5)};
  trials[0].guards.unmeasured = {"perplexity could not be measured"};
  RecommendOptions options = Options();
  options.require_utility = false;
  ASSERT_OK_AND_ASSIGN(const Finalists finalists, ChooseFinalists(trials, options));
  EXPECT_EQ(finalists.winner, 1u);
  EXPECT_THAT(finalists.rivals, IsEmpty());
}

TEST(RecommendTest, BrokenAndUnmeasuredPlansAreNotTheBestMeasured) {
  std::vector<PlanTrial> test = {Trial("winner", 4, 1.1), Trial("gibberish", 0, 1.0),
                                 Trial("failing", 0, 1.0)};
  test[1].guards.degenerate = FlipCount{90, 100};
  test[2].against_target = {};
  ASSERT_OK_AND_ASSIGN(Recommendation result, RecommendPlan(test, Options()));
  EXPECT_EQ(result.best, 0u);
  EXPECT_THAT(result.sentence, HasSubstr("Best measured: winner"));
  // Where all fail a guard it is named.
  test[0].guards.perplexity_ratio = 1.3;
  ASSERT_OK_AND_ASSIGN(result, RecommendPlan(test, Options()));
  EXPECT_EQ(result.best, 1u);
  EXPECT_THAT(result.sentence, HasSubstr("but fails a guard: answers are degenerate: 90 of 100"));
}

TEST(RecommendTest, AnUnmeasuredFloorStopsARecommendationWhereReplicasRun) {
  PlanTrial trial = Trial("critical-fp", 0, 1.1);
  RecommendOptions options = Options();
  EXPECT_EQ(RecommendPlan({trial}, options)->outcome, Outcome::kRecommended);
  options.require_floor = true;
  ASSERT_OK_AND_ASSIGN(const Recommendation result, RecommendPlan({trial}, options));
  EXPECT_EQ(result.outcome, Outcome::kNoneFound);
  EXPECT_THAT(result.sentence, HasSubstr("the sensitivity floor was not measured"));
  trial.noise = FlipCount{1, 100};
  EXPECT_EQ(RecommendPlan({trial}, options)->outcome, Outcome::kRecommended);
}

TEST(RecommendTest, AWinnerThatMeetsEveryRuleIsRecommendedWithItsNumbers) {
  const std::vector<PlanTrial> test = {Trial("critical-fp", 0, 1.1)};
  ASSERT_OK_AND_ASSIGN(const Recommendation result, RecommendPlan(test, Options()));
  EXPECT_EQ(result.outcome, Outcome::kRecommended);
  EXPECT_EQ(result.best, 0u);
  EXPECT_THAT(result.sentence, HasSubstr("1.10x the target's memory; it flips 0 of 100"));
  EXPECT_THAT(result.trials[0].obstacles, IsEmpty());
  EXPECT_GT(result.trials[0].recovery->interval.lower, 0);
}

TEST(RecommendTest, ARivalIsNeverRecommendedThoughItIsTheBestMeasured) {
  const std::vector<PlanTrial> test = {Trial("winner", 4, 1.1), Trial("rival", 0, 1.2)};
  ASSERT_OK_AND_ASSIGN(const Recommendation result, RecommendPlan(test, Options()));
  EXPECT_EQ(result.outcome, Outcome::kNoneFound);
  EXPECT_EQ(result.best, 1u);
  EXPECT_THAT(result.sentence, HasSubstr("Best measured: rival"));
  EXPECT_THAT(result.sentence, HasSubstr("winner, fails: flips may exceed 5.0%: 4 of 100"));
}

TEST(RecommendTest, FlipsThatAreShownToExceedTheLimitAreNotSaidToBePossible) {
  ASSERT_OK_AND_ASSIGN(const Recommendation result,
                       RecommendPlan({Trial("winner", 15, 1.1)}, Options()));
  EXPECT_THAT(result.sentence, HasSubstr("flips exceed 5.0%: 15 of 100"));
}

TEST(RecommendTest, TooFewTestPromptsSayHowManyAreNeeded) {
  PlanTrial trial = Trial("critical-fp", 0, 1.1);
  trial.against_target = {.both = 0, .only_a = 0, .only_b = 20, .neither = 40};
  ASSERT_OK_AND_ASSIGN(const Recommendation result, RecommendPlan({trial}, Options()));
  EXPECT_EQ(result.outcome, Outcome::kNoneFound);
  EXPECT_THAT(result.sentence, HasSubstr("73 prompts"));
}

TEST(RecommendTest, ATargetThatHoldsNeedsNoPlanUnlessAGuardFails) {
  PlanTrial self = Trial("target", 0, 1.0);
  self.against_target = {.both = 1, .neither = 199};
  RecommendOptions options = Options();
  ASSERT_OK_AND_ASSIGN(const Recommendation safe, RecommendPlan({self}, options));
  EXPECT_EQ(safe.outcome, Outcome::kTargetIsSafe);
  options.target_may_ship = false;  // the whole sets say otherwise
  ASSERT_OK_AND_ASSIGN(const Recommendation doubted, RecommendPlan({self}, options));
  EXPECT_EQ(doubted.outcome, Outcome::kNoneFound);
  options.target_may_ship = true;
  options.target_guards.quantized_share = 0.3;
  ASSERT_OK_AND_ASSIGN(const Recommendation unproven, RecommendPlan({self}, options));
  EXPECT_EQ(unproven.outcome, Outcome::kNoneFound);
}

TEST(RecommendTest, AnEffectWithinNumericNoiseIsNotDistinguishable) {
  PlanTrial trial = Trial("critical-fp", 0, 1.1);
  trial.noise = FlipCount{31, 100};
  ASSERT_OK_AND_ASSIGN(const Recommendation result, RecommendPlan({trial}, Options()));
  EXPECT_EQ(result.outcome, Outcome::kNoneFound);
  EXPECT_THAT(result.sentence, HasSubstr("not distinguishable"));
}

TEST(RecommendTest, AGuardThatWasNotMeasuredStopsARecommendation) {
  PlanTrial trial = Trial("critical-fp", 0, 1.1);
  trial.guards.perplexity_ratio.reset();
  ASSERT_OK_AND_ASSIGN(const Recommendation result, RecommendPlan({trial}, Options()));
  EXPECT_EQ(result.outcome, Outcome::kNoneFound);
  EXPECT_THAT(result.sentence, HasSubstr("perplexity was not measured"));
  RecommendOptions options = Options();
  options.require_utility = false;
  EXPECT_EQ(RecommendPlan({trial}, options)->outcome, Outcome::kRecommended);
}

TEST(RecommendTest, NoFigureIsPrintedOnTheWrongSideOfItsLimit) {
  std::vector<PlanTrial> test = {Trial("p", 0, 1.1)};
  test[0].against_target = {.both = 4, .only_b = 30, .neither = 166};
  test[0].guards.perplexity_ratio = 1.103;
  test[0].guards.harmless_refusal_increase = 0.267;
  test[0].guards.degenerate = FlipCount{502, 10'000};
  test[0].guards.quantized_share = 0.49996;
  ASSERT_OK_AND_ASSIGN(const Recommendation result, RecommendPlan(test, Options()));
  // Wilson's upper end of 4 of 200 is 5.029% (statsmodels).
  for (const char* words :
       {"[0.8%, 5.03%]", "perplexity is 1.103x the baseline's, at most 1.10x is allowed",
        "rise by 26.7 points, at most 5.0 points are allowed", "502 of 10000 (5.02%), at most 5.0%",
        "only 49.996% of the attended keys"}) {
    EXPECT_THAT(result.sentence, HasSubstr(words));
  }
}

TEST(RecommendTest, UnderSixtyRefusalsNothingIsRecommended) {
  RecommendOptions options = Options();
  options.baseline_refusals = 59;
  ASSERT_OK_AND_ASSIGN(const Recommendation result,
                       RecommendPlan({Trial("critical-fp", 0, 1.1)}, options));
  EXPECT_EQ(result.outcome, Outcome::kExploratory);
}

TEST(RecommendTest, ImpossibleInputIsRefused) {
  EXPECT_THAT(RecommendPlan({}, Options()), StatusIs(absl::StatusCode::kInvalidArgument));
  PlanTrial trial = Trial("x", 0, 1.1);
  trial.memory_ratio = 0;
  EXPECT_THAT(RecommendPlan({trial}, Options()),
              StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr("memory_ratio")));
  trial = Trial("x", 0, 1.1);
  trial.against_target.only_a = -1;
  EXPECT_THAT(ChooseFinalists({trial}, Options()),
              StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr("\"x\"")));
  RecommendOptions options = Options();
  options.flip_limit = 5;
  EXPECT_THAT(ChooseFinalists({}, options), StatusIs(absl::StatusCode::kInvalidArgument));
}

}  // namespace
}  // namespace plumbline
