#include <cuda_bf16.h>

#include <cfloat>

#include "kernels/cuda/log_sum_exp.cuh"
#include "kernels/cuda/top_tokens.h"

namespace plumbline::cuda {
namespace {

constexpr int kThreads = 1024;
constexpr int kWarps = kThreads / 32;

// A token's place in the order: the higher logit first, then the lower id. Above 0 for every token.
__device__ uint64_t KeyOf(float logit, int32_t token) {
  const uint32_t bits = __float_as_uint(__fadd_rn(logit, 0.0f));  // -0 ties with 0
  const uint32_t ordered = bits & 0x80000000u ? ~bits : bits | 0x80000000u;
  return uint64_t{ordered} << 32 | ~static_cast<uint32_t>(token);
}
__device__ int32_t TokenOf(uint64_t key) {
  return static_cast<int32_t>(~static_cast<uint32_t>(key));
}
__device__ float LogitOf(uint64_t key) {
  const uint32_t ordered = static_cast<uint32_t>(key >> 32);
  return __uint_as_float(ordered & 0x80000000u ? ordered ^ 0x80000000u : ~ordered);
}

__device__ uint64_t WarpMax(uint64_t key) {
  for (int distance = 16; distance > 0; distance /= 2) {
    key = max(key, static_cast<uint64_t>(__shfl_xor_sync(~0u, key, distance)));
  }
  return key;
}

struct Shared {
  uint64_t best[2][kWarps];  // of the warps, in turns, so that one barrier a token is enough
  double sums[kWarps];
};

// A block a row. Each thread knows the best of its own tokens that are not listed yet; the warp of
// the one whose token was listed looks for that thread's next.
template <typename T>
__global__ void __launch_bounds__(kThreads)
    TopTokensKernel(const T* all_logits, int vocab, const __grid_constant__ TopRows rows,
                    ProbableToken* lists) {
  __shared__ Shared shared;
  const T* logits = all_logits + int64_t{rows.row[blockIdx.x]} * vocab;
  ProbableToken* list = lists + int64_t{blockIdx.x} * kMaxTop;
  const int lane = threadIdx.x % 32, warp = threadIdx.x / 32;
  uint64_t mine = 0;
  for (int i = threadIdx.x; i < vocab; i += kThreads) {
    mine = max(mine, KeyOf(ToFloat(logits[i]), i));
  }
  const int count = min(rows.top, vocab);
  double max_logit = 0, log_total = 0;
  for (int n = 0; n < count; ++n) {
    uint64_t best = WarpMax(mine);
    if (lane == 0) shared.best[n % 2][warp] = best;
    __syncthreads();
    best = WarpMax(shared.best[n % 2][lane]);
    const float logit = LogitOf(best);
    if (n == 0) {
      max_logit = logit;
      log_total = LogSumExp<kThreads>(logits, vocab, logit, shared.sums);
    }
    if (threadIdx.x == 0) {
      const double log_probability = (double{logit} - max_logit) - log_total;
      list[n].token = TokenOf(best);
      list[n].log_probability =
          static_cast<float>(fmin(fmax(log_probability, double{-FLT_MAX}), 0.0));
    }
    const int owner = TokenOf(best) % kThreads;
    if (warp != owner / 32) continue;
    uint64_t next = 0;
    for (int i = owner + lane * kThreads; i < vocab; i += 32 * kThreads) {
      const uint64_t key = KeyOf(ToFloat(logits[i]), i);
      if (key < best) next = max(next, key);
    }
    next = WarpMax(next);
    if (lane == owner % 32) mine = next;
  }
}

template <typename T>
cudaError_t Launch(const void* logits, int vocab, const TopRows& rows, ProbableToken* lists,
                   cudaStream_t stream) {
  TopTokensKernel<T>
      <<<rows.count, kThreads, 0, stream>>>(static_cast<const T*>(logits), vocab, rows, lists);
  return cudaPeekAtLastError();
}

}  // namespace

static_assert(kWarps == 32, "a warp reads the bests of all warps");

cudaError_t LaunchTopTokens(Dtype dtype, const void* logits, int vocab, const TopRows& rows,
                            ProbableToken* lists, cudaStream_t stream) {
  if (rows.count == 0 || rows.top == 0) return cudaSuccess;
  if (rows.top < 0 || rows.top > kMaxTop || rows.count < 0 || rows.count > kMaxTopRows ||
      vocab < 1) {
    return cudaErrorInvalidValue;
  }
  return dtype == Dtype::kBf16 ? Launch<__nv_bfloat16>(logits, vocab, rows, lists, stream)
                               : Launch<float>(logits, vocab, rows, lists, stream);
}

}  // namespace plumbline::cuda
