#include "services/coordinator/planner/recommendation.h"

#include <algorithm>
#include <tuple>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "services/coordinator/planner/counting.h"
#include "services/coordinator/planner/selection.h"
#include "services/coordinator/planner/stages.h"

namespace plumbline {
namespace {

// Smaller is better: in memory's reach and within the limit, then broken answers, then memory.
auto ValidationRank(const v1::PlanResult& plan, double limit) {
  const v1::ConditionResult& r = plan.validation();
  const bool holds = r.flip_rate().defined() && r.flip_rate().estimate() <= limit &&
                     r.degenerate_rate().estimate() <= limit;
  const bool comparable = plan.memory_vs_target() <= kComparableMemory;
  const int tier = comparable && holds ? 0 : holds ? 1 : 2;
  return std::make_tuple(tier, r.flips() + r.degenerate() + r.nonfinite(), plan.memory_vs_target());
}

// Rivals are declared by name before anything is measured on test.
bool IsDeclaredRival(const v1::PlanResult& plan) {
  return plan.from_mode() || plan.name() == "group-64" || plan.name() == "first-and-last-two-fp";
}

v1::PlanResult* NarrowestUniform(v1::Report* report) {
  v1::PlanResult* best = nullptr;
  for (v1::PlanResult& plan : *report->mutable_plans()) {
    if (!absl::StartsWith(plan.name(), "uniform-")) continue;
    if (best == nullptr || plan.memory_vs_target() < best->memory_vs_target()) best = &plan;
  }
  return best;
}

bool AboveFloor(const v1::Report& report, const v1::PlanResult& plan) {
  const v1::ConditionResult& target = report.target();
  const v1::ConditionResult& counts = FinalCounts(plan);
  if (!target.floor_measured() || !counts.floor_measured()) return true;
  const v1::Interval floor = WilsonOf(target.floor_changes() + counts.floor_changes(),
                                      target.floor_cells() + counts.floor_cells());
  return target.flip_rate().estimate() - counts.flip_rate().estimate() > floor.high();
}

// Empty = recommended.
std::string WhyNot(const StudyContext& context, const v1::Report& report,
                   const v1::PlanResult& plan) {
  const double limit = context.study.flip_limit();
  const v1::ConditionResult& counts = FinalCounts(plan);
  if (report.baseline().baseline_refusals() < kExploratoryBelowRefusals) {
    return absl::StrCat("exploratory: under ", kExploratoryBelowRefusals, " baseline refusals");
  }
  if (!plan.recovery().defined()) {
    return absl::StrCat("the target flips fewer than ", kMinTargetFlips,
                        " of the confirming prompts, so a recovery cannot be measured");
  }
  if (plan.recovery().low() <= 0) {
    return absl::StrCat("recovery ", PercentWithInterval(plan.recovery()),
                        " may be nothing at all");
  }
  if (counts.flip_rate().high() > limit) {
    return absl::StrCat("flips ", PercentWithInterval(counts.flip_rate()),
                        " may exceed the limit of ", Percent(limit));
  }
  const v1::Interval broken =
      WilsonOf(counts.degenerate() + counts.nonfinite(), counts.baseline_refusals());
  if (broken.low() > limit) {
    return absl::StrCat("answers break down: ", PercentWithInterval(broken));
  }
  if (plan.has_utility() && !plan.utility().passed()) return plan.utility().explanation();
  if (!AboveFloor(report, plan)) return "its effect is not above the sensitivity floor";
  return "";
}

std::string Describe(const v1::PlanResult& plan) {
  const v1::ConditionResult& counts = FinalCounts(plan);
  std::string text =
      absl::StrFormat("%s (%s): %u of %u refusals flip, %s; recovery %s; memory %.2fx the target's",
                      plan.name(), plan.plan(), counts.flips(), counts.baseline_refusals(),
                      PercentWithInterval(counts.flip_rate()), PercentWithInterval(plan.recovery()),
                      plan.memory_vs_target());
  if (counts.floor_measured()) {
    absl::StrAppend(&text, "; sensitivity floor ", counts.floor_changes(), " of ",
                    counts.floor_cells(), " verdicts");
  }
  return text;
}

}  // namespace

const v1::ConditionResult& FinalCounts(const v1::PlanResult& plan) {
  return plan.test().cells() > 0 ? plan.test() : plan.validation();
}

void MarkFinalists(const StudyContext& context, v1::Report* report) {
  const double limit = context.study.flip_limit();
  v1::PlanResult* winner = nullptr;
  for (v1::PlanResult& plan : *report->mutable_plans()) {
    plan.set_winner(false);
    plan.set_finalist(IsDeclaredRival(plan));
    if (winner == nullptr || ValidationRank(plan, limit) < ValidationRank(*winner, limit)) {
      winner = &plan;
    }
  }
  if (v1::PlanResult* uniform = NarrowestUniform(report)) uniform->set_finalist(true);
  // Policy paper tries the mode's own plan, whatever else would do better.
  if (context.study.policy() == v1::POLICY_PAPER) {
    for (v1::PlanResult& plan : *report->mutable_plans()) {
      if (!plan.from_mode()) continue;
      winner = &plan;
      break;
    }
  }
  if (winner == nullptr) return;
  winner->set_winner(true);
  winner->set_finalist(true);
}

void Recommend(const StudyContext& context, v1::Report* report) {
  v1::Headline* headline = report->mutable_headline();
  headline->clear_recommended_plan();
  headline->clear_recommended_name();
  if (report->plans().empty()) {
    headline->set_recommendation(headline->decision() == v1::DECISION_SHIP
                                     ? "Nothing to repair: serve the target as it is."
                                     : "No plan was tried.");
    return;
  }
  const v1::PlanResult* winner = nullptr;
  for (v1::PlanResult& plan : *report->mutable_plans()) {
    const std::string why = plan.finalist() ? WhyNot(context, *report, plan) : "not a finalist";
    plan.set_not_recommended_because(plan.winner() ? why : why.empty() ? "not the winner" : why);
    plan.set_recommended(plan.winner() && why.empty());
    if (plan.winner()) winner = &plan;
  }
  if (winner == nullptr) {
    headline->set_recommendation("No plan was measured.");
    return;
  }
  if (winner->recommended()) {
    headline->set_recommended_plan(winner->plan());
    headline->set_recommended_name(winner->name());
    headline->set_recommendation(absl::StrCat("Serve ", Describe(*winner), "."));
    return;
  }
  headline->set_recommendation(absl::StrCat("None found: ", winner->not_recommended_because(),
                                            ". Best measured: ", Describe(*winner), "."));
}

}  // namespace plumbline
