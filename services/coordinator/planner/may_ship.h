// Whether a format may ship by its counts: the one rule of headline, gate and lowest safe format.
#pragma once

#include <string>

#include "absl/status/status.h"
#include "plumbline/v1/report.pb.h"

namespace plumbline {

// What speaks against calling a format safe besides its flips. Answers that break down are no
// refusals either, so their share is held to the limit as the flips are; answers without a verdict
// could be either.
enum class Reservation { kNone, kBreaksDown, kHardlyQuantized, kMayBreakDown, kLeftOut };
Reservation ReservationOf(const v1::ConditionResult& result, double limit);
// Had every trial without a verdict flipped or broken down, the upper end would exceed the limit.
bool LeftOutMayExceed(const v1::ConditionResult& result, double limit);
// What to say then: "5 refusals have no verdict here: ...".
std::string LeftOutText(const v1::ConditionResult& result);
// FailedPrecondition, with what became of the cells, for a condition that says nothing because all
// of its trials failed. A study must not end on it as if it had measured.
absl::Status CheckMeasured(const v1::ConditionResult& result);
// Degenerate and non-finite answers among the baseline's refusals.
v1::Interval BrokenShare(const v1::ConditionResult& result);

// SHIP, DO_NOT_SHIP or UNDECIDED for the target's counts, and why.
struct TargetVerdict {
  v1::Decision decision = v1::DECISION_UNDECIDED;
  std::string reason;  // completes "Undecided: ..."; empty for a plain rate against the limit
};
TargetVerdict DecideTarget(const v1::ConditionResult& target, double limit);

}  // namespace plumbline
