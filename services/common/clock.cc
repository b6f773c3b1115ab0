#include "services/common/clock.h"

#include <thread>

#include "absl/time/clock.h"

namespace plumbline {
namespace {

class RealClock final : public Clock {
 public:
  absl::Time Now() override { return absl::Now(); }
  void SleepFor(absl::Duration duration) override {
    std::this_thread::sleep_for(absl::ToChronoNanoseconds(duration));
  }
};

}  // namespace

Clock* Clock::Real() {
  static RealClock* const clock = new RealClock;
  return clock;
}

absl::Time FakeClock::Now() {
  std::lock_guard<std::mutex> lock(mutex_);
  return now_;
}

void FakeClock::SleepFor(absl::Duration duration) {
  std::unique_lock<std::mutex> lock(mutex_);
  const absl::Time until = now_ + duration;
  advanced_.wait(lock, [&] { return now_ >= until; });
}

void FakeClock::Advance(absl::Duration duration) {
  {
    std::lock_guard<std::mutex> lock(mutex_);
    now_ += duration;
  }
  advanced_.notify_all();
}

}  // namespace plumbline
