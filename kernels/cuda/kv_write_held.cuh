// The quick way of a row that stands alone: each thread holds one pack of it in registers, shared
// memory only passes the other half of a head for the rotation. For formats whose groups lie well
// on packs; the arithmetic is the same.
#pragma once

#include "kernels/cuda/kv_write_tensor.cuh"

namespace plumbline::cuda {

// How groups lie on threads: one on the block, or one on a power of two of threads of a warp.
enum class GroupFit { kNone, kBlock, kSegment };

__device__ inline GroupFit FitOf(const TensorRule& rule, int head_dim, int pack) {
  if (rule.lane_channel != nullptr) return GroupFit::kNone;
  if (rule.hadamard && head_dim / pack > 32) return GroupFit::kNone;  // a head is in one warp
  const int lanes = rule.lanes / rule.groups;
  if (lanes * rule.groups != rule.lanes || rule.padded_group > lanes) return GroupFit::kNone;
  if (rule.groups == 1) return GroupFit::kBlock;
  if (rule.padded_group != 0 && rule.padded_group != lanes) return GroupFit::kNone;
  const int threads = lanes / pack;
  if (threads == 0 || threads * pack != lanes || threads > 32 || (threads & (threads - 1)) != 0) {
    return GroupFit::kNone;
  }
  return GroupFit::kSegment;
}

template <typename T>
struct HeldRow {
  static constexpr int kSize = Pack<T>::kSize;
  float x[kSize];
  int channel;   // of x[0]
  bool present;  // false: this thread is beyond the row
};

template <typename T>
__device__ inline Pack<T> PackOf(const HeldRow<T>& row) {
  Pack<T> pack;
#pragma unroll
  for (int k = 0; k < HeldRow<T>::kSize; ++k) pack.v[k] = Exactly<T>(row.x[k]);
  return pack;
}

// cos and sin of the channels that a thread holds.
template <typename T>
struct HeldAngles {
  float cos[Pack<T>::kSize];
  float sin[Pack<T>::kSize];
};

template <typename T>
__device__ inline void LoadAngles(const Angles& from, int channel, int head_dim,
                                  HeldAngles<T>* angles) {
  const int in_head = channel % head_dim;
  const int half = head_dim / 2;
  const int i = in_head < half ? in_head : in_head - half;
#pragma unroll
  for (int k = 0; k < Pack<T>::kSize; k += 4) {
    *reinterpret_cast<float4*>(angles->cos + k) =
        *reinterpret_cast<const float4*>(from.cos + i + k);
    *reinterpret_cast<float4*>(angles->sin + k) =
        *reinterpret_cast<const float4*>(from.sin + i + k);
  }
}

// One barrier, after which others may still read `shared`.
template <typename T>
__device__ inline void Turn(const HeldAngles<T>& angles, int head_dim, float* shared,
                            HeldRow<T>* row) {
  constexpr int kSize = HeldRow<T>::kSize;
  const int half = head_dim / 2;
  if (row->present) {
#pragma unroll
    for (int k = 0; k < kSize; k += 4) {
      *reinterpret_cast<float4*>(shared + row->channel + k) =
          *reinterpret_cast<float4*>(row->x + k);
    }
  }
  __syncthreads();
  if (!row->present) return;
  const bool first = row->channel % head_dim < half;
  const float* other = shared + row->channel + (first ? half : -half);
  float y[kSize];
#pragma unroll
  for (int k = 0; k < kSize; k += 4) {
    *reinterpret_cast<float4*>(y + k) = *reinterpret_cast<const float4*>(other + k);
  }
#pragma unroll
  for (int k = 0; k < kSize; ++k) {
    row->x[k] = first ? TurnedFirst<T>(row->x[k], y[k], angles.cos[k], angles.sin[k])
                      : TurnedSecond<T>(y[k], row->x[k], angles.cos[k], angles.sin[k]);
  }
}

// The range of the thread's group, in every thread of it.
template <typename T>
__device__ inline RangeKeys HeldRange(const TensorRule& rule, GroupFit fit, bool min_max,
                                      const HeldRow<T>& row, RangeKeys* partial) {
  RangeKeys range = EmptyRange(min_max);
  if (row.present) {
#pragma unroll
    for (int k = 0; k < HeldRow<T>::kSize; ++k) Widen(min_max, row.x[k], &range);
  }
  if (fit == GroupFit::kSegment) {
    const int threads = rule.lanes / rule.groups / HeldRow<T>::kSize;
    for (int step = 1; step < threads; step *= 2) {
      range = Merged(range, {__shfl_xor_sync(0xffffffffu, range.low, step),
                             __shfl_xor_sync(0xffffffffu, range.high, step)});
    }
    return range;
  }
  range = WarpMerged(range);
  const int warps = blockDim.x / 32;
  if (warps == 1) return range;
  if (threadIdx.x % 32 == 0) partial[threadIdx.x / 32] = range;
  __syncthreads();
  for (int w = 0; w < warps; ++w) range = Merged(range, partial[w]);
  return range;
}

__device__ inline float HadamardHalf(bool round, bool second, float own, float other) {
  const float value = second ? other - own : own + other;
  return round ? RoundToBf16(value) : value;
}

// Walsh-Hadamard of the heads that the warp's threads hold; as HadamardTile.
template <typename T, bool kStored>
__device__ void HadamardHeld(const TensorRule& rule, int head_dim, HeldRow<T>* row) {
  constexpr int kSize = HeldRow<T>::kSize;
  const bool round = RoundsEveryOperation(rule.spec);
#pragma unroll
  for (int h = 1; h < kSize; h *= 2) {
#pragma unroll
    for (int i = 0; i < kSize; ++i) {
      if (i & h) continue;
      const float a = row->x[i];
      const float b = row->x[i + h];
      row->x[i] = HadamardHalf(round, false, a, b);
      row->x[i + h] = HadamardHalf(round, true, b, a);
    }
  }
  for (int step = 1; step < head_dim / kSize; step *= 2) {
    const bool second = (threadIdx.x & step) != 0;
#pragma unroll
    for (int k = 0; k < kSize; ++k) {
      const float other = __shfl_xor_sync(0xffffffffu, row->x[k], step);
      row->x[k] = HadamardHalf(round, second, row->x[k], other);
    }
  }
  const float factor = static_cast<float>(1.0 / sqrt(static_cast<double>(head_dim)));
#pragma unroll
  for (int k = 0; k < kSize; ++k) {
    const float value = row->x[k] * factor;
    row->x[k] = kStored ? RoundTo<T>(value) : (round ? RoundToBf16(value) : value);
  }
}

__device__ inline Parameters KnownParameters(const TensorRule& rule, const SetTables& tables,
                                             int group) {
  return {tables.known_scale[group], UsesZero(rule.spec) ? tables.known_zero[group] : 0.0f};
}

template <typename T>
__device__ inline void QuantizeLanes(const TensorRule& rule, const SetTables& tables, GroupFit fit,
                                     RangeKeys* partial, HeldRow<T>* row) {
  Parameters p = {1.0f, 0.0f};
  if (tables.known_scale != nullptr) {
    const int group = row->channel / (rule.lanes / rule.groups);
    if (row->present) p = KnownParameters(rule, tables, group);
  } else if (rule.spec.code == QuantCode::kInt) {
    p = ParametersOf(rule.spec, HeldRange(rule, fit, UsesZero(rule.spec), *row, partial));
  }
  if (!row->present) return;
  const bool stored = !rule.hadamard;
  const auto run = [&](auto one) {
#pragma unroll
    for (int k = 0; k < HeldRow<T>::kSize; ++k) {
      const float value = one(row->x[k], p).value;
      row->x[k] = stored ? RoundTo<T>(value) : value;
    }
  };
  if (RoundsEveryOperation(rule.spec)) {
    WithRoundTrip<true>(rule.spec, run);
  } else {
    WithRoundTrip<false>(rule.spec, run);
  }
}

template <typename T>
__device__ void QuantizeHeld(const RunTensor<T>& tensor, GroupFit fit, RangeKeys* partial,
                             HeldRow<T>* row) {
  const TensorRule& rule = tensor.rule;
  if (rule.hadamard) HadamardHeld<T, false>(rule, tensor.head_dim(), row);
  QuantizeLanes(rule, tensor.Tables(), fit, partial, row);
  if (rule.hadamard) HadamardHeld<T, true>(rule, tensor.head_dim(), row);
}

}  // namespace plumbline::cuda
