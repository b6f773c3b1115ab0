// Injected time. Production code takes a Clock*; tests pass a FakeClock and never sleep.
//
// Thread safety: both clocks may be used from any thread.
#pragma once

#include <condition_variable>
#include <mutex>

#include "absl/time/time.h"

namespace plumbline {

class Clock {
 public:
  virtual ~Clock() = default;
  virtual absl::Time Now() = 0;
  // Returns when `duration` has passed on this clock.
  virtual void SleepFor(absl::Duration duration) = 0;

  static Clock* Real();  // process-wide, never deleted
};

// Stands still until Advance. SleepFor blocks until another thread has advanced far enough.
class FakeClock final : public Clock {
 public:
  explicit FakeClock(absl::Time start = absl::UnixEpoch() + absl::Hours(24 * 365 * 50))
      : now_(start) {}
  absl::Time Now() override;
  void SleepFor(absl::Duration duration) override;
  void Advance(absl::Duration duration);

 private:
  std::mutex mutex_;
  std::condition_variable advanced_;
  absl::Time now_;  // guarded by mutex_
};

}  // namespace plumbline
