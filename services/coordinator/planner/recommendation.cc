#include "services/coordinator/planner/recommendation.h"

#include <algorithm>
#include <cmath>
#include <cstdlib>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "services/common/figures.h"
#include "services/common/status_macros.h"
#include "services/coordinator/planner/counting.h"
#include "services/coordinator/planner/may_ship.h"
#include "services/coordinator/planner/plan_text.h"
#include "services/coordinator/planner/selection.h"
#include "services/coordinator/planner/stages.h"
#include "services/pcr/recommend.h"

namespace plumbline {
namespace {

// The classifier's kinds by the names it gives; every other name is a neighbour or the user's own.
CandidateKind KindOf(const v1::PlanResult& plan) {
  if (plan.from_mode()) return CandidateKind::kMode;
  for (const char* prefix : {"uniform-", "random-", "first-", "last-"}) {
    if (absl::StartsWith(plan.name(), prefix)) return CandidateKind::kBaseline;
  }
  if (absl::StartsWith(plan.name(), "greedy-")) return CandidateKind::kGreedy;
  return CandidateKind::kNeighbour;
}

absl::StatusOr<Guards> GuardsOf(const StudyContext& context, const v1::ConditionResult& counts) {
  Guards guards;
  guards.degenerate =
      FlipCount{.flips = static_cast<int64_t>(counts.degenerate() + counts.nonfinite()),
                .prompts = static_cast<int64_t>(counts.baseline_refusals())};
  PLUMB_ASSIGN_OR_RETURN(
      bool fp, IsFullPrecision(counts.plan(), context.model, context.study.paper_quirks()));
  // A plan that quantizes nothing by design is no plan that was hardly tested.
  guards.quantized_share = fp ? 1 : counts.quantized_share();
  return guards;
}

void AddUtility(const UtilityGuard& utility, Guards* guards) {
  guards->perplexity_ratio = utility.perplexity_ratio;
  guards->harmless_refusal_increase = utility.harmless_increase;
  guards->unmeasured = utility.unmeasured;
}

// The farthest that noise moves the flips of a condition. Verdicts that change one way and the
// other cancel in that; few replicas may show none by chance, so it is at least the root of how
// many change in a replica, as if each went either way alike.
FlipCount NoiseOf(const v1::ConditionResult& counts) {
  FlipCount moved{.flips = 0, .prompts = static_cast<int64_t>(counts.floor_prompts())};
  const double replicas = std::max(1, counts.replica_flips_size());
  moved.flips = static_cast<int64_t>(
      std::ceil(std::sqrt(static_cast<double>(counts.floor_changes()) / replicas)));
  for (const uint64_t flips : counts.replica_flips()) {
    const int64_t by =
        std::abs(static_cast<int64_t>(flips) - static_cast<int64_t>(counts.floor_flips()));
    moved.flips = std::max(moved.flips, by);
  }
  return moved;
}

// The larger of what noise does to the plan's and to the target's flips.
void AddFloor(const v1::ConditionResult& plan, const v1::ConditionResult& target,
              PlanTrial* trial) {
  if (!plan.floor_measured() || !target.floor_measured()) return;
  const FlipCount of_plan = NoiseOf(plan);
  const FlipCount of_target = NoiseOf(target);
  trial->noise = of_plan.rate() > of_target.rate() ? of_plan : of_target;
}

absl::StatusOr<PlanTrial> TrialOf(const StudyContext& context, const v1::Report& report,
                                  const v1::PlanResult& plan, const v1::ConditionResult& counts,
                                  const PairedOutcomes& pairs) {
  PlanTrial trial{.name = plan.name(), .plan = plan.plan(), .kind = KindOf(plan)};
  trial.against_target = pairs;
  trial.memory_ratio = plan.memory_vs_target();
  PLUMB_ASSIGN_OR_RETURN(trial.guards, GuardsOf(context, counts));
  AddFloor(counts, report.target(), &trial);
  return trial;
}

// The plans of the report that `wanted` holds for, as validation measured them.
struct Validated {
  std::vector<PlanTrial> trials;
  std::vector<int> plans;  // index in the report, one a trial
};
template <typename Wanted>
absl::StatusOr<Validated> ValidatedPlans(const StudyContext& context, const v1::Report& report,
                                         const ResultView& results, Wanted wanted) {
  PLUMB_ASSIGN_OR_RETURN(const std::vector<Condition> conditions,
                         ValidationConditions(context, report, results));
  Validated validated;
  for (int i = 0; i < report.plans_size(); ++i) {
    const v1::PlanResult& plan = report.plans(i);
    if (!wanted(plan)) continue;
    PLUMB_ASSIGN_OR_RETURN(
        const PairedOutcomes pairs,
        PairsAgainstTarget(context, results, conditions[static_cast<size_t>(i)]));
    PLUMB_ASSIGN_OR_RETURN(PlanTrial trial,
                           TrialOf(context, report, plan, plan.validation(), pairs));
    validated.trials.push_back(std::move(trial));
    validated.plans.push_back(i);
  }
  return validated;
}

absl::StatusOr<RecommendOptions> OptionsOf(const StudyContext& context, const v1::Report& report) {
  RecommendOptions options;
  options.baseline_refusals = static_cast<int64_t>(report.baseline().baseline_refusals());
  options.policy = context.study.policy() == v1::POLICY_PAPER ? Policy::kPaper : Policy::kPlumbline;
  options.flip_limit = context.study.flip_limit();
  options.max_perplexity_ratio = kMaxPerplexityRatio;
  options.max_harmless_increase = kMaxMoreHarmlessRefusals;
  options.min_quantized_share = kMinQuantizedShare;
  options.require_utility = false;  // a guard that this study wants is in Guards.unmeasured
  options.require_floor = context.study.jitter_replicas() > 0;
  PLUMB_ASSIGN_OR_RETURN(options.target_guards, GuardsOf(context, report.target()));
  options.target_may_ship = !NeedsRepair(report);
  return options;
}

// How many refused prompts will confirm the winner.
absl::StatusOr<int64_t> ConfirmingRefusals(const StudyContext& context, const ResultView& results) {
  PLUMB_ASSIGN_OR_RETURN(ConfirmingPrompts confirming, ConfirmingPromptsOf(context, results));
  PLUMB_ASSIGN_OR_RETURN(PromptList refused, RefusedBy(context, results, confirming.prompts));
  return static_cast<int64_t>(refused.size());
}

void Select(const Finalists& finalists, const std::vector<int>& plans, v1::Report* report) {
  for (size_t rival : finalists.rivals) report->mutable_plans(plans[rival])->set_finalist(true);
  if (!finalists.winner.has_value()) return;
  v1::PlanResult* winner = report->mutable_plans(plans[*finalists.winner]);
  winner->set_winner(true);
  winner->set_finalist(true);
}

// The winner first, then the rivals, as RecommendPlan wants them.
std::vector<v1::PlanResult*> FinalistsOf(v1::Report* report) {
  std::vector<v1::PlanResult*> finalists;
  for (v1::PlanResult& plan : *report->mutable_plans()) {
    if (plan.winner()) finalists.push_back(&plan);
  }
  for (v1::PlanResult& plan : *report->mutable_plans()) {
    if (plan.finalist() && !plan.winner()) finalists.push_back(&plan);
  }
  return finalists;
}

// The table shows the same numbers as the sentence.
void SetFinalRecovery(const TrialSummary& summary, v1::PlanResult* plan) {
  if (!summary.recovery.has_value()) return;
  plan->mutable_recovery()->set_low(summary.recovery->interval.lower);
  plan->mutable_recovery()->set_high(summary.recovery->interval.upper);
}

std::string FloorText(const std::string& plan, const v1::ConditionResult& counts) {
  if (!counts.floor_measured()) return "";
  return absl::StrCat(" Under numeric noise ", plan, " flips ",
                      absl::StrJoin(counts.replica_flips(), " and "), " of ",
                      counts.floor_prompts(), " (undisturbed ", counts.floor_flips(), ").");
}

// Trials without a verdict are no evidence that a plan holds.
void AddLeftOut(const v1::ConditionResult& counts, double limit, std::vector<std::string>* why) {
  if (!LeftOutMayExceed(counts, limit)) return;
  why->push_back(absl::StrCat(CountText(counts.left_out(), "refusal"),
                              counts.left_out() == 1 ? " has" : " have", " no verdict under it"));
}

bool UtilityFailed(const v1::PlanResult& plan) {
  return plan.has_utility() && !plan.utility().passed();
}

// What is said of a plan that no test decides about.
void ExplainNotChosen(v1::Report* report) {
  for (v1::PlanResult& plan : *report->mutable_plans()) {
    const std::string why = plan.finalist() ? "did not win on validation" : "not a finalist";
    plan.set_recommended(false);
    plan.set_not_recommended_because(
        UtilityFailed(plan) ? absl::StrCat(why, ": ", plan.utility().explanation()) : why);
  }
}

void Explain(const Recommendation& recommendation, const std::vector<v1::PlanResult*>& plans,
             v1::Report* report) {
  for (size_t i = 0; i < plans.size(); ++i) {
    SetFinalRecovery(recommendation.trials[i], plans[i]);
    std::vector<std::string> why = recommendation.trials[i].obstacles;
    if (!plans[i]->winner()) why.insert(why.begin(), "did not win on validation");
    if (plans[i]->winner() && recommendation.outcome == Outcome::kExploratory) {
      why.insert(why.begin(), "exploratory: too few baseline refusals");
    }
    AddLeftOut(FinalCounts(*plans[i]), report->study().flip_limit(), &why);
    plans[i]->set_not_recommended_because(absl::StrJoin(why, "; "));
    plans[i]->set_recommended(plans[i]->winner() && why.empty() &&
                              recommendation.outcome == Outcome::kRecommended);
  }
}

// The plans that only their utility keeps from winning, by validation.
std::string FailedContenders(const v1::Report& report) {
  std::string text;
  for (const v1::PlanResult& plan : report.plans()) {
    if (!plan.contender() || !UtilityFailed(plan)) continue;
    const v1::ConditionResult& counts = plan.validation();
    absl::StrAppend(&text, text.empty() ? " On validation " : "; ", plan.name(), " flips ",
                    counts.flips(), " of ", counts.baseline_refusals(), ", but ",
                    plan.utility().explanation());
  }
  return text.empty() ? "" : absl::StrCat(text, ".");
}

// Why no plan won.
std::string NoneWon(const v1::Report& report) {
  if (report.headline().decision() == v1::DECISION_SHIP) {
    return "Nothing to repair: serve the target as it is.";
  }
  if (report.plans().empty() || report.plans(0).validation().cells() == 0) {
    return "No plan was tried.";
  }
  for (const v1::PlanResult& plan : report.plans()) {
    if (plan.validation().unmeasured()) continue;
    return absl::StrCat(
        "None found: no plan flips fewer refusals than the target and passes the guards.",
        FailedContenders(report));
  }
  return absl::StrCat("None found, for none could be measured: ",
                      CheckMeasured(report.plans(0).validation()).message(), ".");
}

}  // namespace

const v1::ConditionResult& FinalCounts(const v1::PlanResult& plan) {
  return plan.test().cells() > 0 ? plan.test() : plan.validation();
}

absl::StatusOr<PairedOutcomes> PairsAgainstTarget(const StudyContext& context,
                                                  const ResultView& results,
                                                  const Condition& plan) {
  Condition target = TargetCondition(context);
  target.prompts = plan.prompts;
  return PairFlips(context, results, plan, target);
}

absl::Status MarkContenders(const StudyContext& context, const ResultView& results,
                            v1::Report* report) {
  for (v1::PlanResult& plan : *report->mutable_plans()) {
    plan.set_winner(false);
    plan.set_finalist(false);
    plan.set_contender(plan.from_mode());
  }
  PLUMB_ASSIGN_OR_RETURN(
      const Validated all,
      ValidatedPlans(context, *report, results, [](const v1::PlanResult&) { return true; }));
  PLUMB_ASSIGN_OR_RETURN(RecommendOptions options, OptionsOf(context, *report));
  PLUMB_ASSIGN_OR_RETURN(options.test_prompts, ConfirmingRefusals(context, results));
  PLUMB_ASSIGN_OR_RETURN(const std::vector<size_t> contenders,
                         ChooseContenders(all.trials, options));
  for (const size_t i : contenders) report->mutable_plans(all.plans[i])->set_contender(true);
  return absl::OkStatus();
}

absl::Status MarkFinalists(const StudyContext& context, const ResultView& results,
                           v1::Report* report) {
  if (report->plans().empty()) return absl::OkStatus();
  for (v1::PlanResult& plan : *report->mutable_plans()) {
    plan.set_winner(false);
    plan.set_finalist(plan.from_mode());
  }
  PLUMB_ASSIGN_OR_RETURN(Validated contenders,
                         ValidatedPlans(context, *report, results, [](const v1::PlanResult& plan) {
                           return plan.contender();
                         }));
  for (size_t i = 0; i < contenders.plans.size(); ++i) {
    const v1::PlanResult& plan = report->plans(contenders.plans[i]);
    AddUtility(UtilityGuardOf(context, plan.utility()), &contenders.trials[i].guards);
  }
  PLUMB_ASSIGN_OR_RETURN(RecommendOptions options, OptionsOf(context, *report));
  PLUMB_ASSIGN_OR_RETURN(options.test_prompts, ConfirmingRefusals(context, results));
  PLUMB_ASSIGN_OR_RETURN(const Finalists finalists, ChooseFinalists(contenders.trials, options));
  Select(finalists, contenders.plans, report);
  if (context.study.policy() != v1::POLICY_PAPER) return absl::OkStatus();
  for (const v1::PlanResult& plan : report->plans()) {
    if (!plan.from_mode()) continue;
    for (v1::PlanResult& other : *report->mutable_plans()) other.set_winner(&other == &plan);
  }
  return absl::OkStatus();
}

absl::Status Recommend(const StudyContext& context, const ResultView& results, v1::Report* report) {
  v1::Headline* headline = report->mutable_headline();
  headline->clear_recommended_plan();
  headline->clear_recommended_name();
  ExplainNotChosen(report);
  const std::vector<v1::PlanResult*> plans = FinalistsOf(report);
  if (plans.empty() || !plans[0]->winner()) {
    headline->set_recommendation(NoneWon(*report));
    return absl::OkStatus();
  }
  PLUMB_ASSIGN_OR_RETURN(ConfirmingPrompts confirming, ConfirmingPromptsOf(context, results));
  std::vector<PlanTrial> trials;
  for (const v1::PlanResult* plan : plans) {
    const Condition condition{
        .name = plan->name(), .plan = plan->plan(), .prompts = confirming.prompts};
    PLUMB_ASSIGN_OR_RETURN(PairedOutcomes pairs, PairsAgainstTarget(context, results, condition));
    PLUMB_ASSIGN_OR_RETURN(PlanTrial trial,
                           TrialOf(context, *report, *plan, FinalCounts(*plan), pairs));
    AddUtility(UtilityGuardOf(context, plan->utility()), &trial.guards);
    trials.push_back(std::move(trial));
  }
  PLUMB_ASSIGN_OR_RETURN(RecommendOptions options, OptionsOf(context, *report));
  PLUMB_ASSIGN_OR_RETURN(Recommendation recommendation, RecommendPlan(trials, options));
  Explain(recommendation, plans, report);
  headline->set_recommendation(
      absl::StrCat(recommendation.sentence, FloorText(plans[0]->name(), FinalCounts(*plans[0]))));
  if (plans[0]->recommended()) {
    headline->set_recommended_plan(plans[0]->plan());
    headline->set_recommended_name(plans[0]->name());
  } else if (recommendation.outcome == Outcome::kRecommended) {
    headline->set_recommendation(
        absl::StrCat("None found: ", plans[0]->not_recommended_because(), "."));
  }
  return absl::OkStatus();
}

}  // namespace plumbline
