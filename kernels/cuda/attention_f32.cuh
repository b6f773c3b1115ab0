// One warp's share of fp32 attention, without tensor cores: they would round to TF32. Two lanes
// take a position's score, each half of its channels; then each lane sums values of its own
// channels. Included by attention.cu alone.
#pragma once

#include "kernels/cuda/attention_tile.cuh"

namespace plumbline::cuda {

template <int kHeadDim, bool kCapped, bool kExact>
class F32Warp {
 public:
  using Element = float;
  static constexpr int kBlocksPerMultiprocessor = kHeadDim <= 128 ? 3 : 2;
  static constexpr int kExtraSharedFloats =
      kColumns * kHeadDim + kAttentionWarps * kPageTokens * kColumns;
  static constexpr bool kPrefetch = false;

  __device__ F32Warp(const AttentionCall& call, const Tile& tile, float* shared)
      : call_(call),
        keys_(call, tile),
        values_(call, tile),
        last_(tile.last()),
        lane_(threadIdx.x % 32),
        query_(shared),
        weights_(shared + kColumns * kHeadDim + threadIdx.x / 32 * (kPageTokens * kColumns)) {
#pragma unroll
    for (int c = 0; c < kColumns; ++c) {
      const Column column(call, tile, c);
      column_first_[c] = column.first;
      column_last_[c] = column.last;
    }
    Reset();
  }

  __device__ void LoadQuery(const AttentionCall& call, const Tile& tile, int kv_head,
                            bool /*paired*/) {
    constexpr int kHalf = kHeadDim / 2;
    for (int i = threadIdx.x; i < kColumns * kHeadDim; i += kAttentionThreads) {
      const Column column(call, tile, i / kHeadDim);
      const int channel = i % kHeadDim;
      float rotated = 0;
      if (column.used) {
        const float* head = static_cast<const float*>(call.qkv) +
                            int64_t{column.row} * call.dims.qkv_dim() +
                            (kv_head * call.group + column.head_of_group) * kHeadDim;
        const bool low = channel < kHalf;
        const int64_t angle = int64_t{column.last} * kHalf + (low ? channel : channel - kHalf);
        const float other = low ? -head[channel + kHalf] : head[channel - kHalf];
        rotated = __fadd_rn(__fmul_rn(head[channel], call.rope.cos[angle]),
                            __fmul_rn(other, call.rope.sin[angle]));
      }
      query_[i] = rotated;
    }
    __syncthreads();
  }

  __device__ void Prefetch(const PagePlace& /*place*/) {}

  __device__ void Step(const PagePlace& place, const PagePlace& /*next*/) {
    float scores[kColumns];
    Scores(place, scores);
    Softmax(scores);
    WeighValues(place);
  }

  __device__ void Finish(int /*columns*/, float* max, float* total, float* sums, int stride) {
    if (lane_ == 0) {
#pragma unroll
      for (int c = 0; c < kColumns; ++c) {
        max[c] = max_[c];
        total[c] = total_[c];
      }
    }
#pragma unroll
    for (int i = 0; i < kChunks; ++i) {
      const int channel = 4 * (lane_ + 32 * i);
      if (channel >= kHeadDim) continue;
#pragma unroll
      for (int c = 0; c < kColumns; ++c) {
        *reinterpret_cast<float4*>(sums + c * stride + channel) = sums_[i][c];
      }
    }
    Reset();
  }

 private:
  static constexpr int kChunks = (kHeadDim + 127) / 128;  // of four channels, of a lane

  __device__ void Reset() {
#pragma unroll
    for (int c = 0; c < kColumns; ++c) {
      max_[c] = -INFINITY;
      total_[c] = 0;
#pragma unroll
      for (int i = 0; i < kChunks; ++i) sums_[i][c] = make_float4(0, 0, 0, 0);
    }
  }

  // Of position lane / 2 of the page.
  __device__ void Scores(const PagePlace& place, float (&scores)[kColumns]) const {
    const int position = place.page * kPageTokens + lane_ / 2;
    const float* key = keys_.At(place.number, place.kv_head, position) + lane_ % 2 * 4;
    const float* query = query_ + lane_ % 2 * 4;
#pragma unroll
    for (int c = 0; c < kColumns; ++c) scores[c] = 0;
    const bool valid = position <= last_;
#pragma unroll 4
    for (int i = 0; i < kHeadDim; i += 8) {
      const float4 k = valid ? *reinterpret_cast<const float4*>(key + i) : make_float4(0, 0, 0, 0);
#pragma unroll
      for (int c = 0; c < kColumns; ++c) {
        const float4 q = *reinterpret_cast<const float4*>(query + c * kHeadDim + i);
        scores[c] = fmaf(q.x, k.x, scores[c]);
        scores[c] = fmaf(q.y, k.y, scores[c]);
        scores[c] = fmaf(q.z, k.z, scores[c]);
        scores[c] = fmaf(q.w, k.w, scores[c]);
      }
    }
#pragma unroll
    for (int c = 0; c < kColumns; ++c) {
      const float product = scores[c] + __shfl_xor_sync(~0u, scores[c], 1);
      const bool seen = position >= column_first_[c] && position <= column_last_[c];
      scores[c] = seen ? call_.Score<kCapped>(product) : -INFINITY;
    }
  }

  // Leaves the page's weights in shared memory.
  __device__ void Softmax(const float (&scores)[kColumns]) {
    __syncwarp();
#pragma unroll
    for (int c = 0; c < kColumns; ++c) {
      float max = scores[c];
#pragma unroll
      for (int distance = 2; distance < 32; distance *= 2) {
        max = fmaxf(max, __shfl_xor_sync(~0u, max, distance));
      }
      max = fmaxf(max, max_[c]);
      const float rescale = Weight(max_[c], max);
      max_[c] = max;
      total_[c] *= rescale;
#pragma unroll
      for (int i = 0; i < kChunks; ++i) {
        sums_[i][c].x *= rescale;
        sums_[i][c].y *= rescale;
        sums_[i][c].z *= rescale;
        sums_[i][c].w *= rescale;
      }
      if (lane_ % 2 == c / 4) weights_[lane_ / 2 * kColumns + c] = Weight(scores[c], max);
    }
    __syncwarp();
  }

  __device__ void WeighValues(const PagePlace& place) {
#pragma unroll 4
    for (int r = 0; r < kPageTokens; ++r) {
      const int position = place.page * kPageTokens + r;
      if (position > last_) break;
      const float* value = values_.At(place.number, place.kv_head, position);
      float4 v[kChunks];
#pragma unroll
      for (int i = 0; i < kChunks; ++i) {
        const int channel = 4 * (lane_ + 32 * i);
        v[i] = channel < kHeadDim ? *reinterpret_cast<const float4*>(value + channel)
                                  : make_float4(0, 0, 0, 0);
      }
#pragma unroll
      for (int c = 0; c < kColumns; ++c) {
        const float weight = weights_[r * kColumns + c];
        total_[c] += weight;
#pragma unroll
        for (int i = 0; i < kChunks; ++i) {
          sums_[i][c].x = fmaf(weight, v[i].x, sums_[i][c].x);
          sums_[i][c].y = fmaf(weight, v[i].y, sums_[i][c].y);
          sums_[i][c].z = fmaf(weight, v[i].z, sums_[i][c].z);
          sums_[i][c].w = fmaf(weight, v[i].w, sums_[i][c].w);
        }
      }
    }
  }

  const AttentionCall& call_;
  const Source<float, kHeadDim, false, kExact> keys_;
  const Source<float, kHeadDim, true, kExact> values_;
  const int last_, lane_;
  float* const query_;    // [columns, head_dim], of the block
  float* const weights_;  // [positions of a page, columns], of the warp
  int column_first_[kColumns], column_last_[kColumns];
  float max_[kColumns], total_[kColumns];
  float4 sums_[kChunks][kColumns];
};

}  // namespace plumbline::cuda
