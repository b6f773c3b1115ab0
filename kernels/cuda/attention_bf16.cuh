// One warp's share of bf16 attention, on tensor cores. A page of 16 positions is one tile of
// m16n8k16 products: scores[16 positions, 8 columns] = K Q^T, then out[channels, 8 columns] =
// V^T P^T. Keys and values go from memory straight to the registers that the products read: the
// order of channels within a product is free as long as both operands agree on it, so each lane
// takes 16 neighbouring bytes of a row.
//
// Lane = 4 * g + t. Included by attention.cu alone.
#pragma once

#include "kernels/cuda/attention_tile.cuh"
#include "kernels/cuda/bf16_words.cuh"

namespace plumbline::cuda {

// Four neighbouring channels of a query head at `position`, rotated as kernels/row_ops.h does.
template <int kHeadDim>
__device__ inline uint2 RotatedQuery(const __nv_bfloat16* head, const RopeTables& rope,
                                     int64_t position, int channel) {
  constexpr int kHalf = kHeadDim / 2;
  const bool low = channel < kHalf;
  const int angle = low ? channel : channel - kHalf;
  const uint2 self = *reinterpret_cast<const uint2*>(head + channel);
  const uint2 other = *reinterpret_cast<const uint2*>(head + (low ? channel + kHalf : angle));
  const float4 cos = *reinterpret_cast<const float4*>(rope.cos + position * kHalf + angle);
  const float4 sin = *reinterpret_cast<const float4*>(rope.sin + position * kHalf + angle);
  const auto rotate = [low](float a, float b, float c, float s) {
    const float turned = RoundBf16(__fmul_rn(low ? -b : b, s));
    return __fadd_rn(RoundBf16(__fmul_rn(a, c)), turned);
  };
  return {PackBf16(rotate(LowBf16(self.x), LowBf16(other.x), cos.x, sin.x),
                   rotate(HighBf16(self.x), HighBf16(other.x), cos.y, sin.y)),
          PackBf16(rotate(LowBf16(self.y), LowBf16(other.y), cos.z, sin.z),
                   rotate(HighBf16(self.y), HighBf16(other.y), cos.w, sin.w))};
}

template <int kHeadDim, bool kCapped, bool kExact>
class Bf16Warp {
 public:
  using Element = __nv_bfloat16;
  // As many as have registers for a page of keys and values on its way without spilling.
  static constexpr int kBlocksPerMultiprocessor = kHeadDim <= 96 ? 4 : kHeadDim <= 128 ? 3 : 2;
  // Words of a query head in shared memory; the padding spreads heads over the banks.
  static constexpr int kQueryStride = kHeadDim / 2 + 16;
  static constexpr int kExtraSharedFloats = kColumns * kQueryStride;
  // Whether the next page's loads, of the next head too, are under way during a step. A page of
  // wider heads fills the registers by itself.
  static constexpr bool kPrefetch = kHeadDim <= 128;

  __device__ Bf16Warp(const AttentionCall& call, const Tile& tile, float* shared)
      : call_(call),
        keys_(call, tile),
        values_(call, tile),
        last_(tile.last()),
        g_(threadIdx.x % 32 / 4),
        t_(threadIdx.x % 4),
        query_(reinterpret_cast<uint32_t*>(shared)) {
#pragma unroll
    for (int i = 0; i < 2; ++i) {
      const Column column(call, tile, 2 * t_ + i);
      column_first_[i] = column.first;
      column_last_[i] = column.last;
    }
    Reset();
  }

  // The queries of one kv head, or of two. Not in the constructor, so that the first page's loads
  // are under way before.
  __device__ void LoadQuery(const AttentionCall& call, const Tile& tile, int kv_head, bool paired) {
    for (int i = threadIdx.x; i < kColumns * kHeadDim / 4; i += kAttentionThreads) {
      const int slot_index = i / (kHeadDim / 4), channel = i % (kHeadDim / 4) * 4;
      const Slot slot(kv_head, paired, slot_index);
      const Column column(call, tile, slot.column);
      uint2 words = {0, 0};
      if (column.used) {
        const Element* head = static_cast<const Element*>(call.qkv) +
                              int64_t{column.row} * call.dims.qkv_dim() +
                              (slot.kv_head * call.group + column.head_of_group) * kHeadDim;
        words = RotatedQuery<kHeadDim>(head, call.rope, column.last, channel);
      }
      *reinterpret_cast<uint2*>(query_ + slot_index * kQueryStride + channel / 2) = words;
    }
    __syncthreads();
  }

  __device__ void Prefetch(const PagePlace& place) {
    if constexpr (kPrefetch) {
      LoadKeys(place);
      LoadValues(place);
    }
  }

  // Whose keys and values are already here, with kPrefetch; `next` are on their way afterwards.
  __device__ void Step(const PagePlace& place, const PagePlace& next) {
    if constexpr (!kPrefetch) LoadKeys(place);
    float scores[4];
    Scores(place, scores);
    if constexpr (kPrefetch) {
      if (next.exists()) LoadKeys(next);
    } else {
      LoadValues(place);
    }
    uint32_t high[2], low[2];
    Softmax(scores, high, low);
    WeighValues(high, low);
    if constexpr (kPrefetch) {
      if (next.exists()) LoadValues(next);
    }
  }

  // Leaves this warp's sums of a split in shared memory and begins anew. columns: how many there
  // are room for.
  __device__ void Finish(int columns, float* max, float* total, float* sums, int stride) {
#pragma unroll
    for (int i = 0; i < 2; ++i) {
#pragma unroll
      for (int distance = 4; distance < 32; distance *= 2) {
        total_[i] += __shfl_xor_sync(~0u, total_[i], distance);
      }
      if (2 * t_ + i >= columns) continue;
      if (g_ == 0) {
        max[2 * t_ + i] = max_[i];
        total[2 * t_ + i] = total_[i];
      }
#pragma unroll
      for (int f = 0; f < kHeadDim / 16; ++f) {
        *reinterpret_cast<float2*>(sums + (2 * t_ + i) * stride + ChannelOf(f)) =
            make_float2(sums_[f][i], sums_[f][2 + i]);
      }
    }
    Reset();
  }

 private:
  static constexpr int kGroups32 = kHeadDim / 32;
  static constexpr int kGroups64 = kHeadDim / 64;
  static constexpr int kTail64 = kHeadDim % 64 / 16;  // words of a lane past the groups of 64

  // Channel of the first of the two rows that fragment f of the sums has in this lane.
  __device__ int ChannelOf(int f) const {
    if (f < 4 * kGroups64) return f / 4 * 64 + 8 * g_ + 2 * (f % 4);
    return kGroups64 * 64 + 2 * kTail64 * g_ + 2 * (f - 4 * kGroups64);
  }

  __device__ void Reset() {
#pragma unroll
    for (int i = 0; i < 2; ++i) {
      max_[i] = -INFINITY;
      total_[i] = 0;
    }
#pragma unroll
    for (int f = 0; f < kHeadDim / 16; ++f) {
#pragma unroll
      for (int i = 0; i < 4; ++i) sums_[f][i] = 0;
    }
  }

  __device__ void LoadKeys(const PagePlace& place) {
    const Element* cached = keys_.Page(place.number, place.kv_head) + g_ * kHeadDim;
    const bool is_cached = !keys_.exact;
#pragma unroll
    for (int r = 0; r < 2; ++r) {
      const int position = place.page * kPageTokens + g_ + 8 * r;
      const Element* from = cached + 8 * r * kHeadDim;
      if (!is_cached) from = keys_.At(place.number, place.kv_head, position);
      LoadKeyRow(from, position <= last_, key_words_[r]);
    }
  }
  __device__ void LoadKeyRow(const Element* from, bool valid, uint32_t (&to)[kHeadDim / 8]) const {
#pragma unroll
    for (int i = 0; i < kGroups32; ++i) {
      uint32_t words[4];
      LoadWords(from + 32 * i + 8 * t_, valid, words);
#pragma unroll
      for (int j = 0; j < 4; ++j) to[4 * i + j] = words[j];
    }
    if constexpr (kHeadDim % 32 != 0) {
      uint32_t words[2];
      LoadWords(from + 32 * kGroups32 + 4 * t_, valid, words);
      to[4 * kGroups32] = words[0];
      to[4 * kGroups32 + 1] = words[1];
    }
  }

  // Positions past the last are zero: a weight of zero would not silence a NaN left there.
  __device__ void LoadValues(const PagePlace& place) {
    const Element* cached = values_.Page(place.number, place.kv_head) + 2 * t_ * kHeadDim;
    const bool is_cached = !values_.exact;
#pragma unroll
    for (int r = 0; r < 4; ++r) {
      const int offset = r % 2 + r / 2 * 8, position = place.page * kPageTokens + 2 * t_ + offset;
      const Element* from = cached + offset * kHeadDim;
      if (!is_cached) from = values_.At(place.number, place.kv_head, position);
      LoadValueRow(from, position <= last_, value_words_[r]);
    }
  }
  __device__ void LoadValueRow(const Element* from, bool valid,
                               uint32_t (&to)[kHeadDim / 16]) const {
#pragma unroll
    for (int i = 0; i < kGroups64; ++i) {
      uint32_t words[4];
      LoadWords(from + 64 * i + 8 * g_, valid, words);
#pragma unroll
      for (int j = 0; j < 4; ++j) to[4 * i + j] = words[j];
    }
    if constexpr (kTail64 != 0) {
      uint32_t words[kTail64];
      LoadWords(from + 64 * kGroups64 + 2 * kTail64 * g_, valid, words);
#pragma unroll
      for (int j = 0; j < kTail64; ++j) to[4 * kGroups64 + j] = words[j];
    }
  }

  // 16 channels of the page's keys, from word i on, with the same ones of the queries.
  __device__ void Multiply(float (&scores)[4], int i, uint32_t query0, uint32_t query1) const {
    MultiplyAdd(scores, key_words_[0][i], key_words_[1][i], key_words_[0][i + 1],
                key_words_[1][i + 1], query0, query1);
  }

  // scores[i]: position g (i < 2) or g + 8 of the page, column 2t + i % 2.
  // Columns beyond those of a head's own see nothing, whatever query stands there.
  __device__ void Scores(const PagePlace& place, float (&scores)[4]) const {
    scores[0] = scores[1] = scores[2] = scores[3] = 0;
    const int slot = (g_ + kPairColumns * place.pair) % kColumns;
    const uint32_t* query = query_ + slot * kQueryStride;
#pragma unroll
    for (int i = 0; i < kGroups32; ++i) {
      const uint4 q = *reinterpret_cast<const uint4*>(query + 16 * i + 4 * t_);
      Multiply(scores, 4 * i, q.x, q.y);
      Multiply(scores, 4 * i + 2, q.z, q.w);
    }
    if constexpr (kHeadDim % 32 != 0) {
      const uint2 q = *reinterpret_cast<const uint2*>(query + 16 * kGroups32 + 2 * t_);
      Multiply(scores, 4 * kGroups32, q.x, q.y);
    }
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      const int position = place.page * kPageTokens + g_ + i / 2 * 8;
      const bool seen = position >= column_first_[i % 2] && position <= column_last_[i % 2];
      scores[i] = seen ? call_.Score<kCapped>(scores[i]) : -INFINITY;
    }
  }

  // The page's weights as two bf16 numbers each, laid out as the product reads them.
  __device__ void Softmax(const float (&scores)[4], uint32_t (&high)[2], uint32_t (&low)[2]) {
    float rescale[2], weights[4];
#pragma unroll
    for (int i = 0; i < 2; ++i) {
      float max = fmaxf(scores[i], scores[2 + i]);
#pragma unroll
      for (int distance = 4; distance < 32; distance *= 2) {
        max = fmaxf(max, __shfl_xor_sync(~0u, max, distance));
      }
      max = fmaxf(max, max_[i]);
      rescale[i] = Weight(max_[i], max);
      weights[i] = Weight(scores[i], max);
      weights[2 + i] = Weight(scores[2 + i], max);
      max_[i] = max;
      total_[i] = fmaf(total_[i], rescale[i], weights[i] + weights[2 + i]);
    }
#pragma unroll
    for (int f = 0; f < kHeadDim / 16; ++f) {
#pragma unroll
      for (int i = 0; i < 4; ++i) sums_[f][i] *= rescale[i % 2];
    }
#pragma unroll
    for (int r = 0; r < 2; ++r) {
      const uint32_t first = PackBf16(weights[2 * r], weights[2 * r + 1]);
      const uint32_t rest =
          PackBf16(weights[2 * r] - LowBf16(first), weights[2 * r + 1] - HighBf16(first));
      high[r] = Transposed(first);
      low[r] = Transposed(rest);
    }
  }

  __device__ void WeighValues(const uint32_t (&high)[2], const uint32_t (&low)[2]) {
#pragma unroll
    for (int f = 0; f < kHeadDim / 16; ++f) {
      const uint32_t a0 = __byte_perm(value_words_[0][f], value_words_[1][f], 0x5410);
      const uint32_t a1 = __byte_perm(value_words_[0][f], value_words_[1][f], 0x7632);
      const uint32_t a2 = __byte_perm(value_words_[2][f], value_words_[3][f], 0x5410);
      const uint32_t a3 = __byte_perm(value_words_[2][f], value_words_[3][f], 0x7632);
      MultiplyAdd(sums_[f], a0, a1, a2, a3, high[0], high[1]);
      MultiplyAdd(sums_[f], a0, a1, a2, a3, low[0], low[1]);
    }
  }

  const AttentionCall& call_;
  const Source<Element, kHeadDim, false, kExact> keys_;
  const Source<Element, kHeadDim, true, kExact> values_;
  const int last_, g_, t_;
  uint32_t* const query_;  // [columns, kQueryStride] pairs, of the block
  int column_first_[2], column_last_[2];
  uint32_t key_words_[2][kHeadDim / 8];
  uint32_t value_words_[4][kHeadDim / 16];
  float max_[2], total_[2];
  float sums_[kHeadDim / 16][4];
};

}  // namespace plumbline::cuda
