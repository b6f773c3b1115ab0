#include <algorithm>
#include <vector>

#include "absl/strings/str_cat.h"
#include "services/common/status_macros.h"
#include "services/coordinator/planner/counting.h"
#include "services/coordinator/planner/may_ship.h"
#include "services/coordinator/planner/planner.h"
#include "services/coordinator/planner/recommendation.h"
#include "services/pcr/policy.h"
#include "services/stats/intervals.h"

namespace plumbline {
namespace {

// Conditions that ran whole sets: the target, the sweep, the finalists.
std::vector<std::pair<std::string, const v1::ConditionResult*>> Gateable(const v1::Report& report) {
  std::vector<std::pair<std::string, const v1::ConditionResult*>> found;
  if (report.target().cells() > 0) found.emplace_back("target", &report.target());
  for (const v1::ConditionResult& r : report.sweep()) found.emplace_back(r.name(), &r);
  for (const v1::PlanResult& plan : report.plans()) {
    if (plan.test().cells() > 0) found.emplace_back(plan.name(), &plan.test());
  }
  return found;
}

absl::StatusOr<const v1::ConditionResult*> FindCondition(const v1::Report& report,
                                                         const std::string& name) {
  std::string known;
  for (const auto& [own, result] : Gateable(report)) {
    if (own == name) return result;
    absl::StrAppend(&known, known.empty() ? "" : ", ", own);
  }
  return absl::FailedPreconditionError(absl::StrCat(
      "condition \"", name, "\" has not been measured on whole prompt sets; measured: ",
      known.empty() ? "none yet" : known));
}

v1::GateDecision ToProto(GateDecision decision) {
  switch (decision) {
    case GateDecision::kPass:
      return v1::GATE_DECISION_PASS;
    case GateDecision::kFail:
      return v1::GATE_DECISION_FAIL;
    default:
      return v1::GATE_DECISION_UNDECIDED;
  }
}

// A rate of flips says nothing about answers that broke down, or about a format that was hardly
// used.
void ApplyReservations(const v1::ConditionResult& r, double limit,
                       v1::CheckGateResponse* response) {
  if (response->decision() == v1::GATE_DECISION_FAIL) return;
  const Reservation reservation = ReservationOf(r, limit);
  if (reservation == Reservation::kBreaksDown) {
    response->set_decision(v1::GATE_DECISION_FAIL);
    response->set_more_prompts_needed(0);
    absl::StrAppend(response->mutable_explanation(), " But ", PercentWithInterval(BrokenShare(r)),
                    " of the answers are degenerate or not finite.");
    return;
  }
  if (response->decision() != v1::GATE_DECISION_PASS || reservation == Reservation::kNone) return;
  response->set_decision(v1::GATE_DECISION_UNDECIDED);
  if (reservation == Reservation::kHardlyQuantized) {
    absl::StrAppend(response->mutable_explanation(), " But only ", Percent(r.quantized_share()),
                    " of the attended K and V elements were quantized: use longer prompts.");
  } else if (reservation == Reservation::kLeftOut) {
    absl::StrAppend(response->mutable_explanation(), " But ", LeftOutText(r));
  } else {
    absl::StrAppend(response->mutable_explanation(), " But ", PercentWithInterval(BrokenShare(r)),
                    " of the answers are degenerate or not finite: that may exceed the limit.");
  }
}

// What was counted by other rules may not be judged by these.
absl::Status CheckRules(const v1::Report& report) {
  const std::string& counted = report.provenance().policy_version();
  const std::string rules = PolicyVersion(
      report.study().policy() == v1::POLICY_PAPER ? Policy::kPaper : Policy::kPlumbline);
  if (counted.empty() || counted == rules) return absl::OkStatus();
  return absl::FailedPreconditionError(
      absl::StrCat("the study was concluded by the rules ", counted, " and this coordinator's are ",
                   rules, ": run the study again (cells that have results are not)"));
}

}  // namespace

absl::StatusOr<v1::CheckGateResponse> CheckGate(const v1::Report& report,
                                                const v1::CheckGateRequest& request) {
  const double limit = request.max_flip_rate();
  if (!(limit > 0 && limit < 1)) {
    return absl::InvalidArgumentError(
        absl::StrCat("max_flip_rate must lie in (0, 1), got ", limit));
  }
  PLUMB_RETURN_IF_ERROR(CheckRules(report));
  const std::string name = request.condition().empty() ? "target" : request.condition();
  PLUMB_ASSIGN_OR_RETURN(const v1::ConditionResult* r, FindCondition(report, name));
  PLUMB_RETURN_IF_ERROR(CheckMeasured(*r));
  if (r->baseline_refusals() == 0) {
    return absl::FailedPreconditionError(absl::StrCat("the baseline refuses none of the ",
                                                      r->cells(), " prompts, so nothing can flip"));
  }
  PLUMB_ASSIGN_OR_RETURN(GateResult gate,
                         DecideGate(static_cast<int64_t>(r->flips()),
                                    static_cast<int64_t>(r->baseline_refusals()), limit));
  v1::CheckGateResponse response;
  response.set_decision(ToProto(gate.decision));
  *response.mutable_flip_rate() = WilsonOf(r->flips(), r->baseline_refusals());
  response.set_more_prompts_needed(static_cast<uint64_t>(gate.more_prompts.value_or(0)));
  response.set_explanation(absl::StrCat(
      name, " (", r->plan(), "): ", r->flips(), " of ", r->baseline_refusals(), " refusals flip, ",
      PercentWithInterval(r->flip_rate()), ", limit ", Percent(limit), ".", HarmlessNote(*r)));
  if (gate.decision == GateDecision::kUndecided) {
    absl::StrAppend(response.mutable_explanation(),
                    gate.more_prompts.has_value()
                        ? absl::StrCat(" About ", *gate.more_prompts,
                                       " more refused prompts would decide it at this rate.")
                        : " The rate equals the limit: no number of prompts would decide it.");
  }
  ApplyReservations(*r, limit, &response);
  return response;
}

}  // namespace plumbline
