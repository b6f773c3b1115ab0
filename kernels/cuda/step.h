// What the kernels of one engine step share: rows and runs, the paged KV cache, formats as the
// device reads them. Plain structs of device pointers; nothing here owns memory.
//
// A *row* is one token of a step. Rows are laid out chunk by chunk; a chunk is C rows, always
// multiplied whole, so a row's bits do not depend on its neighbours. Rows without a token have
// row_run -1 and every kernel leaves their results undefined but finite-safe (no trap, no fault).
// A *run* is consecutive rows of one sequence: its whole prompt (or what of it is not reused), or
// one generated token. A run never spans two steps.
//
// Everything that changes from step to step is read from device memory (StepTables), so that a
// recorded CUDA graph serves every mix of plans and sequences.
#pragma once

#include <cuda_runtime.h>

#include <cstdint>

#include "kernels/quantize.h"

namespace plumbline::cuda {

enum class Dtype { kF32, kBf16 };
inline int DtypeBytes(Dtype dtype) { return dtype == Dtype::kF32 ? 4 : 2; }

struct ModelDims {
  int layers = 0;
  int heads = 0;  // query heads, a multiple of kv_heads; heads / kv_heads is 1..8
  int kv_heads = 0;
  int head_dim = 0;  // 64, 80, 96, 128 or 256
  int hidden = 0;
  int inner = 0;  // of the MLP
  int vocab = 0;
  float norm_eps = 0;
  __host__ __device__ int q_dim() const { return heads * head_dim; }
  __host__ __device__ int kv_dim() const { return kv_heads * head_dim; }
  __host__ __device__ int qkv_dim() const { return q_dim() + 2 * kv_dim(); }
};

// The format of one tensor (keys or values of one layer), bound to the model's shape.
// quant/kv_format.h says what the fields mean; kernels/quantize.h defines the arithmetic.
enum class RuleScope : int32_t { kStep, kPrompt, kCalibrated, kWindow };
struct TensorRule {
  int32_t fp = 1;  // 1: stored as it is, all else ignored
  QuantSpec spec;
  RuleScope scope = RuleScope::kStep;
  int32_t window = 0, window_flush = 0;  // tokens; flush 0 = sliding
  int32_t sink = 0;                      // the first rows of a sequence stay fp
  int32_t post_rope = 0;                 // keys: quantized after the rotation
  int32_t exact = 0;                     // the prompt's own attention reads unquantized rows
  int32_t hadamard = 0;
  int32_t whole_block = 0;  // statistics over all rows of a block (tensor, channel), not row by row
  int32_t lanes = 0, groups = 0, padded_group = 0;
  const int32_t* lane_channel = nullptr;  // device, [lanes]; null = lane i is channel i
  const int32_t* group_begin = nullptr;   // device, [groups + 1]
  const float* frozen_scale = nullptr;    // device, [groups]; scope calibrated only
  const float* frozen_zero = nullptr;
};

// The cache: pages of kPageTokens positions, each holding every layer's keys and values:
//   page base + ((layer * 2 + (0 keys | 1 values)) * kv_heads + head) * kPageTokens * head_dim
//             + (position % kPageTokens) * head_dim            elements of the compute dtype.
// Keys are stored rotated.
constexpr int kPageTokens = 16;
struct KvPool {
  void* base = nullptr;       // device
  int64_t page_elements = 0;  // layers * 2 * kv_dim * kPageTokens
};

struct Run {
  int32_t first_row = 0;
  int32_t rows = 0;            // 0: no run
  int32_t first_position = 0;  // of first_row; rows before it are in the cache already
  int32_t prompt = 0;          // 1: prompt rows (quantizers see them together)
  int32_t sequence = 0;        // row of the page tables
  int32_t plan = 0;            // row of plan_rules
  uint64_t jitter_seed = 0;    // 0 = none
  int32_t start_layer = 0;     // blocks below are reused: this run's rows take no part in them
  int32_t padding = 0;
};

// Runs of a step whose keys and values are measured (channel_stats.h).
struct MeasuredRuns {
  int32_t count = 0;
  int32_t first_slot = 0;  // where the first one's statistics go; the others follow
  // count places in StepTables::runs follow, each of a whole prompt.
};

// Device pointers that stay the same; their contents are uploaded before each step.
struct StepTables {
  int32_t max_rows = 0, max_runs = 0, max_pages = 0;  // sizes; max_pages of one sequence
  const int32_t* row_run = nullptr;                   // [max_rows], -1 = no token
  const int32_t* row_position = nullptr;              // [max_rows]
  const Run* runs = nullptr;            // [max_runs], those in use first, then rows == 0
  const int32_t* pages = nullptr;       // [sequences, max_pages] page numbers
  const int32_t* raw_pages = nullptr;   // [sequences, max_pages]; pages whose key part holds keys
                                        // before rotation, for windows; -1 where none
  const int32_t* plan_rules = nullptr;  // [plans, layers, 2] index into rules (keys, values)
  const TensorRule* rules = nullptr;
  const MeasuredRuns* measured = nullptr;  // its list behind it
  // Parameters frozen by the prompt (scope prompt): [sequences][layers][2][2][max_groups] (tensor;
  // scale, zero), or null when no running plan has that scope.
  float* frozen = nullptr;
  int32_t max_groups = 0;
};

// cos and sin of every position, rounded to the compute dtype: [positions, head_dim / 2] floats.
struct RopeTables {
  const float* cos = nullptr;
  const float* sin = nullptr;
};

}  // namespace plumbline::cuda
