// What both dtypes' attention share: which rows a block serves, where their positions lie, and how
// partial sums merge. Included by attention.cu alone.
#pragma once

#include <climits>

#include "kernels/cuda/attention.h"

namespace plumbline::cuda {

constexpr int kAttentionWarps = 4;
constexpr int kAttentionThreads = 32 * kAttentionWarps;
constexpr int kColumns = 8;  // (row, query head) pairs that a block serves at once
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

// Consecutive rows of one run, with the query heads of one kv head.
struct Tile {
  int row = 0, rows = 0;  // rows == 0: this block has nothing to do
  int position = 0;       // of the first row
  int oldest = 0;         // position that any of the rows sees
  int layer_rules = -1;   // of a prompt: index into plan_rules of this layer's keys
  int exact_begin = 0;    // first position of the run
  int64_t exact_row = 0;  // row that position 0 would have in the exact tensors
  const int32_t* pages = nullptr;
  __device__ int last() const { return position + rows - 1; }
};

__device__ inline Tile FindTile(const Attention& args, int row) {
  Tile tile;
  const int run_id = args.step.row_run[row];
  if (run_id < 0) return tile;
  const Run& run = args.step.runs[run_id];
  if (args.layer < run.start_layer) return tile;
  const int first_row = run.first_row;
  const int run_rows = run.rows;
  const int most = kColumns / (args.dims.heads / args.dims.kv_heads);
  const int index = row - first_row;
  if (index % most != 0) return tile;
  tile.row = row;
  tile.rows = min(most, run_rows - index);
  tile.exact_begin = run.first_position;
  tile.position = tile.exact_begin + index;
  tile.exact_row = first_row - tile.exact_begin;
  tile.oldest = OldestSeen(tile.position, args.sliding_window);
  tile.pages = args.step.pages + int64_t{run.sequence} * args.step.max_pages;
  if (run.prompt) tile.layer_rules = (run.plan * args.dims.layers + args.layer) * 2;
  return tile;
}

// Keys or values of one kv head of one sequence.
template <typename T, int kHeadDim, bool kValues>
struct Source {
  const Attention& args;
  const T* pool;
  int exact_from;  // positions from here on are read from the exact rows
  int exact_row;   // row that position 0 would have there
  int kv_head;

  __device__ Source(const Attention& args, const Tile& tile, int kv_head)
      : args(args), exact_from(INT_MAX), exact_row(tile.exact_row), kv_head(kv_head) {
    const int64_t head = (int64_t{args.layer} * 2 + kValues) * args.dims.kv_heads + kv_head;
    pool = static_cast<const T*>(args.pool.base) + head * kPageTokens * kHeadDim;
    if (tile.layer_rules < 0) return;
    const TensorRule& rule = args.step.rules[args.step.plan_rules[tile.layer_rules + kValues]];
    if (!rule.fp && rule.exact) exact_from = tile.exact_begin;
  }
  // The cached rows of a page, if all are read from there.
  __device__ const T* Page(int page_number) const {
    return pool + page_number * args.pool.page_elements;
  }
  __device__ bool IsCached(int page) const { return (page + 1) * kPageTokens <= exact_from; }
  // Any row; page_number is of its page.
  __device__ const T* At(int page_number, int position) const {
    if (position < exact_from) return Page(page_number) + position % kPageTokens * kHeadDim;
    return static_cast<const T*>(kValues ? args.exact_values : args.exact_keys) +
           int64_t{exact_row + position} * args.dims.kv_dim() + kv_head * kHeadDim;
  }
};

// The row and query head of each column; the positions that it sees.
struct Column {
  bool used;
  int row, head, first, last;
  __device__ Column(const Attention& args, const Tile& tile, int kv_head, int column) {
    const int group = args.dims.heads / args.dims.kv_heads;
    const int index = column / group;
    used = index < tile.rows;
    row = tile.row + index;
    head = kv_head * group + column % group;
    last = used ? tile.position + index : -1;
    first = used ? OldestSeen(last, args.sliding_window) : 0;
  }
};

// The score in units of log2, capped if asked.
struct ScoreScale {
  float scale, cap;
  __device__ explicit ScoreScale(const Attention& args)
      : scale(args.logit_cap > 0 ? args.scale / args.logit_cap : args.scale * kLog2E),
        cap(args.logit_cap * kLog2E) {}
  __device__ float operator()(float product) const {
    return cap > 0 ? cap * tanhf(product * scale) : product * scale;
  }
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

inline int SplitsOf(int max_context) {
  return (max_context + kAttentionSplit - 1) / kAttentionSplit;
}
// Blocks that share a row. Rows of one step are hundreds in general, so a row gets more than one
// block only where one block would take long.
inline int BlocksPerRow(int max_context) {
  if (max_context <= 8 * kAttentionSplit) return 1;
  const int blocks = SplitsOf(max_context) / 4;
  return blocks < 8 ? blocks : 8;
}

}  // namespace plumbline::cuda
