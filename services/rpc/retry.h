// Retries by code: UNAVAILABLE and ABORTED with growing, jittered pauses and a bound; everything
// else is the caller's business (RESOURCE_EXHAUSTED: ask for less; INVALID_ARGUMENT: never).
//
//   auto stats = RetryCall(Clock::Real(), {}, [&] { return client->Call(&Stub::GetStats, request);
//   });
#pragma once

#include <cstdint>
#include <functional>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "services/common/clock.h"

namespace plumbline {

struct RetryPolicy {
  int max_attempts = 5;  // 1 = no retry
  absl::Duration initial_backoff = absl::Milliseconds(100);
  absl::Duration max_backoff = absl::Seconds(5);
  double multiplier = 2;
  double jitter = 0.5;  // a pause is drawn from [1 - jitter, 1] x backoff
  absl::Duration budget = absl::InfiniteDuration();  // no pause that would end later than this
  uint64_t seed = 0;                                 // 0 = from the system's entropy
  std::function<bool()>
      stop;  // asked before each pause; true ends with the last error. May be null
  std::function<void(absl::StatusCode)> on_retry;  // e.g. a counter. May be null
};

bool IsRetryable(absl::StatusCode code);

// Decides pauses; one object a call. Not thread safe.
class Backoff {
 public:
  Backoff(Clock* clock, const RetryPolicy& policy);
  // True after having slept, when `status` deserves another attempt; false otherwise.
  bool WaitBeforeRetry(const absl::Status& status);

 private:
  Clock* clock_;
  RetryPolicy policy_;
  absl::Time start_;
  absl::Duration next_;
  int attempts_ = 1;
  uint64_t state_;
};

inline const absl::Status& StatusOf(const absl::Status& status) { return status; }
template <typename T>
const absl::Status& StatusOf(const absl::StatusOr<T>& result) {
  return result.status();
}

// call: () -> absl::Status or absl::StatusOr<T>
template <typename Call>
auto RetryCall(Clock* clock, const RetryPolicy& policy, Call call) -> decltype(call()) {
  Backoff backoff(clock, policy);
  while (true) {
    auto result = call();
    if (!backoff.WaitBeforeRetry(StatusOf(result))) return result;
  }
}

}  // namespace plumbline
