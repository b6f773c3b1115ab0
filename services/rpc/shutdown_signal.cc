#include "services/rpc/shutdown_signal.h"

#include <fcntl.h>
#include <signal.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <cerrno>
#include <chrono>
#include <condition_variable>
#include <mutex>
#include <thread>

namespace plumbline {
namespace {

// The write end of the pipe; the only thing the handler touches.
std::atomic<int> g_signal_pipe{-1};

extern "C" void OnSignal(int) {
  const int saved_errno = errno;
  const char byte = 's';
  const int fd = g_signal_pipe.load(std::memory_order_relaxed);
  if (fd >= 0) (void)!write(fd, &byte, 1);
  errno = saved_errno;
}

}  // namespace

struct ShutdownSignal::State {
  int pipe_ends[2] = {-1, -1};
  struct sigaction former_term = {};
  struct sigaction former_int = {};
  std::thread reader;
  std::mutex mutex;
  std::condition_variable changed;
  int count = 0;  // guarded by mutex

  void ReadUntilQuit() {
    char byte = 0;
    while (true) {
      const ssize_t got = read(pipe_ends[0], &byte, 1);
      if (got < 0 && errno == EINTR) continue;
      if (got <= 0 || byte == 'q') return;
      {
        std::lock_guard<std::mutex> lock(mutex);
        ++count;
      }
      changed.notify_all();
    }
  }
  void Send(char byte) { (void)!write(pipe_ends[1], &byte, 1); }
};

ShutdownSignal::ShutdownSignal() : state_(new State) {
  // A full pipe must not block a handler; a lost byte loses nothing, the flag is set by then.
  if (pipe2(state_->pipe_ends, O_CLOEXEC) != 0) std::abort();
  fcntl(state_->pipe_ends[1], F_SETFL, O_NONBLOCK);
  g_signal_pipe.store(state_->pipe_ends[1]);
  struct sigaction action = {};
  action.sa_handler = OnSignal;
  action.sa_flags = SA_RESTART;
  sigemptyset(&action.sa_mask);
  sigaction(SIGTERM, &action, &state_->former_term);
  sigaction(SIGINT, &action, &state_->former_int);
  state_->reader = std::thread([state = state_.get()] { state->ReadUntilQuit(); });
}

ShutdownSignal::~ShutdownSignal() {
  sigaction(SIGTERM, &state_->former_term, nullptr);
  sigaction(SIGINT, &state_->former_int, nullptr);
  g_signal_pipe.store(-1);
  state_->Send('q');
  state_->reader.join();
  close(state_->pipe_ends[0]);
  close(state_->pipe_ends[1]);
}

bool ShutdownSignal::requested() const { return count() > 0; }

int ShutdownSignal::count() const {
  std::lock_guard<std::mutex> lock(state_->mutex);
  return state_->count;
}

bool ShutdownSignal::WaitFor(absl::Duration timeout) const {
  std::unique_lock<std::mutex> lock(state_->mutex);
  const auto limit = absl::ToChronoNanoseconds(std::min(timeout, absl::Hours(24 * 365)));
  return state_->changed.wait_for(lock, limit, [this] { return state_->count > 0; });
}

void ShutdownSignal::Wait() const {
  std::unique_lock<std::mutex> lock(state_->mutex);
  state_->changed.wait(lock, [this] { return state_->count > 0; });
}

void ShutdownSignal::Request() {
  {
    std::lock_guard<std::mutex> lock(state_->mutex);
    ++state_->count;
  }
  state_->changed.notify_all();
}

}  // namespace plumbline
