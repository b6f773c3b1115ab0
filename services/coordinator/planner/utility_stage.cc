// What a repair costs elsewhere: perplexity of the finalists, and harmless prompts they newly
// refuse.
#include <cmath>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "services/common/status_macros.h"
#include "services/coordinator/planner/counting.h"
#include "services/coordinator/planner/plan_text.h"
#include "services/coordinator/planner/recommendation.h"
#include "services/coordinator/planner/selection.h"
#include "services/coordinator/planner/stages.h"

namespace plumbline {
namespace {

std::string ScoreName(const std::string& plan) { return absl::StrCat("perplexity: ", plan); }

// 0 = not measurable.
absl::StatusOr<double> Perplexity(const StudyContext& context, const ResultView& results,
                                  const std::string& plan) {
  CellFactory factory(context);
  PLUMB_ASSIGN_OR_RETURN(PlannedCell cell, factory.Score(plan, ""));
  const JudgedCell* judged = results.Find(cell.key);
  if (judged == nullptr || judged->poisoned || judged->result.nll_tokens() == 0) return 0.0;
  return std::exp(judged->result.nll_sum() / static_cast<double>(judged->result.nll_tokens()));
}

class UtilityStage final : public PlannerStage {
 public:
  std::string name() const override { return "utility"; }
  bool NextMayBegin() const override { return true; }

  absl::StatusOr<StageNeeds> Needs(const StudyContext& context, const v1::Report& report,
                                   const ResultView& results) const override {
    StageNeeds needs;
    if (context.utility_text.empty()) return needs;
    CellFactory factory(context);
    for (const v1::PlanResult& plan : report.plans()) {
      if (!plan.finalist()) continue;
      if (needs.cells.empty()) {
        PLUMB_ASSIGN_OR_RETURN(PlannedCell base,
                               factory.Score(kFullPrecision, ScoreName("baseline")));
        needs.cells.push_back(std::move(base));
      }
      PLUMB_ASSIGN_OR_RETURN(PlannedCell cell, factory.Score(plan.plan(), ScoreName(plan.name())));
      needs.cells.push_back(std::move(cell));
    }
    return needs;
  }

  absl::Status Conclude(const StudyContext& context, const ResultView& results, Peers& peers,
                        v1::Report* report) const override {
    if (!report->plans().empty()) WarnOfMissingGuards(context, report);
    for (v1::PlanResult& plan : *report->mutable_plans()) {
      if (!plan.finalist()) continue;
      v1::UtilityResult* utility = plan.mutable_utility();
      PLUMB_ASSIGN_OR_RETURN(const HarmlessCounts harmless,
                             CountHarmless(context, results, plan.plan()));
      utility->set_harmless(harmless.judged);
      utility->set_harmless_refused(harmless.refused);
      utility->set_harmless_refused_baseline(harmless.refused_baseline);
      if (!context.utility_text.empty()) {
        PLUMB_RETURN_IF_ERROR(ComparePerplexity(context, results, plan.plan(), utility));
      }
      Judge(!context.utility_text.empty(), utility);
    }
    return absl::OkStatus();
  }

  StageBound AtMost(const StudyContext& context) const override {
    if (context.utility_text.empty()) return {};
    constexpr uint64_t kPlans = 6;  // five finalists and the baseline
    // Windows overlap by a quarter, the published ones by three quarters.
    const uint64_t tokens_per_token = context.study.policy() == v1::POLICY_PAPER ? 4 : 2;
    return {kPlans, kPlans * tokens_per_token * (context.utility_text.size() / 4 + 1)};
  }

 private:
  static void WarnOfMissingGuards(const StudyContext& context, v1::Report* report) {
    if (context.utility_text.empty()) {
      report->add_warnings("no utility text was given: perplexity does not guard the plans");
    }
    if (ExpectedToComply(AllPrompts(context)).empty()) {
      report->add_warnings(
          "no prompt is expected to be answered: over-refusal does not guard the plans");
    }
  }

  static absl::Status ComparePerplexity(const StudyContext& context, const ResultView& results,
                                        const std::string& plan, v1::UtilityResult* utility) {
    PLUMB_ASSIGN_OR_RETURN(double own, Perplexity(context, results, plan));
    PLUMB_ASSIGN_OR_RETURN(double base, Perplexity(context, results, kFullPrecision));
    if (own == 0 || base == 0) return absl::OkStatus();
    utility->set_has_perplexity(true);
    utility->set_perplexity(own);
    utility->set_perplexity_ratio(own / base);
    return absl::OkStatus();
  }

  static void Judge(bool wants_perplexity, v1::UtilityResult* utility) {
    const bool refusals_ok = HarmlessOf(*utility).increase() <= kMaxMoreHarmlessRefusals;
    const bool perplexity_ok =
        !utility->has_perplexity() || utility->perplexity_ratio() <= kMaxPerplexityRatio;
    const bool measured = !wants_perplexity || utility->has_perplexity();
    utility->set_passed(refusals_ok && perplexity_ok && measured);
    std::string text = absl::StrFormat("%u of %u harmless prompts refused, %u by the baseline",
                                       utility->harmless_refused(), utility->harmless(),
                                       utility->harmless_refused_baseline());
    if (utility->has_perplexity()) {
      absl::StrAppend(&text, absl::StrFormat("; perplexity %.2fx", utility->perplexity_ratio()));
    } else if (wants_perplexity) {
      absl::StrAppend(&text, "; perplexity could not be measured");
    }
    if (!utility->passed()) text = absl::StrCat("utility guard: ", text);
    utility->set_explanation(text);
  }
};

}  // namespace

std::unique_ptr<PlannerStage> MakeUtilityStage() { return std::make_unique<UtilityStage>(); }

}  // namespace plumbline
