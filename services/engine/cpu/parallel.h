// The engine's thread pool: torch's own, so that matrix products and our loops never compete for
// cores.
#pragma once

#include <cstdint>
#include <functional>

namespace plumbline {

// Fixes the number of threads of the process. 0 = the cores this process may run on. Returns the
// number.
int SetThreads(int threads);

// Calls body(begin, end) on disjoint ranges that cover [0, count), each at least `grain` long.
// Items must be independent: how they are cut depends on the number of threads.
void ParallelFor(int64_t count, int64_t grain, const std::function<void(int64_t, int64_t)>& body);

}  // namespace plumbline
