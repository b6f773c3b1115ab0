// A thread that does one round of work after another, and sleeps until something changes when a
// round found nothing to do.
#pragma once

#include <atomic>
#include <functional>
#include <string>
#include <thread>

#include "absl/time/time.h"
#include "services/coordinator/change_signal.h"

namespace plumbline {

class BackgroundLoop {
 public:
  // round: true when there may be more to do at once. `longest_pause` bounds how long it sleeps
  // without a change.
  BackgroundLoop(ChangeSignal* changed, absl::Duration longest_pause, std::function<bool()> round);
  ~BackgroundLoop();  // after the running round
  BackgroundLoop(const BackgroundLoop&) = delete;
  BackgroundLoop& operator=(const BackgroundLoop&) = delete;

 private:
  void Run();

  ChangeSignal* const changed_;
  const absl::Duration longest_pause_;
  const std::function<bool()> round_;
  std::atomic<bool> stopping_ = false;
  std::thread thread_;
};

}  // namespace plumbline
