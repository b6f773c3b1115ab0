// "Something changed": wakes watchers, the driver and the judge pump. Level-triggered: a change
// between reading the version and waiting for the next one is never missed.
#pragma once

#include <chrono>
#include <condition_variable>
#include <cstdint>
#include <mutex>

#include "absl/time/time.h"

namespace plumbline {

// Thread safe.
class ChangeSignal {
 public:
  void Notify() {
    {
      std::lock_guard<std::mutex> lock(mutex_);
      ++version_;
    }
    changed_.notify_all();
  }

  uint64_t version() const {
    std::lock_guard<std::mutex> lock(mutex_);
    return version_;
  }

  // Returns when the version differs from `seen` or the time is over, with the version then. Waits
  // on the machine's own clock: what it bounds is only how stale a reader may be.
  uint64_t WaitForChange(uint64_t seen, absl::Duration timeout) const {
    std::unique_lock<std::mutex> lock(mutex_);
    changed_.wait_until(lock,
                        std::chrono::system_clock::now() + absl::ToChronoMicroseconds(timeout),
                        [&] { return version_ != seen; });
    return version_;
  }

 private:
  mutable std::mutex mutex_;
  mutable std::condition_variable changed_;
  uint64_t version_ = 0;  // guarded by mutex_
};

}  // namespace plumbline
