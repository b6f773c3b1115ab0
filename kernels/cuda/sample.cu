#include <cuda_bf16.h>

#include "kernels/cuda/sample.h"

namespace plumbline::cuda {
namespace {

constexpr int kThreads = 512;
constexpr int kWarps = kThreads / 32;
constexpr int kInFlight = 4;  // packs that a thread loads before it looks at the first

template <typename T, int kCount>
struct alignas(kCount == 1 ? sizeof(T) : 16) Pack {
  T values[kCount];
};

__device__ float ToFloat(float x) { return x; }
__device__ float ToFloat(__nv_bfloat16 x) { return __bfloat162float(x); }

struct Words {
  uint32_t word[4];
  __device__ uint32_t Of(int32_t token) const {
    const int i = token % 4;
    return i < 2 ? (i == 0 ? word[0] : word[1]) : (i == 2 ? word[2] : word[3]);
  }
};

// services/engine/sampling/philox.cc
__device__ Words Philox(uint32_t quad, const SampleTask& task) {
  uint32_t c0 = quad, c1 = static_cast<uint32_t>(task.position);
  uint32_t c2 = static_cast<uint32_t>(task.stream), c3 = static_cast<uint32_t>(task.stream >> 32);
  uint32_t key0 = static_cast<uint32_t>(task.seed), key1 = static_cast<uint32_t>(task.seed >> 32);
#pragma unroll
  for (int round = 0; round < 10; ++round) {
    const uint32_t high0 = __umulhi(0xD2511F53u, c0), low0 = 0xD2511F53u * c0;
    const uint32_t high1 = __umulhi(0xCD9E8D57u, c2), low1 = 0xCD9E8D57u * c2;
    c0 = high1 ^ c1 ^ key0;
    c1 = low1;
    c2 = high0 ^ c3 ^ key1;
    c3 = low0;
    key0 += 0x9E3779B9u;
    key1 += 0xBB67AE85u;
  }
  return {{c0, c1, c2, c3}};
}

// The host's formula. Its logarithms and these may differ in the last bit of a double.
__device__ double ExactScore(float logit, uint32_t word, double temperature) {
  const double u = (word + 0.5) / 4294967296.0;
  return logit / temperature - log(-log(u));
}

struct Screen {
  float score, margin;
};

// How far off scores in float may be: -log(u) is good to 4e-7 of itself, its logarithm to 3 ulp of
// at most 22.9 (6e-6) or to 4e-7 near 0, the scaled logit to 3 * 2^-24 of itself.
__device__ float Margin(float scaled) { return fmaf(fabsf(scaled), 4e-7f, 2e-5f); }

// Whether a token's score may reach `low`. Noise of g or more needs -log(u) <= e^-g, and 1 - u is
// less than -log(u): most tokens fall here, at the cost of one exponential. The wide margin makes
// up for its roundings.
__device__ bool MayReach(float logit, uint32_t word, float inverse_temperature, float low) {
  const float scaled = logit * inverse_temperature;
  const float most = scaled - low + fmaf(fabsf(scaled) + fabsf(low), 4e-7f, 1e-3f);
  return !((static_cast<float>(~word) + 0.5f) * 0x1p-32f > __expf(most));
}

__device__ Screen FastScore(float logit, uint32_t word, float inverse_temperature) {
  const float kUnit = 1.0f / 4294967296.0f;
  const float exponential = word >= 0x80000000u
                                ? -log1pf(-(static_cast<float>(~word) + 0.5f) * kUnit)
                                : -__logf((static_cast<float>(word) + 0.5f) * kUnit);
  const float scaled = logit * inverse_temperature;
  return {scaled - __logf(exponential), Margin(scaled)};
}

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
  float low = -INFINITY;   // some score of the warp is at least this
  float high = -INFINITY;  // none of this thread's scores is above this
};

__device__ void TakeScreen(float logit, uint32_t word, float inverse_temperature, Scan* scan) {
  if (!MayReach(logit, word, inverse_temperature, scan->low)) return;
  const Screen screen = FastScore(logit, word, inverse_temperature);
  scan->low = fmaxf(scan->low, screen.score - screen.margin);
  const float high = screen.score + screen.margin;
  scan->high = isfinite(high) ? fmaxf(scan->high, high) : INFINITY;
}

// The largest of the warp's.
__device__ float WarpMax(float x) {
  const int bits = __float_as_int(x);
  const int ordered = __reduce_max_sync(~0u, bits >= 0 ? bits : bits ^ 0x7fffffff);
  return __int_as_float(ordered >= 0 ? ordered : ordered ^ 0x7fffffff);
}

template <typename T, int kCount>
__device__ void ScreenPack(const Pack<T, kCount>& pack, int32_t token, const SampleTask& task,
                           float inverse_temperature, Scan* scan) {
  if constexpr (kCount == 1) {
    const uint32_t word = Philox(token / 4, task).Of(token);
    TakeScreen(ToFloat(pack.values[0]), word, inverse_temperature, scan);
  } else {
#pragma unroll
    for (int k = 0; k < kCount; k += 4) {
      const Words words = Philox((token + k) / 4, task);
#pragma unroll
      for (int j = 0; j < 4; ++j) {
        TakeScreen(ToFloat(pack.values[k + j]), words.word[j], inverse_temperature, scan);
      }
    }
  }
}

// Whole warps go through the row together.
template <typename T, int kCount, bool kSampled>
__device__ Scan ScanRow(const T* logits, int vocab, const SampleTask& task,
                        float inverse_temperature) {
  const Pack<T, kCount>* packs = reinterpret_cast<const Pack<T, kCount>*>(logits);
  const int count = vocab / kCount, lane = threadIdx.x % 32;
  Scan scan;
  for (int base = threadIdx.x - lane; base < count; base += kInFlight * kThreads) {
    Pack<T, kCount> loaded[kInFlight];
#pragma unroll
    for (int j = 0; j < kInFlight; ++j) {
      const int pack = base + lane + j * kThreads;
      if (pack < count) loaded[j] = packs[pack];
    }
#pragma unroll
    for (int j = 0; j < kInFlight; ++j) {
      const int pack = base + lane + j * kThreads, token = pack * kCount;
      if (pack < count) {
#pragma unroll
        for (int k = 0; k < kCount; ++k) {
          const float x = ToFloat(loaded[j].values[k]);
          scan.finite &= isfinite(x);
          scan.top.Take(x, token + k);
        }
        if constexpr (kSampled) {
          ScreenPack<T, kCount>(loaded[j], token, task, inverse_temperature, &scan);
        }
      }
      if constexpr (kSampled) scan.low = WarpMax(scan.low);
    }
  }
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
                                 float inverse_temperature, const Scan& scan, Shared* shared) {
  Choice choice;
  if (!(scan.high < scan.low)) {
    for (int pack = threadIdx.x; pack < vocab / kCount; pack += kThreads) {
      for (int token = pack * kCount; token < (pack + 1) * kCount; ++token) {
        const float logit = ToFloat(logits[token]);
        const uint32_t word = Philox(token / 4, task).Of(token);
        if (!MayReach(logit, word, inverse_temperature, scan.low)) continue;
        const Screen screen = FastScore(logit, word, inverse_temperature);
        if (screen.score + screen.margin < scan.low) continue;
        choice.Take(ExactScore(logit, word, task.temperature), token);
      }
    }
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
  double sum = 0;
  for (int i = threadIdx.x; i < vocab; i += kThreads) {
    sum += exp(double{ToFloat(logits[i])} - max);
  }
  for (int distance = 16; distance > 0; distance /= 2) {
    sum += __shfl_xor_sync(~0u, sum, distance);
  }
  if (threadIdx.x % 32 == 0) shared->sums[threadIdx.x / 32] = sum;
  __syncthreads();
  double total = 0;
  for (int w = 0; w < kWarps; ++w) total += shared->sums[w];
  return log(total) - (double{ToFloat(logits[target])} - max);
}

// A block a row.
template <typename T, int kCount>
__global__ void __launch_bounds__(kThreads, 2)
    SampleKernel(const T* all_logits, int vocab, const SampleTask* tasks, SampleOutcome* outcomes,
                 int32_t* fed) {
  __shared__ Shared shared;
  const SampleTask task = tasks[blockIdx.x];
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
        outcome.token = ChooseSampled<T, kCount>(logits, vocab, task, inverse, scan, &shared);
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
  if (vocab % kWide == 0) {
    SampleKernel<T, kWide><<<rows, kThreads, 0, stream>>>(typed, vocab, tasks, outcomes, fed);
  } else {
    SampleKernel<T, 1><<<rows, kThreads, 0, stream>>>(typed, vocab, tasks, outcomes, fed);
  }
  return cudaPeekAtLastError();
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
