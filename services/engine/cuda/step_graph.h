// Changes to a recorded step before it is made executable.
#pragma once

#include <cuda_runtime.h>

#include <cstdint>

#include "absl/status/status.h"

namespace plumbline {

// Some products of cublasLt clear a counter in their workspace by a memset before their kernel; in
// the middle of a chain of kernels that takes longer than a small kernel. Takes such memsets out of
// the chain: one at the graph's start clears them all instead. Only memsets to zero inside
// [counters, counters + bytes) are taken, so each product of the graph must have a place of its own
// there that nothing else writes; where two memsets share a byte the graph is left as it is.
absl::Status ClearCountersFirst(cudaGraph_t graph, void* counters, int64_t bytes);

}  // namespace plumbline
