// What both dtypes' attention share: which rows a block serves, where their positions lie, and how
// partial sums merge. Included by attention.cu alone.
#pragma once

#include <climits>

#include "kernels/cuda/attention.h"

namespace plumbline::cuda {

constexpr int kAttentionWarps = 4;
constexpr int kAttentionThreads = 32 * kAttentionWarps;
constexpr int kColumns = 8;  // (row, query head) pairs that a block serves at once
static_assert(kAttentionTileRows == kColumns, "tiles of every group divide the longest one's");
constexpr int kSplitPages = kAttentionSplit / kPageTokens;
constexpr float kLog2E = 1.44269504f;

__device__ inline float Exp2(float x) {
  float y;
  asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
  return y;
}

// exp2(x - max), where nothing seen yet is -inf and has no weight.
__device__ inline float Weight(float x, float max) {
  return Exp2(x - (max == -INFINITY ? 0.0f : max));
}

__device__ inline int OldestSeen(int position, int window) {
  return window > 0 && position >= window ? position - window + 1 : 0;
}

// What a launch's blocks share beside its arguments. Kept in constant memory, as arguments are.
struct AttentionCall : Attention {
  int splits = 0;         // at most, of a row
  int group = 0;          // query heads that share a kv head
  int group_inverse = 0;  // i / group = i * group_inverse >> 16, for i < kColumns
  int tile_rows = 0;      // a power of two
  // Scores in units of log2: cap * tanh(product * factor), or product * factor with cap 0.
  float factor = 0, cap = 0;

  explicit AttentionCall(const Attention& args) : Attention(args) {
    splits = (max_context + kAttentionSplit - 1) / kAttentionSplit;
    group = dims.heads / dims.kv_heads;
    group_inverse = 65536 / group + 1;
    tile_rows = group == 1 ? kAttentionTileRows : group == 2 ? 4 : group <= 4 ? 2 : 1;
    factor = logit_cap > 0 ? scale / logit_cap : scale * kLog2E;
    cap = logit_cap > 0 ? logit_cap * kLog2E : 0;
  }
  template <bool kCapped>
  __device__ float Score(float product) const {
    return kCapped ? cap * tanhf(product * factor) : product * factor;
  }
};

// Consecutive rows of one run, with the query heads of one kv head.
struct Tile {
  int row = 0, rows = 0;    // rows == 0: this block has nothing to do
  int position = 0;         // of the first row
  bool exact_keys = false;  // those of this run's rows are not read from the cache
  bool exact_values = false;
  const int32_t* pages = nullptr;
  __device__ int last() const { return position + rows - 1; }
  __device__ int oldest(const AttentionCall& call) const {
    return OldestSeen(position, call.sliding_window);
  }
};

__device__ inline Tile FindTile(const AttentionCall& call, int row) {
  Tile tile;
  const int run_id = call.step.row_run[row];
  if (run_id < 0) return tile;
  const Run run = call.step.runs[run_id];
  const int index = row - run.first_row;
  if (call.layer < run.start_layer || index & (call.tile_rows - 1)) return tile;
  tile.row = row;
  tile.rows = min(call.tile_rows, run.rows - index);
  tile.position = run.first_position + index;
  tile.pages = call.step.pages + int64_t{run.sequence} * call.step.max_pages;
  if (!run.prompt) return tile;
  const int32_t* layer_rules =
      call.step.plan_rules + (int64_t{run.plan} * call.dims.layers + call.layer) * 2;
  const TensorRule& key_rule = call.step.rules[layer_rules[0]];
  const TensorRule& value_rule = call.step.rules[layer_rules[1]];
  tile.exact_keys = !key_rule.fp && key_rule.exact;
  tile.exact_values = !value_rule.fp && value_rule.exact;
  return tile;
}

// Keys or values of the block's sequence. Without kExact no row is exact.
template <typename T, int kHeadDim, bool kValues, bool kExact>
struct Source {
  const AttentionCall& call;
  const bool exact;

  __device__ Source(const AttentionCall& call, const Tile& tile)
      : call(call), exact(kExact && (kValues ? tile.exact_values : tile.exact_keys)) {}
  // The cached rows of a page.
  __device__ const T* Page(int page_number, int kv_head) const {
    const int head = (call.layer * 2 + kValues) * call.dims.kv_heads + kv_head;
    return static_cast<const T*>(call.pool.base) + page_number * call.pool.page_elements +
           int64_t{head} * (kPageTokens * kHeadDim);
  }
  // Any row; page_number is of its page.
  __device__ const T* At(int page_number, int kv_head, int position) const {
    if (exact) {
      const Run& run = call.step.runs[call.step.row_run[blockIdx.y]];
      const int index = position - run.first_position;
      if (index >= 0) {
        return static_cast<const T*>(kValues ? call.exact_values : call.exact_keys) +
               int64_t{run.first_row + min(index, run.rows - 1)} * call.dims.kv_dim() +
               kv_head * kHeadDim;
      }
    }
    return Page(page_number, kv_head) + position % kPageTokens * kHeadDim;
  }
};

// The row and query head, among those of its kv head, of each column; the positions that it sees.
struct Column {
  bool used;
  int row, head_of_group, first, last;
  __device__ Column(const AttentionCall& call, const Tile& tile, int column) {
    const int index = column * call.group_inverse >> 16;
    used = index < tile.rows;
    row = tile.row + index;
    head_of_group = column - index * call.group;
    last = used ? tile.position + index : -1;
    first = used ? OldestSeen(last, call.sliding_window) : 0;
  }
};

// Columns of a block that serves several kv heads. Where one head fills half of them at most, two
// are worked through side by side: head `pair` of the two has the columns from kPairColumns * pair
// on, and no warp waits for the others between them.
constexpr int kPairColumns = kColumns / 2;
struct Slot {
  int kv_head, column;
  __device__ Slot(int first_head, bool paired, int slot)
      : kv_head(first_head + (paired ? slot / kPairColumns : 0)),
        column(paired ? slot % kPairColumns : slot) {}
};

// A page of one kv head that a warp takes.
struct PagePlace {
  int page = -1;   // counted from the sequence's first; < 0: none
  int number = 0;  // in the pool
  int kv_head = 0;
  int pair = 0;  // which of two heads that are worked through side by side
  __device__ bool exists() const { return page >= 0; }
};

// Running state of one output value: sums relative to exp2(max).
struct Softmaxed {
  float max = -INFINITY, total = 0;
  // Merges (max, total) of a later split; returns the weights of the two.
  __device__ float2 Merge(float later_max, float later_total) {
    const float merged = fmaxf(max, later_max);
    const float2 weights = {Weight(max, merged), Weight(later_max, merged)};
    max = merged;
    total = fmaf(later_total, weights.y, total * weights.x);
    return weights;
  }
};

__device__ inline float MergeValue(float value, float later, float2 weights) {
  return fmaf(later, weights.y, value * weights.x);
}

// Adding +0 makes zeros equal, however many masked positions a row's neighbours brought along.
__device__ inline float Normalized(float value, float total) {
  return __fadd_rn(__fdiv_rn(value, total), 0.0f);
}

// Rows of a step above which one block each keeps the GPU busy.
constexpr int kManyRows = 512;

// Blocks that share a row: more than one only where one block would take long and rows are few, so
// that a long prompt needs no partial results. Bits do not depend on it.
inline int BlocksPerRow(int max_rows, int max_context) {
  if (max_rows > kManyRows) return 1;
  const int blocks = max_context / (4 * kAttentionSplit);
  return blocks <= 2 ? 1 : (blocks < 8 ? blocks : 8);
}

}  // namespace plumbline::cuda
