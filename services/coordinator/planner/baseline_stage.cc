// The baseline: every prompt with the cache in full precision. Everything else is compared with it.
#include <map>

#include "absl/strings/str_cat.h"
#include "services/common/figures.h"
#include "services/common/status_macros.h"
#include "services/coordinator/planner/counting.h"
#include "services/coordinator/planner/may_ship.h"
#include "services/coordinator/planner/plan_text.h"
#include "services/coordinator/planner/selection.h"
#include "services/coordinator/planner/stages.h"
#include "services/pcr/policy.h"

namespace plumbline {
namespace {

Condition BaselineCondition(const StudyContext& context) {
  return {.name = "baseline",
          .plan = kFullPrecision,
          .stage = "baseline",
          .prompts_label = "all",
          .prompts = AllPrompts(context)};
}

void CountBySet(const StudyContext& context, const std::vector<PromptOutcome>& outcomes,
                v1::Provenance* provenance) {
  std::map<std::string, v1::PromptSetSummary*> by_name;
  provenance->clear_prompt_sets();
  for (const v1::PromptSetSummary& set : context.prompt_sets) {
    v1::PromptSetSummary* copy = provenance->add_prompt_sets();
    *copy = set;
    by_name.emplace(set.name(), copy);  // the first of a name has the counts
  }
  for (const PromptOutcome& outcome : outcomes) {
    auto found = by_name.find(outcome.prompt->prompt_set());
    if (found == by_name.end()) continue;
    v1::PromptSetSummary* set = found->second;
    if (outcome.label == v1::VERDICT_LABEL_REFUSE) {
      set->set_baseline_refusals(set->baseline_refusals() + 1);
      if (ExpectsAnswer(*outcome.prompt)) {
        set->set_baseline_harmless_refused(set->baseline_harmless_refused() + 1);
      }
    } else if (outcome.label == v1::VERDICT_LABEL_COMPLY) {
      set->set_baseline_complies(set->baseline_complies() + 1);
    } else if (outcome.label == v1::VERDICT_LABEL_DEGENERATE) {
      set->set_baseline_degenerate(set->baseline_degenerate() + 1);
    }
  }
}

class BaselineStage final : public ConditionStage {
 public:
  std::string name() const override { return "baseline"; }
  bool NextMayBegin() const override { return true; }

  absl::Status Conclude(const StudyContext& context, const ResultView& results, Peers& peers,
                        v1::Report* report) const override {
    report->set_experiment_id(context.experiment_id);
    *report->mutable_study() = context.study;
    const Condition condition = BaselineCondition(context);
    PLUMB_ASSIGN_OR_RETURN(*report->mutable_baseline(),
                           CountCondition(context, results, condition, /*whole_sets=*/true));
    PLUMB_RETURN_IF_ERROR(CheckMeasured(report->baseline()));
    PLUMB_ASSIGN_OR_RETURN(std::vector<PromptOutcome> outcomes,
                           OutcomesOf(context, results, condition));
    v1::Provenance* provenance = report->mutable_provenance();
    *provenance->mutable_model() = context.model;
    *provenance->mutable_numerics() = context.numerics;
    provenance->set_judge(context.study.judge());
    provenance->set_judge_version(context.judge_version);
    provenance->set_policy_version(PolicyVersion(
        context.study.policy() == v1::POLICY_PAPER ? Policy::kPaper : Policy::kPlumbline));
    CountBySet(context, outcomes, provenance);
    WarnOfRepeatedTexts(context, report);
    WarnOfFewRefusals(MinimumRefusals(context.study), report);
    return absl::OkStatus();
  }

  StageBound AtMost(const StudyContext& context) const override {
    return BoundOf(context, AllPrompts(context), 1);
  }

 protected:
  absl::StatusOr<std::vector<Condition>> Conditions(const StudyContext& context,
                                                    const v1::Report& report,
                                                    const ResultView& results) const override {
    return std::vector<Condition>{BaselineCondition(context)};
  }

 private:
  static void WarnOfRepeatedTexts(const StudyContext& context, v1::Report* report) {
    for (const v1::PromptSetSummary& set : context.prompt_sets) {
      if (set.repeated_texts() == 0) continue;
      report->add_warnings(absl::StrCat(
          set.repeated_texts(), " of ", CountText(set.prompts(), "prompt"), " of set ", set.name(),
          set.repeated_texts() == 1 ? " has" : " have", " the text of an earlier prompt and ",
          set.repeated_texts() == 1 ? "is" : "are", " left out: a text counts once"));
    }
  }

  static void WarnOfFewRefusals(uint64_t minimum, v1::Report* report) {
    const uint64_t refusals = report->baseline().baseline_refusals();
    if (refusals < kPaperMinimumPrompts) {
      report->add_warnings(absl::StrCat("the baseline refuses ", CountText(refusals, "prompt"),
                                        "; under ", kPaperMinimumPrompts,
                                        " even the published protocol says nothing"));
    } else if (refusals < minimum) {
      report->add_warnings(absl::StrCat("exploratory: the baseline refuses ",
                                        CountText(refusals, "prompt"), "; a recommendation needs ",
                                        minimum));
    }
  }
};

}  // namespace

std::unique_ptr<PlannerStage> MakeBaselineStage() { return std::make_unique<BaselineStage>(); }

}  // namespace plumbline
