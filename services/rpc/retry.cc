#include "services/rpc/retry.h"

#include <algorithm>
#include <random>

namespace plumbline {
namespace {

// SplitMix64: one multiplication chain is plenty for spreading pauses.
double NextUnit(uint64_t* state) {
  uint64_t z = (*state += 0x9E3779B97F4A7C15ull);
  z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9ull;
  z = (z ^ (z >> 27)) * 0x94D049BB133111EBull;
  return static_cast<double>((z ^ (z >> 31)) >> 11) * 0x1.0p-53;
}

}  // namespace

bool IsRetryable(absl::StatusCode code) {
  return code == absl::StatusCode::kUnavailable || code == absl::StatusCode::kAborted;
}

Backoff::Backoff(Clock* clock, const RetryPolicy& policy)
    : clock_(clock),
      policy_(policy),
      start_(clock->Now()),
      next_(policy.initial_backoff),
      state_(policy.seed != 0 ? policy.seed : std::random_device{}()) {}

bool Backoff::WaitBeforeRetry(const absl::Status& status) {
  if (status.ok() || !IsRetryable(status.code()) || attempts_ >= policy_.max_attempts) return false;
  if (policy_.stop && policy_.stop()) return false;
  const absl::Duration pause = next_ * (1.0 - policy_.jitter * NextUnit(&state_));
  if (clock_->Now() + pause - start_ > policy_.budget) return false;
  if (policy_.on_retry) policy_.on_retry(status.code());
  clock_->SleepFor(pause);
  next_ = std::min(next_ * policy_.multiplier, policy_.max_backoff);
  ++attempts_;
  return true;
}

}  // namespace plumbline
