// The logarithm of a softmax's denominator, by one block over one row of logits.
#pragma once

#include <cuda_bf16.h>

#include <cstdint>

namespace plumbline::cuda {

__device__ inline float ToFloat(float x) { return x; }
__device__ inline float ToFloat(__nv_bfloat16 x) { return __bfloat162float(x); }

// log(sum of exp(logits[i] - max)) in double, the same on every thread: each thread's sum in order,
// lanes as a tree, then warps in order. sums: [kThreads / 32] in shared memory.
template <int kThreads, typename T>
__device__ double LogSumExp(const T* logits, int vocab, float max, double* sums) {
  double sum = 0;
  for (int i = threadIdx.x; i < vocab; i += kThreads) {
    sum += exp(double{ToFloat(logits[i])} - max);
  }
  for (int distance = 16; distance > 0; distance /= 2) {
    sum += __shfl_xor_sync(~0u, sum, distance);
  }
  if (threadIdx.x % 32 == 0) sums[threadIdx.x / 32] = sum;
  __syncthreads();
  double total = 0;
  for (int w = 0; w < kThreads / 32; ++w) total += sums[w];
  return log(total);
}

}  // namespace plumbline::cuda
