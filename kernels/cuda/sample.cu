#include <cuda_bf16.h>

#include "kernels/cuda/early_launch.cuh"
#include "kernels/cuda/log_sum_exp.cuh"
#include "kernels/cuda/sample.h"
#include "kernels/cuda/sample_noise.cuh"

namespace plumbline::cuda {
namespace {

constexpr int kThreads = 512;
constexpr int kWarps = kThreads / 32;
// Packs that a thread loads before it looks at the first; drawing noise needs registers of its own.
template <bool kSampled>
constexpr int kInFlight = kSampled ? 2 : 4;

template <typename T, int kCount>
struct alignas(kCount == 1 ? sizeof(T) : 16) Pack {
  T values[kCount];
};

struct TopTwo {
  float first = -INFINITY, second = -INFINITY;
  int32_t first_id = 0, second_id = 0;

  // Ids come in ascending order.
  __device__ void Take(float x, int32_t id) {
    if (!(x > second)) return;
    if (x > first) {
      second = first;
      second_id = first_id;
      first = x;
      first_id = id;
    } else {
      second = x;
      second_id = id;
    }
  }
  __device__ static bool Before(float a, int32_t a_id, float b, int32_t b_id) {
    return a > b || (a == b && a_id < b_id);
  }
  // `other` holds other ids, in any order.
  __device__ void Merge(const TopTwo& other) {
    if (Before(other.first, other.first_id, first, first_id)) {
      const bool own = Before(first, first_id, other.second, other.second_id);
      second = own ? first : other.second;
      second_id = own ? first_id : other.second_id;
      first = other.first;
      first_id = other.first_id;
    } else if (Before(other.first, other.first_id, second, second_id)) {
      second = other.first;
      second_id = other.first_id;
    }
  }
  __device__ TopTwo FromLane(int distance) const {
    TopTwo other;
    other.first = __shfl_xor_sync(~0u, first, distance);
    other.second = __shfl_xor_sync(~0u, second, distance);
    other.first_id = __shfl_xor_sync(~0u, first_id, distance);
    other.second_id = __shfl_xor_sync(~0u, second_id, distance);
    return other;
  }
};

// The best of the exact scores.
struct Choice {
  double score = -INFINITY;
  int32_t token = INT32_MAX;
  __device__ void Take(double other, int32_t other_token) {
    if (other > score || (other == score && other_token < token)) {
      score = other;
      token = other_token;
    }
  }
};

struct Scan {
  TopTwo top;
  bool finite = true;
  // Of sampled rows. Some score of the warp is at least `low`. Of this thread's scores, token's is
  // at most `high` and no other is above `rest`.
  float low = -INFINITY, high = -INFINITY, rest = -INFINITY;
  int32_t token = 0;
};

__device__ void TakeScreen(float logit, uint32_t word, int32_t token, float inverse_temperature,
                           Scan* scan) {
  if (!MayReach(logit, word, inverse_temperature, scan->low)) return;
  const Screen screen = FastScore(logit, word, inverse_temperature);
  scan->low = fmaxf(scan->low, screen.score - screen.margin);
  const float high = screen.score + screen.margin;
  if (!isfinite(high)) {
    scan->rest = INFINITY;
  } else if (high > scan->high) {
    scan->rest = fmaxf(scan->rest, scan->high);
    scan->high = high;
    scan->token = token;
  } else {
    scan->rest = fmaxf(scan->rest, high);
  }
}

// The largest of the warp's.
__device__ float WarpMax(float x) {
  const int bits = __float_as_int(x);
  const int ordered = __reduce_max_sync(~0u, bits >= 0 ? bits : bits ^ 0x7fffffff);
  return __int_as_float(ordered >= 0 ? ordered : ordered ^ 0x7fffffff);
}

// `most`: the pack's highest logit. The pack's luckiest word with it stands for all its tokens.
template <typename T, int kCount>
__device__ void ScreenPack(const Pack<T, kCount>& pack, float most, int32_t token,
                           const SampleTask& task, float inverse_temperature, Scan* scan) {
  uint32_t words[kCount], luckiest = 0;
  if constexpr (kCount == 1) {
    words[0] = luckiest = Philox(token / 4, task).Of(token);
  } else {
#pragma unroll
    for (int k = 0; k < kCount; k += 4) {
      const Words quad = Philox((token + k) / 4, task);
#pragma unroll
      for (int j = 0; j < 4; ++j) {
        words[k + j] = quad.word[j];
        luckiest = max(luckiest, quad.word[j]);
      }
    }
  }
  if (!MayReach(most, luckiest, inverse_temperature, scan->low)) return;
#pragma unroll
  for (int k = 0; k < kCount; ++k) {
    TakeScreen(ToFloat(pack.values[k]), words[k], token + k, inverse_temperature, scan);
  }
}

// Whole warps go through the row together.
template <typename T, int kCount, bool kSampled>
__device__ Scan ScanRow(const T* logits, int vocab, const SampleTask& task,
                        float inverse_temperature) {
  const Pack<T, kCount>* packs = reinterpret_cast<const Pack<T, kCount>*>(logits);
  const int count = vocab / kCount, lane = threadIdx.x % 32;
  Scan scan;
  float zero = 0;  // until something is not finite
  for (int base = threadIdx.x - lane; base < count; base += kInFlight<kSampled> * kThreads) {
    Pack<T, kCount> loaded[kInFlight<kSampled>];
#pragma unroll
    for (int j = 0; j < kInFlight<kSampled>; ++j) {
      const int pack = base + lane + j * kThreads;
      if (pack < count) loaded[j] = packs[pack];
    }
#pragma unroll
    for (int j = 0; j < kInFlight<kSampled>; ++j) {
      const int pack = base + lane + j * kThreads, token = pack * kCount;
      if (pack < count) {
        float most = -INFINITY;
#pragma unroll
        for (int k = 0; k < kCount; ++k) {
          const float x = ToFloat(loaded[j].values[k]);
          most = fmaxf(most, x);
          zero = fmaf(x, 0.0f, zero);
        }
        if (most > scan.top.second) {
#pragma unroll
          for (int k = 0; k < kCount; ++k) scan.top.Take(ToFloat(loaded[j].values[k]), token + k);
        }
        if constexpr (kSampled) {
          ScreenPack<T, kCount>(loaded[j], most, token, task, inverse_temperature, &scan);
        }
      }
      if constexpr (kSampled) scan.low = WarpMax(scan.low);
    }
  }
  scan.finite = zero == 0;
  return scan;
}

struct Shared {
  TopTwo top[kWarps];
  float low[kWarps];
  double sums[kWarps];
  Choice choices[kWarps];
};

// The row's two best and its highest lower bound, on every thread.
__device__ void ReduceScan(Scan* scan, Shared* shared) {
  for (int distance = 16; distance > 0; distance /= 2) {
    scan->top.Merge(scan->top.FromLane(distance));
    scan->low = fmaxf(scan->low, __shfl_xor_sync(~0u, scan->low, distance));
  }
  if (threadIdx.x % 32 == 0) {
    shared->top[threadIdx.x / 32] = scan->top;
    shared->low[threadIdx.x / 32] = scan->low;
  }
  scan->finite = __syncthreads_and(scan->finite);
  scan->top = shared->top[0];
  for (int w = 1; w < kWarps; ++w) scan->top.Merge(shared->top[w]);
  for (int w = 0; w < kWarps; ++w) scan->low = fmaxf(scan->low, shared->low[w]);
}

// Scores exactly what could be the best of this thread's tokens; the row's best on every thread.
template <typename T, int kCount>
__device__ int32_t ChooseSampled(const T* logits, int vocab, const SampleTask& task,
                                 const Scan& scan, Shared* shared) {
  Choice choice;
  const auto take = [&](int32_t token) {
    const uint32_t word = Philox(token / 4, task).Of(token);
    choice.Take(ExactScore(ToFloat(logits[token]), word, task.temperature), token);
  };
  if (scan.rest >= scan.low) {
    // Two of one thread's tokens so close together are rare.
    for (int pack = threadIdx.x; pack < vocab / kCount; pack += kThreads) {
      for (int k = 0; k < kCount; ++k) take(pack * kCount + k);
    }
  } else if (scan.high >= scan.low) {
    take(scan.token);
  }
  for (int distance = 16; distance > 0; distance /= 2) {
    const double score = __shfl_xor_sync(~0u, choice.score, distance);
    choice.Take(score, __shfl_xor_sync(~0u, choice.token, distance));
  }
  if (threadIdx.x % 32 == 0) shared->choices[threadIdx.x / 32] = choice;
  __syncthreads();
  for (int w = 0; w < kWarps; ++w) choice.Take(shared->choices[w].score, shared->choices[w].token);
  return choice.token;
}

template <typename T>
__device__ double NegativeLogLikelihood(const T* logits, int vocab, float max, int32_t target,
                                        Shared* shared) {
  const double log_total = LogSumExp<kThreads>(logits, vocab, max, shared->sums);
  return log_total - (double{ToFloat(logits[target])} - max);
}

// A block a row.
template <typename T, int kCount>
__global__ void __launch_bounds__(kThreads, 2)
    SampleKernel(const T* all_logits, int vocab, const SampleTask* tasks, SampleOutcome* outcomes,
                 int32_t* fed) {
  __shared__ Shared shared;
  AllowNextKernel();
  const SampleTask task = tasks[blockIdx.x];
  AwaitEarlierKernels();
  if (!task.active) return;
  const T* logits = all_logits + int64_t{blockIdx.x} * vocab;
  const bool sampled = task.choose && task.forced < 0 && task.temperature > 0;
  const float inverse = sampled ? static_cast<float>(1.0 / task.temperature) : 0.0f;
  Scan scan = sampled ? ScanRow<T, kCount, true>(logits, vocab, task, inverse)
                      : ScanRow<T, kCount, false>(logits, vocab, task, inverse);
  ReduceScan(&scan, &shared);
  SampleOutcome outcome;
  outcome.finite = scan.finite;
  if (scan.finite) {
    outcome.top1 = scan.top.first_id;
    outcome.top2 = scan.top.second_id;
    outcome.top1_logit = scan.top.first;
    outcome.top2_logit = scan.top.second;
    if (task.target >= 0) {
      outcome.nll = NegativeLogLikelihood(logits, vocab, scan.top.first, task.target, &shared);
    }
    if (task.choose) {
      outcome.token = task.forced >= 0 ? task.forced : scan.top.first_id;
      if (sampled) {
        outcome.token = ChooseSampled<T, kCount>(logits, vocab, task, scan, &shared);
      }
      outcome.fed_logit = ToFloat(logits[outcome.token]);
    }
  }
  if (threadIdx.x != 0) return;
  outcomes[blockIdx.x] = outcome;
  if (fed != nullptr && task.feed_slot >= 0 && outcome.token >= 0) {
    fed[task.feed_slot] = outcome.token;
  }
}

template <typename T, int kWide>
cudaError_t Launch(const void* logits, int rows, int vocab, const SampleTask* tasks,
                   SampleOutcome* outcomes, int32_t* fed, cudaStream_t stream) {
  const T* typed = static_cast<const T*>(logits);
  const auto kernel = vocab % kWide == 0 ? SampleKernel<T, kWide> : SampleKernel<T, 1>;
  return LaunchEarly(kernel, rows, kThreads, 0, stream, typed, vocab, tasks, outcomes, fed);
}

}  // namespace

cudaError_t LaunchSample(Dtype dtype, const void* logits, int rows, int vocab,
                         const SampleTask* tasks, SampleOutcome* outcomes, int32_t* fed,
                         cudaStream_t stream) {
  if (rows == 0) return cudaSuccess;
  return dtype == Dtype::kBf16
             ? Launch<__nv_bfloat16, 8>(logits, rows, vocab, tasks, outcomes, fed, stream)
             : Launch<float, 4>(logits, rows, vocab, tasks, outcomes, fed, stream);
}

}  // namespace plumbline::cuda
