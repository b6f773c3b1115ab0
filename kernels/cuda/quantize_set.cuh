// Quantizes a set of rows that share parameters (one row, or many) with one thread block. Rows pass
// through a tile of shared memory, as floats; statistics form over all of them before the first is
// changed. Every function is called by the whole block and ends with a barrier.
#pragma once

#include "kernels/cuda/quantize_math.cuh"
#include "kernels/cuda/step.h"

namespace plumbline::cuda {

// Shared memory of a block. The tile holds rows of `channels` floats.
struct SetScratch {
  float* tile;
  int tile_rows;
  RangeKeys* lanes;    // [channels], by lane; null when a set is always one row
  Parameters* groups;  // [channels], by group
  RangeKeys* partial;  // [32]
};

inline int64_t SetScratchBytes(int channels, int tile_rows, bool many_rows) {
  const int64_t row = sizeof(float) * channels;
  const int64_t pair = sizeof(Parameters) * channels;
  return row * tile_rows + pair * (many_rows ? 2 : 1) + 32 * sizeof(RangeKeys);
}

__device__ inline SetScratch CarveScratch(float* memory, int channels, int tile_rows,
                                          bool many_rows) {
  SetScratch s;
  s.tile = memory;
  s.tile_rows = tile_rows;
  s.groups = reinterpret_cast<Parameters*>(memory + int64_t{channels} * tile_rows);
  s.partial = reinterpret_cast<RangeKeys*>(s.groups + channels);
  s.lanes = many_rows ? s.partial + 32 : nullptr;
  return s;
}

__device__ inline int ChannelOf(const TensorRule& rule, int lane) {
  return rule.lane_channel == nullptr ? lane : rule.lane_channel[lane];
}

// Threads that serve one group together, and the groups they serve.
struct Team {
  int first_group, group_stride;
  int rank, size;
};

__device__ inline Team TeamOf(const TensorRule& rule) {
  const int thread = threadIdx.x;
  const int threads = blockDim.x;
  if (rule.groups == 1) return {0, 1, thread, threads};
  if (rule.lanes >= rule.groups * 8) return {thread / 32, threads / 32, thread % 32, 32};
  return {thread, threads, 0, 1};
}

__device__ inline RangeKeys WarpMerged(RangeKeys range) {
  return {__reduce_min_sync(0xffffffffu, range.low), __reduce_max_sync(0xffffffffu, range.high)};
}

// For teams of a warp or the block; the result is valid in rank 0.
__device__ inline RangeKeys TeamMerged(const Team& team, RangeKeys range, const SetScratch& s) {
  if (team.size == 1) return range;
  range = WarpMerged(range);
  if (team.size == 32) return range;
  if (threadIdx.x % 32 == 0) s.partial[threadIdx.x / 32] = range;
  __syncthreads();
  for (int w = 0; w < static_cast<int>(blockDim.x) / 32; ++w) range = Merged(range, s.partial[w]);
  return range;
}

// widen(lane, &range) merges what was seen in a lane.
template <typename WidenLane>
__device__ void FormParameters(const TensorRule& rule, const SetScratch& s, WidenLane widen) {
  const bool min_max = UsesZero(rule.spec);
  const Team team = TeamOf(rule);
  for (int g = team.first_group; g < rule.groups; g += team.group_stride) {
    RangeKeys range = EmptyRange(min_max);
    const int begin = rule.groups == 1 ? 0 : rule.group_begin[g];
    const int end = rule.groups == 1 ? rule.lanes : rule.group_begin[g + 1];
    for (int lane = begin + team.rank; lane < end; lane += team.size) widen(lane, &range);
    if (min_max && end - begin < rule.padded_group) Widen(min_max, 0.0f, &range);
    range = TeamMerged(team, range, s);
    if (team.rank == 0) s.groups[g] = ParametersOf(rule.spec, range);
  }
  __syncthreads();
}

// What is seen of a tile's rows is added to s.lanes.
__device__ inline void AccumulateTile(const TensorRule& rule, int channels, int rows,
                                      const SetScratch& s) {
  const bool min_max = UsesZero(rule.spec);
  for (int lane = threadIdx.x; lane < rule.lanes; lane += blockDim.x) {
    const float* x = s.tile + ChannelOf(rule, lane);
    RangeKeys range = s.lanes[lane];
    for (int r = 0; r < rows; ++r) Widen(min_max, x[r * channels], &range);
    s.lanes[lane] = range;
  }
  __syncthreads();
}

// Walsh-Hadamard of each quantized head of each row; a head's lanes are neighbouring channels.
// kStored: what comes out is rounded to the element, as it is stored.
template <typename T, bool kStored>
__device__ void HadamardTile(const TensorRule& rule, int head_dim, int channels, int rows,
                             float* tile) {
  const bool round = RoundsEveryOperation(rule.spec);
  const int heads = rule.lanes / head_dim;
  const int pairs = rows * heads * (head_dim / 2);
  const float factor = static_cast<float>(1.0 / sqrt(static_cast<double>(head_dim)));
  for (int h = 1; h < head_dim; h *= 2) {
    const bool last = 2 * h == head_dim;
    for (int p = threadIdx.x; p < pairs; p += blockDim.x) {
      const int head = p / (head_dim / 2);
      const int k = p % (head_dim / 2);
      float* x = tile + head / heads * channels + ChannelOf(rule, head % heads * head_dim) +
                 k / h * 2 * h + k % h;
      const float a = x[0];
      const float b = x[h];
      float sum = a + b;
      float difference = a - b;
      if (round) sum = RoundToBf16(sum), difference = RoundToBf16(difference);
      if (last) {
        sum *= factor;
        difference *= factor;
        if (round) sum = RoundToBf16(sum), difference = RoundToBf16(difference);
        if (kStored) sum = RoundTo<T>(sum), difference = RoundTo<T>(difference);
      }
      x[0] = sum;
      x[h] = difference;
    }
    __syncthreads();
  }
}

// Where the set's codes and parameters are wanted, and parameters that are known beforehand.
struct SetTables {
  const float* known_scale = nullptr;  // [groups]
  const float* known_zero = nullptr;
  uint8_t* codes = nullptr;  // [rows of the set, lanes]
  float* scale = nullptr;    // [groups]
  float* zero = nullptr;
};

template <typename T, typename OneValue>
__device__ void RoundTripLanes(const TensorRule& rule, const SetTables& tables, int channels,
                               int first_row, int rows, const SetScratch& s, OneValue one) {
  const Team team = TeamOf(rule);
  for (int g = team.first_group; g < rule.groups; g += team.group_stride) {
    Parameters p;
    if (tables.known_scale != nullptr) {
      p = {tables.known_scale[g], UsesZero(rule.spec) ? tables.known_zero[g] : 0.0f};
    } else {
      p = s.groups[g];
    }
    const int begin = rule.groups == 1 ? 0 : rule.group_begin[g];
    const int end = rule.groups == 1 ? rule.lanes : rule.group_begin[g + 1];
#pragma unroll 1
    for (int lane = begin + team.rank; lane < end; lane += team.size) {
      float* x = s.tile + ChannelOf(rule, lane);
#pragma unroll 1
      for (int r = 0; r < rows; ++r) {
        const Quantized q = one(x[r * channels], p);
        x[r * channels] = rule.hadamard ? q.value : RoundTo<T>(q.value);
        if (tables.codes != nullptr) {
          tables.codes[int64_t{first_row + r} * rule.lanes + lane] = q.code;
        }
      }
    }
  }
  __syncthreads();
}

// Values are rounded to the element, unless a rotation follows.
template <typename T>
__device__ void RoundTripTile(const TensorRule& rule, const SetTables& tables, int channels,
                              int first_row, int rows, const SetScratch& s) {
  const auto run = [&](auto one) {
    RoundTripLanes<T>(rule, tables, channels, first_row, rows, s, one);
  };
  if (RoundsEveryOperation(rule.spec)) {
    WithRoundTrip<true>(rule.spec, run);
  } else {
    WithRoundTrip<false>(rule.spec, run);
  }
}

__device__ inline void WriteParameters(const TensorRule& rule, const SetTables& tables,
                                       const SetScratch& s) {
  if (tables.scale == nullptr) return;
  for (int g = threadIdx.x; g < rule.groups; g += blockDim.x) {
    tables.scale[g] = tables.known_scale == nullptr ? s.groups[g].scale : tables.known_scale[g];
    if (!UsesZero(rule.spec)) continue;
    tables.zero[g] = tables.known_scale == nullptr ? s.groups[g].zero : tables.known_zero[g];
  }
}

// One row that lies in the tile.
template <typename T>
__device__ __forceinline__ void QuantizeTileRow(const TensorRule& rule, const SetTables& tables,
                                                int head_dim, int channels, const SetScratch& s) {
  if (rule.hadamard) HadamardTile<T, false>(rule, head_dim, channels, 1, s.tile);
  if (tables.known_scale == nullptr) {
    const bool min_max = UsesZero(rule.spec);
    FormParameters(rule, s, [&](int lane, RangeKeys* range) {
      Widen(min_max, s.tile[ChannelOf(rule, lane)], range);
    });
  }
  WriteParameters(rule, tables, s);
  RoundTripTile<T>(rule, tables, channels, 0, 1, s);
  if (rule.hadamard) HadamardTile<T, true>(rule, head_dim, channels, 1, s.tile);
}

// Rows [begin, end) together. rows.Load(first, count, tile) fills the tile with raw rows,
// rows.Store(first, count, tile) takes dequantized ones; both end with a barrier.
template <typename T, typename Rows>
__device__ void QuantizeSet(const TensorRule& rule, const SetTables& tables, int head_dim,
                            int channels, int begin, int end, const SetScratch& s, Rows& rows) {
  if (end - begin == 1) {
    rows.Load(begin, 1, s.tile);
    QuantizeTileRow<T>(rule, tables, head_dim, channels, s);
    rows.Store(begin, 1, s.tile);
    return;
  }
  const auto load = [&](int first, int count) {
    rows.Load(first, count, s.tile);
    if (rule.hadamard) HadamardTile<T, false>(rule, head_dim, channels, count, s.tile);
  };
  if (tables.known_scale == nullptr) {
    const bool min_max = UsesZero(rule.spec);
    for (int i = threadIdx.x; i < rule.lanes; i += blockDim.x) s.lanes[i] = EmptyRange(min_max);
    for (int t = begin; t < end; t += s.tile_rows) {
      const int count = min(s.tile_rows, end - t);
      load(t, count);
      AccumulateTile(rule, channels, count, s);
    }
    FormParameters(rule, s,
                   [&](int lane, RangeKeys* range) { *range = Merged(*range, s.lanes[lane]); });
  }
  WriteParameters(rule, tables, s);
  const bool loaded = tables.known_scale == nullptr && end - begin <= s.tile_rows;
  for (int t = begin; t < end; t += s.tile_rows) {
    const int count = min(s.tile_rows, end - t);
    if (!loaded) load(t, count);
    RoundTripTile<T>(rule, tables, channels, t - begin, count, s);
    if (rule.hadamard) HadamardTile<T, true>(rule, head_dim, channels, count, s.tile);
    rows.Store(t, count, s.tile);
  }
}

}  // namespace plumbline::cuda
