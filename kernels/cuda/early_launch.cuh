// Launches that may begin while the kernel before them in the stream still runs (programmatic
// dependent launch), so that starting up and finding rows costs no time of its own. In a recorded
// graph they become programmatic edges.
//
// Results stay those of one kernel after another, whatever is overwritten, by two rules:
//   1. Every block of such a kernel calls AwaitEarlierKernels, before it returns and before it
//      touches memory that kernels write. That waits until the kernel before has ended and its
//      writes can be seen. The kernel before ended after its own wait, and so on: everything
//      earlier in the stream is over, reads of what is overwritten next included. Work that is not
//      launched like this, a library's products and copies among it, waits for all of that anyway.
//   2. Before that call a kernel reads only what no kernel writes while steps run: weights, angles,
//      formats, and the tables of the step, which are uploaded before its first kernel starts.
// AllowNextKernel is only a hint of when the next kernel may take its place on the device; that the
// next one reads nothing yet is its own rule 1. It comes first in a kernel: the next is started
// when all blocks have said so or ended, that is when none of them waits for a place any more.
//
// Loads of what other kernels write must not be hoisted above the wait: no __ldg or ld.global.nc.
#pragma once

#include <cuda_runtime.h>

#include <cstdlib>
#include <utility>

namespace plumbline::cuda {

#ifdef __CUDACC__
__device__ inline void AllowNextKernel() { cudaTriggerProgrammaticLaunchCompletion(); }
__device__ inline void AwaitEarlierKernels() { cudaGridDependencySynchronize(); }
#endif

// A kernel that starts on a multiprocessor before its predecessor's blocks have left it lives with
// the split of L1 and shared memory that these were given, and keeps it. So the cache writes and
// the attention after them ask for one: 100 of 228 KiB shared. With more, the L1 is too small for
// what attention has on its way (12% slower at 228).
constexpr int kSharedPercent = 44;
template <typename Kernel>
cudaError_t ShareEvenly(Kernel* kernel) {
  return cudaFuncSetAttribute(kernel, cudaFuncAttributePreferredSharedMemoryCarveout,
                              kSharedPercent);
}

// PLUMB_NO_EARLY in the environment: kernels start one after another, so that a test can show that
// starting early moves no bit. No checker sees such a race.
inline bool StartsEarly() {
  static const bool early = std::getenv("PLUMB_NO_EARLY") == nullptr;
  return early;
}

template <typename... Parameters, typename... Arguments>
cudaError_t LaunchEarly(void (*kernel)(Parameters...), dim3 grid, int threads, int64_t shared_bytes,
                        cudaStream_t stream, Arguments&&... arguments) {
  cudaLaunchAttribute early = {};
  early.id = cudaLaunchAttributeProgrammaticStreamSerialization;
  early.val.programmaticStreamSerializationAllowed = 1;
  cudaLaunchConfig_t config = {};
  config.gridDim = grid;
  config.blockDim = dim3(threads);
  config.dynamicSmemBytes = static_cast<size_t>(shared_bytes);
  config.stream = stream;
  config.attrs = &early;
  config.numAttrs = StartsEarly() ? 1 : 0;
  return cudaLaunchKernelEx(&config, kernel, std::forward<Arguments>(arguments)...);
}

}  // namespace plumbline::cuda
