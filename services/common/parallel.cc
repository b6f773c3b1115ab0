#include "services/common/parallel.h"

#include <sched.h>

#include <algorithm>
#include <atomic>
#include <condition_variable>
#include <exception>
#include <memory>
#include <mutex>
#include <thread>
#include <utility>
#include <vector>

namespace plumbline {
namespace {

using Body = std::function<void(int64_t, int64_t)>;

thread_local bool inside_parallel = false;

class ThreadPool {
 public:
  explicit ThreadPool(int threads) {
    for (int i = 1; i < threads; ++i) {
      workers_.emplace_back([this] { Work(); });
    }
  }

  ~ThreadPool() {
    {
      const std::lock_guard lock(mutex_);
      stopping_ = true;
    }
    wake_.notify_all();
    for (std::thread& worker : workers_) worker.join();
  }

  int threads() const { return static_cast<int>(workers_.size()) + 1; }

  void Run(int64_t count, int64_t grain, const Body& body) {
    const std::lock_guard turn(one_loop_at_a_time_);
    const Loop loop{count, grain, &body};
    {
      const std::lock_guard lock(mutex_);
      loop_ = loop;
      next_.store(0, std::memory_order_relaxed);
      open_ = true;
      generation_.fetch_add(1, std::memory_order_release);
    }
    wake_.notify_all();
    Drain(loop);
    // Helpers are mostly done by now; sleeping would cost more than the rest of the loop. A helper
    // that was never scheduled is not waited for.
    for (int spin = 0; spin < kSpins && helpers_.load(std::memory_order_acquire) > 0; ++spin) {
      Pause();
    }
    std::unique_lock lock(mutex_);
    open_ = false;
    done_.wait(lock, [this] { return helpers_.load(std::memory_order_acquire) == 0; });
    if (error_) std::rethrow_exception(std::exchange(error_, nullptr));
  }

 private:
  static constexpr int kSpins = 2000;
  struct Loop {
    int64_t count = 0;
    int64_t grain = 1;
    const Body* body = nullptr;
  };

  static void Pause() {
#if defined(__x86_64__)
    __builtin_ia32_pause();
#endif
  }

  void Drain(const Loop& loop) {
    inside_parallel = true;
    try {
      for (;;) {
        const int64_t begin = next_.fetch_add(loop.grain, std::memory_order_relaxed);
        if (begin >= loop.count) break;
        (*loop.body)(begin, std::min(begin + loop.grain, loop.count));
      }
    } catch (...) {
      const std::lock_guard lock(mutex_);
      error_ = std::current_exception();
    }
    inside_parallel = false;
  }

  void Work() {
    uint64_t seen = 0;
    for (;;) {
      for (int spin = 0; spin < kSpins && generation_.load(std::memory_order_acquire) == seen;
           ++spin) {
        Pause();
      }
      Loop loop;
      {
        std::unique_lock lock(mutex_);
        wake_.wait(lock, [&] { return stopping_ || generation_.load() != seen; });
        if (stopping_) return;
        seen = generation_.load();
        if (!open_) continue;
        loop = loop_;
        helpers_.fetch_add(1, std::memory_order_relaxed);
      }
      Drain(loop);
      {
        const std::lock_guard lock(mutex_);
        helpers_.fetch_sub(1, std::memory_order_release);
      }
      done_.notify_one();
    }
  }

  std::mutex one_loop_at_a_time_;
  std::mutex mutex_;
  std::condition_variable wake_, done_;
  Loop loop_;
  std::atomic<int64_t> next_{0};
  std::atomic<int> helpers_{0};  // workers inside the open loop
  std::atomic<uint64_t> generation_{0};
  bool open_ = false;
  std::exception_ptr error_;  // what a body of the open loop threw
  bool stopping_ = false;
  std::vector<std::thread> workers_;
};

// Held by whoever loops in it, so that a change of size does not pull it away.
struct SharedPool {
  std::mutex mutex;
  std::shared_ptr<ThreadPool> pool;
};

SharedPool& Shared() {
  static SharedPool shared;
  return shared;
}

}  // namespace

int AvailableCores() {
  cpu_set_t affinity;
  CPU_ZERO(&affinity);
  if (sched_getaffinity(0, sizeof affinity, &affinity) != 0) return 1;
  return std::max(CPU_COUNT(&affinity), 1);
}

int SetThreads(int threads) {
  if (threads <= 0) threads = AvailableCores();
  SharedPool& shared = Shared();
  const std::lock_guard lock(shared.mutex);
  if (shared.pool == nullptr || shared.pool->threads() != threads) {
    shared.pool = std::make_shared<ThreadPool>(threads);
  }
  return threads;
}

void ParallelFor(int64_t count, int64_t grain, const Body& body) {
  if (count <= 0) return;
  if (inside_parallel || count <= grain) {
    body(0, count);
    return;
  }
  std::shared_ptr<ThreadPool> pool;
  {
    const std::lock_guard lock(Shared().mutex);
    pool = Shared().pool;
  }
  if (pool == nullptr || pool->threads() == 1) {
    body(0, count);
  } else {
    pool->Run(count, grain, body);
  }
}

}  // namespace plumbline
