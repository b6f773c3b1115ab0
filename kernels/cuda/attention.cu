#include "kernels/cuda/attention.h"
#include "kernels/cuda/attention_bf16.cuh"
#include "kernels/cuda/attention_f32.cuh"
#include "kernels/cuda/attention_tile.cuh"
#include "kernels/cuda/early_launch.cuh"

namespace plumbline::cuda {
namespace {

// Where partial results lie: [row, head, split], sums and then (max, total).
struct Partials {
  float* sums;
  float2* states;
  int splits, heads, head_dim;

  __host__ __device__ explicit Partials(const AttentionCall& call)
      : sums(static_cast<float*>(call.workspace)),
        splits(call.splits),
        heads(call.dims.heads),
        head_dim(call.dims.head_dim) {
    states = reinterpret_cast<float2*>(sums + Index(call.step.max_rows, 0, 0) * head_dim);
  }
  __host__ __device__ int64_t Index(int row, int head, int split) const {
    return (int64_t{row} * heads + head) * splits + split;
  }
};

__device__ void StorePair(float* out, float2 value) { *reinterpret_cast<float2*>(out) = value; }
__device__ void StorePair(__nv_bfloat16* out, float2 value) {
  *reinterpret_cast<uint32_t*>(out) = PackBf16(value.x, value.y);
}
__device__ void StoreOne(float* out, float value) { *out = value; }
__device__ void StoreOne(__nv_bfloat16* out, float value) { *out = __float2bfloat16_rn(value); }

// A block's shared memory.
template <int kHeadDim>
struct SplitSums {
  static constexpr int kStride = kHeadDim + 4;
  float sums[kAttentionWarps][kColumns][kStride];
  float max[kAttentionWarps][kColumns], total[kAttentionWarps][kColumns];
  float merged[kColumns][kHeadDim];  // splits so far
  Softmaxed state[kColumns];

  // The split's maximum and total of a column, with the weight of each warp's share.
  __device__ Softmaxed Combine(int column, float (&weights)[kAttentionWarps]) const {
    Softmaxed split;
#pragma unroll
    for (int w = 0; w < kAttentionWarps; ++w) split.max = fmaxf(split.max, max[w][column]);
#pragma unroll
    for (int w = 0; w < kAttentionWarps; ++w) {
      weights[w] = Weight(max[w][column], split.max);
      split.total = fmaf(weights[w], total[w][column], split.total);
    }
    return split;
  }
  __device__ float2 CombinedPair(int column, int channel,
                                 const float (&weights)[kAttentionWarps]) const {
    float2 value = {0, 0};
#pragma unroll
    for (int w = 0; w < kAttentionWarps; ++w) {
      const float2 share = *reinterpret_cast<const float2*>(&sums[w][column][channel]);
      value.x = fmaf(weights[w], share.x, value.x);
      value.y = fmaf(weights[w], share.y, value.y);
    }
    return value;
  }
};

// One block: a tile of rows, call.block_heads kv heads in turn, and every gridDim.z-th split. Pages
// are dealt to four lanes by page number. Which warp takes a lane is no matter of the result: of
// two heads side by side a warp takes lanes that lie two apart, so that all have about as much to
// do.
template <typename Worker, int kHeadDim>
class Block {
  using Element = typename Worker::Element;
  using Shared = SplitSums<kHeadDim>;

 public:
  __device__ Block(const AttentionCall& call, const Tile& tile, Shared* shared)
      : call_(call),
        tile_(tile),
        partials_(call),
        shared_(shared),
        worker_(call, tile, reinterpret_cast<float*>(shared + 1)) {}

  __device__ void Run() {
    const int last_split = tile_.last() / kAttentionSplit;
    int split = FirstSplit();
    const bool works = split <= last_split;
    if (works) FindPages(split);
    AwaitEarlierKernels();
    if (!works) return;
    if constexpr (Worker::kPrefetch) {
      paired_ =
          call_.block_heads > 1 && split == last_split && tile_.rows * call_.group <= kPairColumns;
    }
    kv_head_ = blockIdx.x * call_.block_heads;
    const int end_head = kv_head_ + call_.block_heads;
    PagePlace place = First();
    if (place.exists()) worker_.Prefetch(place);
    worker_.LoadQuery(call_, tile_, kv_head_, paired_);
    for (;;) {
      Sum(place);
      const bool head_ends = split + gridDim.z > last_split;
      const int next_head = kv_head_ + (paired_ ? 2 : 1);
      const bool ends = head_ends && next_head >= end_head;
      const int merged_head = kv_head_, merged_split = split;
      if (!ends) {
        if (head_ends) kv_head_ = next_head;
        split = head_ends ? FirstSplit() : split + gridDim.z;
        if (split != merged_split) FindPages(split);
        place = First();
        if (place.exists()) worker_.Prefetch(place);
      }
      __syncthreads();
      Merge(merged_head, merged_split, head_ends);
      if (ends) return;
      if (head_ends) {
        worker_.LoadQuery(call_, tile_, kv_head_, paired_);
      } else {
        __syncthreads();
      }
    }
  }

 private:
  __device__ int FirstSplit() const {
    const int split = tile_.oldest(call_) / kAttentionSplit;
    return split + (blockIdx.z + gridDim.z - split % gridDim.z) % gridDim.z;
  }

  // The lane of the first or second of two heads side by side.
  __device__ int Lane(int pair) const { return (warp_ + 2 * pair) % kAttentionWarps; }

  // A split's first and last page, and the numbers of those of both lanes: the lower half of the
  // warp keeps one lane's, the upper half the other's.
  __device__ void FindPages(int split) {
    base_ = split * kSplitPages;
    oldest_ = max(base_, tile_.oldest(call_) / kPageTokens);
    newest_ = min(base_ + kSplitPages - 1, tile_.last() / kPageTokens);
    const int thread = threadIdx.x % 32;
    const int page = base_ + Lane(thread / kLanePages) + kAttentionWarps * (thread % kLanePages);
    table_ = page >= oldest_ && page <= newest_ ? tile_.pages[page] : 0;
  }

  __device__ int FirstPage(int pair) const {
    const int skipped = Lane(pair) - oldest_ % kAttentionWarps + kAttentionWarps;
    return oldest_ + skipped % kAttentionWarps;
  }
  __device__ PagePlace First() const { return At(FirstPage(0), 0); }
  // Past the last page of the first of two heads comes the first one of the second.
  __device__ PagePlace At(int page, int pair) const {
    if (page > newest_ && pair == 0 && paired_) {
      pair = 1;
      page = FirstPage(1);
    }
    PagePlace place;
    if (page > newest_) return place;
    place.page = page;
    const int index = (page - base_ - Lane(pair)) / kAttentionWarps;
    place.number = __shfl_sync(~0u, table_, kLanePages * pair + index);
    place.kv_head = kv_head_ + pair;
    place.pair = pair;
    return place;
  }

  // The warp's sums over a split, from the page on that is on its way.
  __device__ void Sum(PagePlace place) {
    const int heads = paired_ ? 2 : 1;
    for (int pair = 0; pair < heads; ++pair) {
      while (place.exists() && place.pair == pair) {
        const PagePlace next = At(place.page + kAttentionWarps, pair);
        worker_.Step(place, next);
        place = next;
      }
      const int lane = Lane(pair), slot = kPairColumns * pair;
      worker_.Finish(paired_ ? kPairColumns : kColumns, &shared_->max[lane][slot],
                     &shared_->total[lane][slot], shared_->sums[lane][slot], Shared::kStride);
    }
  }

  __device__ void Merge(int kv_head, int split, bool last) {
    if (gridDim.z == 1) {
      MergeSplit(kv_head, split == tile_.oldest(call_) / kAttentionSplit, last);
    } else {
      StoreSplit(kv_head, split);
    }
  }

  // Merges the split in shared memory into those before it; writes the output after the last.
  __device__ void MergeSplit(int kv_head, bool first, bool last) {
    for (int i = threadIdx.x; i < kColumns * kHeadDim / 2; i += kAttentionThreads) {
      const int column = i / (kHeadDim / 2), channel = i % (kHeadDim / 2) * 2;
      float shares[kAttentionWarps];
      const Softmaxed split = shared_->Combine(column, shares);
      const float2 later = shared_->CombinedPair(column, channel, shares);
      float2* merged = reinterpret_cast<float2*>(&shared_->merged[column][channel]);
      Softmaxed state = first ? Softmaxed() : shared_->state[column];
      float2 value = first ? make_float2(0, 0) : *merged;
      const float2 weights = state.Merge(split.max, split.total);
      value.x = MergeValue(value.x, later.x, weights);
      value.y = MergeValue(value.y, later.y, weights);
      if (last) {
        StoreOutput(kv_head, column, channel, value, state.total);
      } else {
        *merged = value;
      }
    }
    if (last) return;
    __syncthreads();
    if (threadIdx.x < kColumns) {
      float shares[kAttentionWarps];
      const Softmaxed split = shared_->Combine(threadIdx.x, shares);
      Softmaxed state = first ? Softmaxed() : shared_->state[threadIdx.x];
      state.Merge(split.max, split.total);
      shared_->state[threadIdx.x] = state;
    }
    __syncthreads();
  }

  // Keeps the split for MergeKernel. A row that has this split alone needs no merging.
  __device__ void StoreSplit(int kv_head, int split) {
    for (int i = threadIdx.x; i < kColumns * kHeadDim / 2; i += kAttentionThreads) {
      const int column_index = i / (kHeadDim / 2), channel = i % (kHeadDim / 2) * 2;
      const Column column(call_, tile_, column_index);
      const int first = column.first / kAttentionSplit, last = column.last / kAttentionSplit;
      if (!column.used || split < first || split > last) continue;
      float shares[kAttentionWarps];
      Softmaxed state = shared_->Combine(column_index, shares);
      const float2 value = shared_->CombinedPair(column_index, channel, shares);
      if (first == last) {
        StoreOutput(kv_head, column_index, channel, value, state.total);
        continue;
      }
      const int head = kv_head * call_.group + column.head_of_group;
      const int64_t index = partials_.Index(column.row, head, split);
      StorePair(partials_.sums + index * kHeadDim + channel, value);
      if (channel == 0) partials_.states[index] = make_float2(state.max, state.total);
    }
  }

  __device__ void StoreOutput(int kv_head, int slot_index, int channel, float2 value, float total) {
    const Slot slot(kv_head, paired_, slot_index);
    const Column column(call_, tile_, slot.column);
    if (!column.used) return;
    const int head = slot.kv_head * call_.group + column.head_of_group;
    Element* out = static_cast<Element*>(call_.out) + int64_t{column.row} * call_.dims.q_dim() +
                   head * kHeadDim + channel;
    StorePair(out, make_float2(Normalized(value.x, total), Normalized(value.y, total)));
  }

  const AttentionCall& call_;
  const Tile& tile_;
  const Partials partials_;
  Shared* const shared_;
  Worker worker_;
  static constexpr int kLanePages = kSplitPages / kAttentionWarps;
  static_assert(2 * kLanePages == 32, "a warp keeps the page numbers of two lanes");
  const int warp_ = threadIdx.x / 32;
  bool paired_ = false;
  int kv_head_ = 0;  // the first that is worked on
  int base_ = 0, oldest_ = 0, newest_ = 0, table_ = 0;
};

template <template <int, bool, bool> class Warp, int kHeadDim, bool kCapped>
__global__ void __launch_bounds__(kAttentionThreads,
                                  Warp<kHeadDim, kCapped, false>::kBlocksPerMultiprocessor)
    AttentionKernel(const __grid_constant__ AttentionCall call) {
  extern __shared__ __align__(16) unsigned char bytes[];
  AllowNextKernel();
  const Tile tile = FindTile(call, blockIdx.y);
  if (tile.rows == 0) {
    AwaitEarlierKernels();
    return;
  }
  auto* shared = reinterpret_cast<SplitSums<kHeadDim>*>(bytes);
  // Apart, so that rows without exact keys or values need no registers to tell.
  if (tile.exact_keys || tile.exact_values) {
    Block<Warp<kHeadDim, kCapped, true>, kHeadDim>(call, tile, shared).Run();
  } else {
    Block<Warp<kHeadDim, kCapped, false>, kHeadDim>(call, tile, shared).Run();
  }
}

// A block a row and query head, a thread a channel: the same steps as Block::MergeSplit.
template <typename T>
__global__ void MergeKernel(const __grid_constant__ AttentionCall call) {
  AllowNextKernel();
  const int head = blockIdx.x, row = blockIdx.y, channel = threadIdx.x;
  const int run_id = call.step.row_run[row];
  AwaitEarlierKernels();
  if (run_id < 0) return;
  const Run& run = call.step.runs[run_id];
  if (call.layer < run.start_layer) return;
  const int position = run.first_position + row - run.first_row;
  const int first = OldestSeen(position, call.sliding_window) / kAttentionSplit;
  const int last = position / kAttentionSplit;
  if (first == last) return;
  const Partials partials(call);
  Softmaxed state;
  float value = 0;
  for (int split = first; split <= last; ++split) {
    const int64_t index = partials.Index(row, head, split);
    const float2 later = partials.states[index];
    const float2 weights = state.Merge(later.x, later.y);
    value = MergeValue(value, partials.sums[index * partials.head_dim + channel], weights);
  }
  StoreOne(static_cast<T*>(call.out) + int64_t{row} * call.dims.q_dim() + head * partials.head_dim +
               channel,
           Normalized(value, state.total));
}

// kv heads that a block takes in turn: two in a step of generated tokens, where that leaves blocks
// enough for every multiprocessor several times over. They start and end once for both.
int BlockHeads(const AttentionCall& call, int blocks_per_row) {
  constexpr int64_t kEnough = 1024;
  if (blocks_per_row > 1) return 1;
  if (call.block_heads > 0)
    return call.dims.kv_heads % call.block_heads == 0 ? call.block_heads : 1;
  if (call.step.max_rows > call.step.max_runs) return 1;
  const int64_t halves = int64_t{call.step.max_rows} * call.dims.kv_heads / 2;
  return call.dims.kv_heads % 2 == 0 && halves >= kEnough ? 2 : 1;
}

template <template <int, bool, bool> class Warp, int kHeadDim, bool kCapped>
cudaError_t LaunchShape(AttentionCall call, cudaStream_t stream) {
  using Worker = Warp<kHeadDim, kCapped, false>;
  constexpr size_t kShared =
      sizeof(SplitSums<kHeadDim>) + sizeof(float) * Worker::kExtraSharedFloats;
  const auto kernel = AttentionKernel<Warp, kHeadDim, kCapped>;
  if constexpr (kShared > 48 * 1024) {
    const cudaError_t error =
        cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, kShared);
    if (error != cudaSuccess) return error;
  }
  const int blocks = BlocksPerRow(call.step.max_rows, call.max_context);
  call.block_heads = Worker::kPrefetch ? BlockHeads(call, blocks) : 1;
  const dim3 grid(call.dims.kv_heads / call.block_heads, call.step.max_rows, blocks);
  cudaError_t error;
  if constexpr (kHeadDim <= 128) {
    error = ShareEvenly(kernel);
    if (error != cudaSuccess) return error;
    error = LaunchEarly(kernel, grid, kAttentionThreads, kShared, stream, call);
  } else {
    // Needs more shared memory than it would find beside the cache writes.
    kernel<<<grid, kAttentionThreads, kShared, stream>>>(call);
    error = cudaPeekAtLastError();
  }
  if (error != cudaSuccess || blocks == 1) return error;
  const dim3 merge(call.dims.heads, call.step.max_rows);
  return LaunchEarly(MergeKernel<typename Worker::Element>, merge, kHeadDim, 0, stream, call);
}

template <template <int, bool, bool> class Warp, int kHeadDim>
cudaError_t LaunchHeadDim(const AttentionCall& call, cudaStream_t stream) {
  return call.cap > 0 ? LaunchShape<Warp, kHeadDim, true>(call, stream)
                      : LaunchShape<Warp, kHeadDim, false>(call, stream);
}

template <template <int, bool, bool> class Warp>
cudaError_t LaunchDtype(const AttentionCall& call, cudaStream_t stream) {
  switch (call.dims.head_dim) {
    case 64:
      return LaunchHeadDim<Warp, 64>(call, stream);
    case 80:
      return LaunchHeadDim<Warp, 80>(call, stream);
    case 96:
      return LaunchHeadDim<Warp, 96>(call, stream);
    case 128:
      return LaunchHeadDim<Warp, 128>(call, stream);
    case 256:
      return LaunchHeadDim<Warp, 256>(call, stream);
    default:
      return cudaErrorInvalidValue;
  }
}

}  // namespace

int64_t AttentionWorkspaceBytes(const ModelDims& dims, int max_rows, int max_context) {
  const int rows = max_rows < kManyRows ? max_rows : kManyRows;
  if (BlocksPerRow(rows, max_context) == 1) return 0;
  const int64_t partials =
      int64_t{rows} * dims.heads * ((max_context + kAttentionSplit - 1) / kAttentionSplit);
  return partials * (dims.head_dim + 2) * static_cast<int64_t>(sizeof(float));
}

cudaError_t LaunchAttention(const Attention& args, cudaStream_t stream) {
  const ModelDims& dims = args.dims;
  if (dims.kv_heads <= 0 || dims.heads % dims.kv_heads != 0 ||
      dims.heads / dims.kv_heads > kColumns || args.max_context <= 0) {
    return cudaErrorInvalidValue;
  }
  if (args.step.max_rows == 0) return cudaSuccess;
  const AttentionCall call(args);
  return args.dtype == Dtype::kBf16 ? LaunchDtype<Bf16Warp>(call, stream)
                                    : LaunchDtype<F32Warp>(call, stream);
}

}  // namespace plumbline::cuda
