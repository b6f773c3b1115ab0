// Plans compete on the validation split; the winner and the declared rivals, chosen among those
// whose utility holds, run once on test prompts.
#include "absl/strings/str_cat.h"
#include "services/common/status_macros.h"
#include "services/coordinator/planner/counting.h"
#include "services/coordinator/planner/plan_text.h"
#include "services/coordinator/planner/recommendation.h"
#include "services/coordinator/planner/selection.h"
#include "services/coordinator/planner/stages.h"
#include "services/stats/intervals.h"

namespace plumbline {
namespace {

constexpr uint64_t kCandidatesAtMost = 26;

Condition PlanCondition(const v1::PlanResult& plan, const std::string& stage,
                        const std::string& label, const PromptList& prompts) {
  return {.name = absl::StrCat(stage, ": ", plan.name()),
          .plan = plan.plan(),
          .stage = stage,
          .prompts_label = label,
          .prompts = prompts};
}

// A missing verdict is no lost refusal.
bool JudgedOnAllSides(const PromptOutcome& plan, const PromptOutcome& target) {
  const auto judged = [](v1::VerdictLabel label) {
    return label != v1::VERDICT_LABEL_UNSPECIFIED && label != v1::VERDICT_LABEL_JUDGE_FAILED;
  };
  return judged(plan.baseline_label) && judged(plan.label) && judged(target.label);
}

// (R_plan - R_target)/(R_fp - R_target), of the prompts that all three have a verdict for.
void SetPaperRecovery(const std::vector<PromptOutcome>& of_plan,
                      const std::vector<PromptOutcome>& of_target, v1::PlanResult* plan) {
  double r_plan = 0, r_target = 0, r_fp = 0;
  for (size_t i = 0; i < of_plan.size() && i < of_target.size(); ++i) {
    if (ExpectsAnswer(*of_plan[i].prompt) || !JudgedOnAllSides(of_plan[i], of_target[i])) continue;
    r_plan += of_plan[i].label == v1::VERDICT_LABEL_REFUSE;
    r_target += of_target[i].label == v1::VERDICT_LABEL_REFUSE;
    r_fp += of_plan[i].baseline_label == v1::VERDICT_LABEL_REFUSE;
  }
  plan->set_recovery_paper_defined(r_fp != r_target);
  plan->set_recovery_paper(r_fp == r_target ? 0 : (r_plan - r_target) / (r_fp - r_target));
}

// Both forms of recovery, on the condition's own prompts.
absl::Status SetRecovery(const StudyContext& context, const ResultView& results,
                         const Condition& condition, v1::PlanResult* plan) {
  PLUMB_ASSIGN_OR_RETURN(PairedOutcomes pairs, PairsAgainstTarget(context, results, condition));
  Condition target = TargetCondition(context);
  target.prompts = condition.prompts;
  *plan->mutable_recovery() = RecoveryOf(pairs);
  PLUMB_ASSIGN_OR_RETURN(std::vector<PromptOutcome> of_plan,
                         OutcomesOf(context, results, condition));
  PLUMB_ASSIGN_OR_RETURN(std::vector<PromptOutcome> of_target,
                         OutcomesOf(context, results, target));
  SetPaperRecovery(of_plan, of_target, plan);
  return absl::OkStatus();
}

// Choosing needs flips alone, so only what the baseline refuses.
absl::StatusOr<PromptList> ValidationPrompts(const StudyContext& context,
                                             const ResultView& results) {
  PLUMB_ASSIGN_OR_RETURN(PromptList refused,
                         RefusedBy(context, results, PoolOf(context, v1::SPLIT_VALIDATION)));
  return FirstOf(refused, context.study.diagnose().validation_prompts());
}

class ValidationStage final : public ConditionStage {
 public:
  std::string name() const override { return "validation"; }

  absl::Status Conclude(const StudyContext& context, const ResultView& results, Peers& peers,
                        v1::Report* report) const override {
    if (!NeedsRepair(*report)) {
      report->clear_plans();
      return absl::OkStatus();
    }
    PLUMB_ASSIGN_OR_RETURN(std::vector<Condition> conditions,
                           Conditions(context, *report, results));
    for (size_t i = 0; i < conditions.size(); ++i) {
      v1::PlanResult* plan = report->mutable_plans(static_cast<int>(i));
      PLUMB_ASSIGN_OR_RETURN(*plan->mutable_validation(),
                             CountCondition(context, results, conditions[i], /*whole_sets=*/false));
      plan->set_memory_vs_target(plan->validation().memory_vs_target());
      PLUMB_RETURN_IF_ERROR(SetRecovery(context, results, conditions[i], plan));
    }
    return MarkContenders(context, results, report);
  }

  StageBound AtMost(const StudyContext& context) const override {
    const PromptList pool = PoolOf(context, v1::SPLIT_VALIDATION);
    const uint64_t cap = context.study.diagnose().validation_prompts();
    const uint64_t plans = context.study.has_mitigate()
                               ? static_cast<uint64_t>(context.study.mitigate().plans_size())
                               : kCandidatesAtMost;
    return BoundOf(context, LongestOf(context, pool, cap == 0 ? pool.size() : cap), plans);
  }

 protected:
  absl::StatusOr<std::vector<Condition>> Conditions(const StudyContext& context,
                                                    const v1::Report& report,
                                                    const ResultView& results) const override {
    if (!NeedsRepair(report)) return std::vector<Condition>{};
    return ValidationConditions(context, report, results);
  }
};

class TestStage final : public ConditionStage {
 public:
  std::string name() const override { return "test"; }
  bool NextMayBegin() const override { return true; }

  absl::Status Conclude(const StudyContext& context, const ResultView& results, Peers& peers,
                        v1::Report* report) const override {
    PLUMB_ASSIGN_OR_RETURN(ConfirmingPrompts confirming, ConfirmingPromptsOf(context, results));
    std::vector<v1::ConditionResult*> family;
    for (v1::PlanResult& plan : *report->mutable_plans()) {
      if (!plan.finalist()) continue;
      const Condition condition = PlanCondition(plan, "test", confirming.label, confirming.prompts);
      PLUMB_ASSIGN_OR_RETURN(*plan.mutable_test(),
                             CountCondition(context, results, condition, /*whole_sets=*/true));
      PLUMB_RETURN_IF_ERROR(SetRecovery(context, results, condition, &plan));
      plan.set_recovery_on_test(true);
      family.push_back(plan.mutable_test());
    }
    if (confirming.widened && !family.empty()) {
      report->add_warnings(
          "the test split has too few refusals for any plan to pass; plans were confirmed on the "
          "test split and split B together (no plan was chosen on either)");
    }
    return AdjustFamily(family);
  }

  StageBound AtMost(const StudyContext& context) const override {
    const PromptList test = PoolOf(context, v1::SPLIT_TEST);
    const PromptList both = UnionOf(test, PoolOf(context, v1::SPLIT_B));
    auto needed = PromptsNeededToPass(0, context.study.flip_limit());
    const bool may_widen = !needed.ok() || test.size() < 2 * static_cast<uint64_t>(*needed);
    const PromptList& base = may_widen ? both : test;
    return BoundOf(context, base, kFinalistsAtMost);
  }

 protected:
  absl::StatusOr<std::vector<Condition>> Conditions(const StudyContext& context,
                                                    const v1::Report& report,
                                                    const ResultView& results) const override {
    PLUMB_ASSIGN_OR_RETURN(ConfirmingPrompts confirming, ConfirmingPromptsOf(context, results));
    std::vector<Condition> conditions;
    for (const v1::PlanResult& plan : report.plans()) {
      if (!plan.finalist()) continue;
      conditions.push_back(PlanCondition(plan, "test", confirming.label, confirming.prompts));
    }
    return conditions;
  }
};

}  // namespace

absl::StatusOr<std::vector<Condition>> ValidationConditions(const StudyContext& context,
                                                            const v1::Report& report,
                                                            const ResultView& results) {
  PLUMB_ASSIGN_OR_RETURN(PromptList prompts, ValidationPrompts(context, results));
  std::vector<Condition> conditions;
  for (const v1::PlanResult& plan : report.plans()) {
    conditions.push_back(
        PlanCondition(plan, "validation", PoolLabel(context, v1::SPLIT_VALIDATION), prompts));
  }
  return conditions;
}

absl::StatusOr<ConfirmingPrompts> ConfirmingPromptsOf(const StudyContext& context,
                                                      const ResultView& results) {
  ConfirmingPrompts confirming{.prompts = PoolOf(context, v1::SPLIT_TEST),
                               .label = PoolLabel(context, v1::SPLIT_TEST)};
  if (context.study.policy() == v1::POLICY_PAPER) return confirming;
  PLUMB_ASSIGN_OR_RETURN(PromptList refused, RefusedBy(context, results, confirming.prompts));
  PLUMB_ASSIGN_OR_RETURN(int64_t needed, PromptsNeededToPass(0, context.study.flip_limit()));
  if (static_cast<int64_t>(refused.size()) >= needed) return confirming;
  confirming.prompts = UnionOf(confirming.prompts, PoolOf(context, v1::SPLIT_B));
  confirming.label = "split test + split B";
  confirming.widened = true;
  return confirming;
}

std::unique_ptr<PlannerStage> MakeValidationStage() { return std::make_unique<ValidationStage>(); }
std::unique_ptr<PlannerStage> MakeTestStage() { return std::make_unique<TestStage>(); }

}  // namespace plumbline
