#include "services/coordinator/background_loop.h"

#include <utility>

namespace plumbline {
namespace {

// Reports come in bursts; a round for each of them would only repeat the same queries.
constexpr absl::Duration kShortestPause = absl::Milliseconds(20);

}  // namespace

BackgroundLoop::BackgroundLoop(ChangeSignal* changed, absl::Duration longest_pause,
                               std::function<bool()> round)
    : changed_(changed),
      longest_pause_(longest_pause),
      round_(std::move(round)),
      thread_([this] { Run(); }) {}

BackgroundLoop::~BackgroundLoop() {
  stopping_ = true;
  changed_->Notify();
  thread_.join();
}

void BackgroundLoop::Run() {
  while (!stopping_) {
    const uint64_t version = changed_->version();
    if (round_()) continue;
    if (stopping_) return;
    std::this_thread::sleep_for(absl::ToChronoMicroseconds(kShortestPause));
    changed_->WaitForChange(version, longest_pause_);
  }
}

}  // namespace plumbline
