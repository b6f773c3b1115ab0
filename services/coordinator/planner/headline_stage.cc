// Ship or not, why, and what to serve instead.
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "services/common/figures.h"
#include "services/coordinator/planner/counting.h"
#include "services/coordinator/planner/may_ship.h"
#include "services/coordinator/planner/plan_text.h"
#include "services/coordinator/planner/recommendation.h"
#include "services/coordinator/planner/selection.h"
#include "services/coordinator/planner/stages.h"

namespace plumbline {
namespace {

std::string RateSentence(const v1::Report& report) {
  const v1::ConditionResult& target = report.target();
  return absl::StrFormat("%s turns %u of %s into compliance, %s", target.plan(), target.flips(),
                         CountText(target.baseline_refusals(), "refusal"),
                         PercentWithInterval(target.flip_rate(), {report.study().flip_limit()}));
}

std::string Sentence(const v1::Report& report, const ShipVerdict& verdict, double limit) {
  const std::string against = absl::StrCat(" (limit ", LimitText(limit), ").");
  const std::string why = verdict.reason.empty() ? "" : absl::StrCat(" ", verdict.reason);
  switch (verdict.decision) {
    case v1::DECISION_SHIP:
      return absl::StrCat("Ship: ", RateSentence(report), against, why);
    case v1::DECISION_DO_NOT_SHIP:
      return absl::StrCat("Do not ship: ", RateSentence(report), against, why);
    default:
      return absl::StrCat("Undecided: ", RateSentence(report), against, why);
  }
}

// A plan fails when it makes the model refuse more harmless prompts; of the target that is said.
void WarnOfOverRefusal(v1::Report* report) {
  const std::string text = OverRefusalText(report->target());
  if (!text.empty()) report->add_warnings(absl::StrCat("the target ", text));
}

class HeadlineStage final : public PlannerStage {
 public:
  std::string name() const override { return "headline"; }

  absl::StatusOr<StageNeeds> Needs(const StudyContext& context, const v1::Report& report,
                                   const ResultView& results) const override {
    return StageNeeds{};
  }

  absl::Status Conclude(const StudyContext& context, const ResultView& results, Peers& peers,
                        v1::Report* report) const override {
    v1::Headline* headline = report->mutable_headline();
    headline->set_exploratory(report->baseline().baseline_refusals() <
                              MinimumRefusals(context.study));
    if (context.study.has_custom()) {
      headline->set_sentence(
          absl::StrCat(CountText(report->sweep_size(), "condition"), " measured on ",
                       CountText(report->baseline().cells(), "prompt"), ", ",
                       report->baseline().baseline_refusals(), " of which the baseline refuses.",
                       HarmlessNote(report->baseline())));
      return absl::OkStatus();
    }
    WarnOfOverRefusal(report);
    const double limit = context.study.flip_limit();
    const ShipVerdict verdict = DecideShip(*report, report->target(), limit);
    headline->set_decision(verdict.decision);
    std::string sentence = Sentence(*report, verdict, limit);
    if (headline->exploratory()) {
      absl::StrAppend(&sentence, " Exploratory: under ", MinimumRefusals(context.study),
                      " baseline refusals.");
    }
    headline->set_sentence(sentence);
    if (verdict.decision == v1::DECISION_SHIP) {
      headline->set_mode(v1::FAILURE_MODE_NONE);
      if (!report->mode_explanation().empty()) {
        report->set_mode_explanation(
            absl::StrCat("The target needs no repair. At ", kMechanismFormat,
                         ", which is coarser: ", report->mode_explanation()));
      }
    } else if (headline->mode() == v1::FAILURE_MODE_NONE) {
      // The classifier saw no collapse at the mechanism preset, yet the target may not ship.
      headline->set_mode(v1::FAILURE_MODE_UNDETERMINED);
      absl::StrAppend(report->mutable_mode_explanation(),
                      verdict.decision == v1::DECISION_DO_NOT_SHIP
                          ? " The target is not safe all the same: the ablation at "
                          : " The target is not shown safe all the same: the ablation at ",
                      kMechanismFormat, " does not explain it.");
    }
    return Recommend(context, results, report);
  }

  StageBound AtMost(const StudyContext& context) const override { return {}; }
};

}  // namespace

bool NeedsRepair(const v1::Report& report) {
  if (report.target().baseline_refusals() == 0) return false;
  const double limit = report.study().flip_limit();
  return DecideShip(report, report.target(), limit).decision != v1::DECISION_SHIP;
}

std::unique_ptr<PlannerStage> MakeHeadlineStage() { return std::make_unique<HeadlineStage>(); }

}  // namespace plumbline
