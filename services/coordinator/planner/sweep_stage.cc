// Whole prompt sets under a list of plans: the deployment preset at falling widths and the target.
#include <set>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/strip.h"
#include "services/common/status_macros.h"
#include "services/coordinator/planner/counting.h"
#include "services/coordinator/planner/may_ship.h"
#include "services/coordinator/planner/plan_text.h"
#include "services/coordinator/planner/selection.h"
#include "services/coordinator/planner/stages.h"

namespace plumbline {
namespace {

constexpr int kWidths[] = {8, 6, 5, 4, 3, 2};

std::vector<std::string> PlansOf(const v1::Study& study) {
  std::vector<std::string> plans;
  if (study.has_custom()) {
    return {study.custom().plans().begin(), study.custom().plans().end()};
  }
  if (study.has_sweep() && study.sweep().plans_size() > 0) {
    return {study.sweep().plans().begin(), study.sweep().plans().end()};
  }
  if (study.has_sweep() || study.has_diagnose()) {
    for (int bits : kWidths) {
      plans.push_back(absl::StrCat("*:int", bits, ".", kDeploymentSymmetryAndGranularity));
    }
  }
  return plans;
}

Condition SweepCondition(const StudyContext& context, const std::string& name,
                         const std::string& plan) {
  return {.name = name,
          .plan = plan,
          .stage = "sweep",
          .prompts_label = "all",
          .prompts = AllPrompts(context)};
}

// One condition a distinct plan. The target gets a condition of its own only if no width is equal
// to it.
absl::StatusOr<std::vector<Condition>> SweepConditions(const StudyContext& context) {
  CellFactory factory(context);
  std::vector<Condition> conditions;
  std::set<std::string> seen;
  for (const std::string& plan : PlansOf(context.study)) {
    PLUMB_ASSIGN_OR_RETURN(std::string canonical, factory.Canonical(plan));
    if (!seen.insert(canonical).second) continue;
    conditions.push_back(SweepCondition(context, std::string(absl::StripPrefix(plan, "*:")), plan));
  }
  if (context.study.has_custom()) return conditions;
  PLUMB_ASSIGN_OR_RETURN(std::string target, factory.Canonical(TargetPlan(context.study)));
  if (seen.insert(target).second) conditions.push_back(TargetCondition(context));
  return conditions;
}

// The narrowest width that may ship together with every wider one, by the headline's own rule.
std::string LowestSafe(const v1::Report& report, double limit) {
  std::string lowest;
  for (int bits : kWidths) {
    const std::string name = absl::StrCat("int", bits, ".", kDeploymentSymmetryAndGranularity);
    for (const v1::ConditionResult& r : report.sweep()) {
      if (r.name() != name) continue;
      if (DecideShip(report, r, limit).decision != v1::DECISION_SHIP) return lowest;
      lowest = name;
    }
  }
  return lowest;
}

class SweepStage final : public ConditionStage {
 public:
  std::string name() const override { return "sweep"; }
  bool NextMayBegin() const override { return true; }

  absl::Status Conclude(const StudyContext& context, const ResultView& results, Peers& peers,
                        v1::Report* report) const override {
    PLUMB_ASSIGN_OR_RETURN(std::vector<Condition> conditions, SweepConditions(context));
    report->clear_sweep();
    std::vector<v1::ConditionResult*> family;
    for (const Condition& condition : conditions) {
      PLUMB_ASSIGN_OR_RETURN(*report->add_sweep(),
                             CountCondition(context, results, condition, /*whole_sets=*/true));
    }
    for (v1::ConditionResult& r : *report->mutable_sweep()) family.push_back(&r);
    PLUMB_RETURN_IF_ERROR(AdjustFamily(family));
    if (context.study.has_custom()) return CheckAnyMeasured(*report);
    PLUMB_RETURN_IF_ERROR(CopyTarget(context, report));
    PLUMB_RETURN_IF_ERROR(CheckMeasured(report->target()));
    report->set_lowest_safe_format(LowestSafe(*report, context.study.flip_limit()));
    return absl::OkStatus();
  }

  StageBound AtMost(const StudyContext& context) const override {
    auto conditions = SweepConditions(context);
    return BoundOf(context, AllPrompts(context), conditions.ok() ? conditions->size() : 0);
  }

 protected:
  absl::StatusOr<std::vector<Condition>> Conditions(const StudyContext& context,
                                                    const v1::Report& report,
                                                    const ResultView& results) const override {
    return SweepConditions(context);
  }

 private:
  // A custom study has no target that a verdict rests on: one condition that worked is a result.
  static absl::Status CheckAnyMeasured(const v1::Report& report) {
    absl::Status first;
    for (const v1::ConditionResult& r : report.sweep()) {
      const absl::Status measured = CheckMeasured(r);
      if (measured.ok()) return measured;
      first.Update(measured);
    }
    return first;
  }

  static absl::Status CopyTarget(const StudyContext& context, v1::Report* report) {
    CellFactory factory(context);
    PLUMB_ASSIGN_OR_RETURN(std::string target, factory.Canonical(TargetPlan(context.study)));
    for (const v1::ConditionResult& r : report->sweep()) {
      if (r.plan() != target) continue;
      *report->mutable_target() = r;
      report->mutable_target()->set_name("target");
    }
    return absl::OkStatus();
  }
};

}  // namespace

Condition TargetCondition(const StudyContext& context) {
  return SweepCondition(context, "target", TargetPlan(context.study));
}

std::unique_ptr<PlannerStage> MakeSweepStage() { return std::make_unique<SweepStage>(); }

}  // namespace plumbline
