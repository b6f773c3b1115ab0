#include <cuda_bf16.h>

#include "kernels/cuda/channel_stats.h"

namespace plumbline::cuda {
namespace {

using kernels::ChannelStats;
using kernels::kStatsBins;
using kernels::kStatsSegmentRows;
using kernels::MergeMoments;
using kernels::StatsMoments;

constexpr int kThreads = 512;
constexpr int kRunsAtOnce = 16;  // blocks that share the measured runs of a step
// Lanes of a warp count into copies of the histogram, so that few of them meet.
constexpr int kCopies = 8;

__device__ float Value(const float* from) { return *from; }
__device__ float Value(const __nv_bfloat16* from) { return __bfloat162float(*from); }

struct Segment {
  StatsMoments moments;
  float min = 0, max = 0;
};

__device__ Segment Merge(const Segment& a, const Segment& b) {
  if (a.moments.rows == 0) return b;
  return {MergeMoments(a.moments, b.moments), b.min < a.min ? b.min : a.min,
          b.max > a.max ? b.max : a.max};
}

// Up to kStatsSegmentRows rows of one channel, which are counted too.
template <typename T>
__device__ Segment MeasureSegment(const T* from, int rows, int64_t stride, uint32_t* counts) {
  float x[kStatsSegmentRows];
#pragma unroll
  for (int i = 0; i < kStatsSegmentRows; ++i) {
    x[i] = i < rows ? Value(from + i * stride) : 0.0f;
  }
  Segment segment = {{rows, 0, 0}, x[0], x[0]};
  double sum = 0;
#pragma unroll
  for (int i = 0; i < kStatsSegmentRows; ++i) {
    if (i < rows) {
      sum += static_cast<double>(x[i]);
      segment.min = x[i] < segment.min ? x[i] : segment.min;
      segment.max = x[i] > segment.max ? x[i] : segment.max;
      atomicAdd(counts + kernels::StatsBin(__float_as_uint(x[i])) * kCopies, 1u);
    }
  }
  const double mean = sum / static_cast<double>(rows);
  double squares = 0;
#pragma unroll
  for (int i = 0; i < kStatsSegmentRows; ++i) {
    if (i < rows) {
      const double deviation = static_cast<double>(x[i]) - mean;
      squares += deviation * deviation;
    }
  }
  segment.moments.mean = mean;
  segment.moments.squares = squares;
  return segment;
}

// blockDim: (channels of a head, segments at once); blockIdx.x: a head of the keys, then of the
// values. Threads of segment 0 hold what is merged so far.
template <typename T>
__global__ void __launch_bounds__(kThreads) MeasureKvHead(MeasureKv args) {
  extern __shared__ char shared[];
  auto* const segments = reinterpret_cast<Segment*>(shared);  // [blockDim.y, head_dim]
  __shared__ uint32_t counts[kStatsBins * kCopies];
  const ModelDims& dims = args.dims;
  const int channel = threadIdx.x, lane = threadIdx.y, lanes = blockDim.y;
  const int thread = lane * blockDim.x + channel, threads = blockDim.x * lanes;
  const bool values = blockIdx.x >= dims.kv_heads;
  const int head = values ? blockIdx.x - dims.kv_heads : blockIdx.x;
  const int64_t column =
      dims.q_dim() + (values ? dims.kv_dim() : 0) + head * dims.head_dim + channel;
  const MeasuredRuns measured = *args.step.measured;
  const auto* const list = reinterpret_cast<const int32_t*>(args.step.measured + 1);
  for (int i = blockIdx.y; i < measured.count; i += gridDim.y) {
    const Run run = args.step.runs[list[i]];
    for (int bin = thread; bin < kStatsBins * kCopies; bin += threads) counts[bin] = 0;
    __syncthreads();
    const T* const first = static_cast<const T*>(args.qkv) +
                           static_cast<int64_t>(run.first_row) * dims.qkv_dim() + column;
    Segment merged;
    for (int begin = 0; begin < run.rows; begin += lanes * kStatsSegmentRows) {
      const int row = begin + lane * kStatsSegmentRows;
      const int rows = min(run.rows - row, kStatsSegmentRows);
      if (rows > 0) {
        segments[thread] = MeasureSegment(first + static_cast<int64_t>(row) * dims.qkv_dim(), rows,
                                          dims.qkv_dim(), counts + thread % kCopies);
      }
      __syncthreads();
      const int there = min((run.rows - begin + kStatsSegmentRows - 1) / kStatsSegmentRows, lanes);
      if (lane == 0) {
        for (int s = 0; s < there; ++s) merged = Merge(merged, segments[s * blockDim.x + channel]);
      }
      __syncthreads();
    }
    const int64_t place =
        (static_cast<int64_t>(measured.first_slot + i) * dims.layers + args.layer) * 2 + values;
    const ChannelStats out = kernels::ChannelStatsAt(
        args.out + place * kernels::ChannelStatsBytes(dims.kv_heads, dims.head_dim), dims.kv_heads,
        dims.head_dim);
    if (lane == 0) {
      const int flat = head * dims.head_dim + channel;
      out.mean[flat] = merged.moments.mean;
      out.squares[flat] = merged.moments.squares;
      out.min[flat] = merged.min;
      out.max[flat] = merged.max;
    }
    for (int bin = thread; bin < kStatsBins; bin += threads) {
      uint32_t sum = 0;
      for (int copy = 0; copy < kCopies; ++copy) sum += counts[bin * kCopies + copy];
      out.counts[head * kStatsBins + bin] = sum;
    }
    __syncthreads();  // before the counts are cleared for the next run
  }
}

}  // namespace

cudaError_t LaunchMeasureKv(const MeasureKv& args, cudaStream_t stream) {
  const ModelDims& dims = args.dims;
  const dim3 block(dims.head_dim, kThreads / dims.head_dim);
  const dim3 grid(2 * dims.kv_heads, kRunsAtOnce);
  const size_t shared = size_t{sizeof(Segment)} * block.x * block.y;
  if (args.dtype == Dtype::kF32) {
    MeasureKvHead<float><<<grid, block, shared, stream>>>(args);
  } else {
    MeasureKvHead<__nv_bfloat16><<<grid, block, shared, stream>>>(args);
  }
  return cudaPeekAtLastError();
}

}  // namespace plumbline::cuda
