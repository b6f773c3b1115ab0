// The process's threads for arithmetic. Items go to whichever thread is free, so a core that others
// keep busy does not hold up the rest; since items are independent, results do not depend on who
// did what.
#pragma once

#include <cstdint>
#include <functional>

namespace plumbline {

// Cores that this process may run on; at least 1.
int AvailableCores();

// Fixes the number of threads, the caller's included; until then there is one. 0 = the cores this
// process may run on. Returns the number. Not while a loop runs.
int SetThreads(int threads);

// Calls body(begin, end) on disjoint ranges that cover [0, count), of `grain` items or fewer.
// Inside another ParallelFor it runs on the calling thread. An exception of body is thrown on after
// all threads have left the loop.
void ParallelFor(int64_t count, int64_t grain, const std::function<void(int64_t, int64_t)>& body);

}  // namespace plumbline
