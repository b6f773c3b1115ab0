#include "services/engine/cpu/parallel.h"

#include <ATen/Parallel.h>
#include <sched.h>

#include <algorithm>

namespace plumbline {

int SetThreads(int threads) {
  if (threads <= 0) {
    cpu_set_t affinity;
    CPU_ZERO(&affinity);
    threads = sched_getaffinity(0, sizeof affinity, &affinity) == 0 ? CPU_COUNT(&affinity) : 1;
  }
  threads = std::max(threads, 1);
  at::set_num_threads(threads);
  return threads;
}

void ParallelFor(int64_t count, int64_t grain, const std::function<void(int64_t, int64_t)>& body) {
  if (count <= 0) return;
  at::parallel_for(0, count, grain, body);
}

}  // namespace plumbline
