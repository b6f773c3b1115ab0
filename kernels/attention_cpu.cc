#include <algorithm>

#include "kernels/attention.h"
#include "kernels/vec.h"

namespace plumbline::kernels {
namespace {

constexpr int kMaxBlocks = kMaxHeadDim / kLanes;

template <typename T>
PLUMB_INLINE void LoadHead(const T* p, int head_dim, Vec* blocks) {
  for (int i = 0, c = 0; c < head_dim; ++i, c += kLanes) blocks[i] = LoadUpTo(p + c, head_dim - c);
}

// scores[t] = round(round(q . k_t) * scale); returns their maximum.
template <typename T>
PLUMB_INLINE float Scores(const T* query, const T* keys, int64_t stride, int head_dim, float scale,
                          int64_t kv_len, float* scores) {
  Vec q[kMaxBlocks];
  LoadHead(query, head_dim, q);
  const int full = head_dim / kLanes;
  const int tail = head_dim % kLanes;
  for (int64_t t = 0; t < kv_len; ++t) {
    const T* k = keys + t * stride;
    Vec sum = Vec{};
    for (int i = 0; i < full; ++i) sum += q[i] * Memory<T>::Load(k + i * kLanes);
    if (tail) sum += q[full] * LoadPartial(k + full * kLanes, tail);
    scores[t] = SumLanes(sum);
  }
  Vec top = Splat(-__builtin_inff());
  for (int64_t t = 0; t < kv_len; t += kLanes) {
    const int64_t left = kv_len - t;
    Vec s = Memory<T>::Rounded(Memory<float>::Load(scores + t));
    s = Memory<T>::Rounded(s * Splat(scale));
    for (int64_t i = left; i < kLanes; ++i) s[i] = -__builtin_inff();
    Memory<float>::Store(scores + t, s);
    top = VecMax(s, top);
  }
  float best = top[0];
  for (int i = 1; i < kLanes; ++i) best = std::max(best, top[i]);
  return best;
}

// Replaces scores by round(exp(score - max) / sum).
template <typename T>
PLUMB_INLINE void Softmax(float* scores, int64_t kv_len, float max) {
  float total = 0;
  for (int64_t begin = 0; begin < kv_len; begin += kAttentionSplit) {
    const int64_t end = std::min(begin + kAttentionSplit, kv_len);
    Vec part = Vec{};
    for (int64_t t = begin; t < end; t += kLanes) {
      // Lanes past the end hold -inf and become 0.
      const Vec e = Exp(Memory<float>::Load(scores + t) - Splat(max));
      Memory<float>::Store(scores + t, e);
      part += e;
    }
    total += SumLanes(part);
  }
  const Vec divisor = Splat(total);
  for (int64_t t = 0; t < kv_len; t += kLanes) {
    Memory<float>::Store(scores + t, Memory<T>::Rounded(Memory<float>::Load(scores + t) / divisor));
  }
}

template <typename T>
PLUMB_INLINE void WeighValues(const float* weights, const T* values, int64_t stride, int head_dim,
                              int64_t kv_len, T* out) {
  // Blocks of four vectors keep the running sums in registers.
  constexpr int kBlocks = 4;
  for (int c0 = 0; c0 < head_dim; c0 += kBlocks * kLanes) {
    const int width = std::min(kBlocks * kLanes, head_dim - c0);
    Vec total[kBlocks] = {};
    for (int64_t begin = 0; begin < kv_len; begin += kAttentionSplit) {
      const int64_t end = std::min(begin + kAttentionSplit, kv_len);
      Vec part[kBlocks] = {};
      if (width == kBlocks * kLanes) {
        for (int64_t t = begin; t < end; ++t) {
          const T* v = values + t * stride + c0;
          const Vec w = Splat(weights[t]);
          for (int i = 0; i < kBlocks; ++i) part[i] += w * Memory<T>::Load(v + i * kLanes);
        }
      } else {
        for (int64_t t = begin; t < end; ++t) {
          const T* v = values + t * stride + c0;
          const Vec w = Splat(weights[t]);
          for (int i = 0; i * kLanes < width; ++i) {
            part[i] += w * LoadUpTo(v + i * kLanes, width - i * kLanes);
          }
        }
      }
      for (int i = 0; i < kBlocks; ++i) total[i] += part[i];
    }
    for (int i = 0; i * kLanes < width; ++i) {
      StoreUpTo(out + c0 + i * kLanes, total[i], width - i * kLanes);
    }
  }
}

template <typename T>
PLUMB_INLINE void Attend(const AttentionShape& shape, int kv_head, const T* query, const T* keys,
                         const T* values, int64_t kv_len, float* scratch, T* out) {
  const int group = shape.heads / shape.kv_heads;
  const int64_t stride = static_cast<int64_t>(shape.kv_heads) * shape.head_dim;
  const int64_t kv_offset = static_cast<int64_t>(kv_head) * shape.head_dim;
  for (int g = 0; g < group; ++g) {
    const int64_t head_offset = static_cast<int64_t>(kv_head * group + g) * shape.head_dim;
    const float max = Scores(query + head_offset, keys + kv_offset, stride, shape.head_dim,
                             shape.scale, kv_len, scratch);
    Softmax<T>(scratch, kv_len, max);
    WeighValues(scratch, values + kv_offset, stride, shape.head_dim, kv_len, out + head_offset);
  }
}

}  // namespace

PLUMB_KERNEL_CLONES
void AttendF32(const AttentionShape& shape, int kv_head, const float* query, const float* keys,
               const float* values, int64_t kv_len, float* scratch, float* out) {
  Attend(shape, kv_head, query, keys, values, kv_len, scratch, out);
}

PLUMB_KERNEL_CLONES
void AttendBf16(const AttentionShape& shape, int kv_head, const Bf16* query, const Bf16* keys,
                const Bf16* values, int64_t kv_len, float* scratch, Bf16* out) {
  Attend(shape, kv_head, query, keys, values, kv_len, scratch, out);
}

}  // namespace plumbline::kernels
