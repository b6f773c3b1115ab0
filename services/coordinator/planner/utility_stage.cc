// What a repair costs elsewhere: perplexity of the contenders, and harmless prompts they newly
// refuse. It runs before the choice, which it decides with validation: no refusal of the test
// prompts is spent on a plan that cannot be served.
#include <cmath>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/strings/str_join.h"
#include "services/common/status_macros.h"
#include "services/coordinator/planner/counting.h"
#include "services/coordinator/planner/plan_text.h"
#include "services/coordinator/planner/recommendation.h"
#include "services/coordinator/planner/selection.h"
#include "services/coordinator/planner/stages.h"
#include "services/coordinator/planner/utility_guard.h"

namespace plumbline {
namespace {

struct Score {
  double perplexity = 0;
  uint64_t tokens = 0;
};

// FailedPrecondition says why the cell gives no number.
absl::StatusOr<Score> ScoreOf(const StudyContext& context, const ResultView& results,
                              const std::string& plan) {
  CellFactory factory(context);
  PLUMB_ASSIGN_OR_RETURN(PlannedCell cell, factory.Score(plan, ""));
  const JudgedCell* judged = results.Find(cell.key);
  if (judged == nullptr) return absl::NotFoundError("the utility text is not scored yet");
  if (judged->poisoned) {
    return absl::FailedPreconditionError(
        absl::StrCat("its cell kept failing: ", judged->poison_reason));
  }
  const v1::CellResult& result = judged->result;
  if (result.finish_reason() == v1::FINISH_REASON_NONFINITE || !std::isfinite(result.nll_sum())) {
    return absl::FailedPreconditionError("a NaN or an infinity reached the logits");
  }
  if (result.nll_tokens() == 0) return absl::FailedPreconditionError("no token was scored");
  PLUMB_ASSIGN_OR_RETURN(const double planned, PlannedShare(cell.spec.plan(), context.model,
                                                            context.study.paper_quirks()));
  const double share = result.kv_elements() == 0
                           ? 0
                           : static_cast<double>(result.kv_elements_quantized()) /
                                 static_cast<double>(result.kv_elements());
  if (share < kMinQuantizedShare * planned) {
    return absl::FailedPreconditionError(absl::StrFormat(
        "only %.3g%% of the attended K and V elements were quantized where the plan quantizes "
        "%.3g%%: use a longer text",
        100 * share, 100 * planned));
  }
  return Score{std::exp(result.nll_sum() / static_cast<double>(result.nll_tokens())),
               result.nll_tokens()};
}

std::string ScoreName(const std::string& plan) { return absl::StrCat("perplexity: ", plan); }

absl::Status AddScores(const StudyContext& context, const v1::PlanResult& plan, StageNeeds* needs) {
  if (context.utility_text.empty()) return absl::OkStatus();
  CellFactory factory(context);
  if (needs->cells.empty()) {
    PLUMB_ASSIGN_OR_RETURN(PlannedCell base, factory.Score(kFullPrecision, ScoreName("baseline")));
    needs->cells.push_back(std::move(base));
  }
  PLUMB_ASSIGN_OR_RETURN(PlannedCell cell, factory.Score(plan.plan(), ScoreName(plan.name())));
  needs->cells.push_back(std::move(cell));
  return absl::OkStatus();
}

absl::Status AddHarmless(const StudyContext& context, const v1::PlanResult& plan,
                         StageNeeds* needs) {
  CellFactory factory(context);
  return factory.AddCells({.name = absl::StrCat("harmless: ", plan.name()),
                           .plan = plan.plan(),
                           .prompts = ExpectedToComply(AllPrompts(context))},
                          needs);
}

// Why there is no ratio; FailedPrecondition.
absl::StatusOr<double> PerplexityRatio(const StudyContext& context, const ResultView& results,
                                       const std::string& plan, double* perplexity) {
  PLUMB_ASSIGN_OR_RETURN(const Score own, ScoreOf(context, results, plan));
  auto base = ScoreOf(context, results, kFullPrecision);
  if (!base.ok()) return Annotate(base.status(), "the baseline");
  if (own.tokens != base->tokens) {
    return absl::FailedPreconditionError(
        absl::StrCat(own.tokens, " tokens were scored, ", base->tokens, " of the baseline's text"));
  }
  *perplexity = own.perplexity;
  return own.perplexity / base->perplexity;
}

// ", why" where the perplexity has no number.
absl::StatusOr<std::string> MeasurePerplexity(const StudyContext& context,
                                              const ResultView& results, const std::string& plan,
                                              v1::UtilityResult* utility) {
  if (context.utility_text.empty()) return std::string();
  CellFactory factory(context);
  PLUMB_ASSIGN_OR_RETURN(const PlannedCell cell, factory.Score(plan, ""));
  utility->set_scored_plan(cell.spec.plan());
  double perplexity = 0;
  const auto ratio = PerplexityRatio(context, results, plan, &perplexity);
  if (absl::IsFailedPrecondition(ratio.status())) {
    return absl::StrCat(": ", ratio.status().message());
  }
  if (!ratio.ok()) return ratio.status();
  utility->set_has_perplexity(true);
  utility->set_perplexity(perplexity);
  utility->set_perplexity_ratio(*ratio);
  return std::string();
}

void Judge(const StudyContext& context, const std::string& why_no_perplexity,
           v1::UtilityResult* utility) {
  const UtilityGuard guard = UtilityGuardOf(context, *utility);
  utility->set_passed(guard.holds());
  std::vector<std::string> parts = {absl::StrFormat(
      "%u of %u harmless prompts refused, %u by the baseline", utility->harmless_refused(),
      utility->harmless(), utility->harmless_refused_baseline())};
  if (utility->has_perplexity()) {
    parts.push_back(absl::StrFormat("perplexity %.2fx", utility->perplexity_ratio()));
  }
  parts.insert(parts.end(), guard.unmeasured.begin(), guard.unmeasured.end());
  utility->set_explanation(absl::StrCat(
      guard.holds() ? "" : "utility guard: ", absl::StrJoin(parts, "; "), why_no_perplexity));
}

class UtilityStage final : public PlannerStage {
 public:
  std::string name() const override { return "utility"; }

  absl::StatusOr<StageNeeds> Needs(const StudyContext& context, const v1::Report& report,
                                   const ResultView& results) const override {
    StageNeeds needs;
    for (const v1::PlanResult& plan : report.plans()) {
      if (plan.contender()) PLUMB_RETURN_IF_ERROR(AddScores(context, plan, &needs));
    }
    for (const v1::PlanResult& plan : report.plans()) {
      if (plan.contender()) PLUMB_RETURN_IF_ERROR(AddHarmless(context, plan, &needs));
    }
    return needs;
  }

  absl::Status Conclude(const StudyContext& context, const ResultView& results, Peers& peers,
                        v1::Report* report) const override {
    if (!report->plans().empty()) WarnOfMissingGuards(context, report);
    for (v1::PlanResult& plan : *report->mutable_plans()) {
      if (!plan.contender()) continue;
      v1::UtilityResult* utility = plan.mutable_utility();
      utility->Clear();
      PLUMB_ASSIGN_OR_RETURN(const HarmlessCounts harmless,
                             CountHarmless(context, results, plan.plan()));
      utility->set_harmless(harmless.judged);
      utility->set_harmless_refused(harmless.refused);
      utility->set_harmless_refused_baseline(harmless.refused_baseline);
      PLUMB_ASSIGN_OR_RETURN(const std::string why,
                             MeasurePerplexity(context, results, plan.plan(), utility));
      Judge(context, why, utility);
    }
    TellWhatWasScored(report);
    return MarkFinalists(context, results, report);
  }

  StageBound AtMost(const StudyContext& context) const override {
    StageBound bound = BoundOf(context, ExpectedToComply(AllPrompts(context)), kContendersAtMost);
    if (context.utility_text.empty()) return bound;
    constexpr uint64_t kPlans = kContendersAtMost + 1;  // and the baseline
    // Windows overlap by a quarter, the published ones by three quarters.
    const uint64_t tokens_per_token = context.study.policy() == v1::POLICY_PAPER ? 4 : 2;
    bound.cells += kPlans;
    bound.tokens += kPlans * tokens_per_token * (context.utility_text.size() / 4 + 1);
    return bound;
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

  static void TellWhatWasScored(v1::Report* report) {
    std::vector<std::string> edited;
    for (const v1::PlanResult& plan : report->plans()) {
      const v1::UtilityResult& utility = plan.utility();
      if (!utility.has_perplexity() || utility.scored_plan() == plan.plan()) continue;
      edited.push_back(plan.name());
    }
    if (edited.empty()) return;
    report->add_warnings(
        absl::StrCat("perplexity of ", absl::StrJoin(edited, ", "),
                     " was scored with `seen` in place of `exact`: the text is read from the "
                     "quantized cache, as decoding would, and not in full precision as a prompt"));
  }
};

}  // namespace

std::unique_ptr<PlannerStage> MakeUtilityStage() { return std::make_unique<UtilityStage>(); }

}  // namespace plumbline
