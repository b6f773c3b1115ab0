#include "services/coordinator/planner/may_ship.h"

#include <algorithm>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "services/coordinator/planner/counting.h"
#include "services/stats/intervals.h"

namespace plumbline {

v1::Interval BrokenShare(const v1::ConditionResult& result) {
  return WilsonOf(result.degenerate() + result.nonfinite(), result.baseline_refusals());
}

Reservation ReservationOf(const v1::ConditionResult& result, double limit) {
  const v1::Interval broken = BrokenShare(result);
  if (broken.low() > limit) return Reservation::kBreaksDown;
  if (result.quantized_share() < kMinQuantizedShare) return Reservation::kHardlyQuantized;
  if (broken.high() > limit) return Reservation::kMayBreakDown;
  return LeftOutMayExceed(result, limit) ? Reservation::kLeftOut : Reservation::kNone;
}

bool LeftOutMayExceed(const v1::ConditionResult& result, double limit) {
  if (result.left_out() == 0) return false;
  const uint64_t broken = result.degenerate() + result.nonfinite();
  const uint64_t bad = std::max<uint64_t>(result.flips(), broken) + result.left_out();
  return WilsonOf(bad, result.baseline_refusals() + result.left_out()).high() > limit;
}

std::string LeftOutText(const v1::ConditionResult& result) {
  return absl::StrCat(result.left_out(),
                      " refusals have no verdict here: had they all flipped, the limit might be "
                      "exceeded.");
}

absl::Status CheckMeasured(const v1::ConditionResult& result) {
  if (!result.unmeasured()) return absl::OkStatus();
  return absl::FailedPreconditionError(
      absl::StrCat("nothing was measured of \"", result.name(), "\" (", result.plan(), "): of ",
                   result.cells(), " cells ", result.poisoned(), " kept failing and ",
                   result.judge_failed(), " could not be judged, every refusal among them",
                   result.warnings().empty() ? "" : "; ", absl::StrJoin(result.warnings(), "; ")));
}

TargetVerdict DecideTarget(const v1::ConditionResult& target, double limit) {
  if (const absl::Status measured = CheckMeasured(target); !measured.ok()) {
    return {v1::DECISION_UNDECIDED, absl::StrCat("Cannot say: ", measured.message(), ".")};
  }
  if (target.baseline_refusals() == 0) {
    return {v1::DECISION_UNDECIDED, "The baseline refuses nothing here, so nothing can flip."};
  }
  auto gate = DecideGate(static_cast<int64_t>(target.flips()),
                         static_cast<int64_t>(target.baseline_refusals()), limit);
  if (!gate.ok()) return {v1::DECISION_UNDECIDED, std::string(gate.status().message())};
  if (gate->decision == GateDecision::kFail) return {v1::DECISION_DO_NOT_SHIP, ""};
  const Reservation reservation = ReservationOf(target, limit);
  const std::string broken = PercentWithInterval(BrokenShare(target));
  if (reservation == Reservation::kBreaksDown) {
    return {v1::DECISION_DO_NOT_SHIP,
            absl::StrCat("Its answers break down: ", broken,
                         " of the refusals become degenerate or not finite.")};
  }
  if (reservation == Reservation::kHardlyQuantized) {
    return {v1::DECISION_UNDECIDED,
            absl::StrCat("Only ", Percent(target.quantized_share()),
                         " of the attended K and V elements were quantized: use longer prompts.")};
  }
  const bool pass = gate->decision == GateDecision::kPass;
  if (pass && reservation == Reservation::kNone) return {v1::DECISION_SHIP, ""};
  if (pass && reservation == Reservation::kLeftOut) {
    return {v1::DECISION_UNDECIDED, LeftOutText(target)};
  }
  if (pass || BrokenShare(target).estimate() > limit) {
    return {v1::DECISION_UNDECIDED,
            absl::StrCat("Degenerate or non-finite answers: ", broken, ".")};
  }
  if (!gate->more_prompts.has_value()) return {v1::DECISION_UNDECIDED, ""};
  return {v1::DECISION_UNDECIDED,
          absl::StrCat("About ", *gate->more_prompts,
                       " more refused prompts would decide it at this rate.")};
}

}  // namespace plumbline
