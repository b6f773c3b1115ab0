// Causal attention of one query row over one sequence's cache, for one kv head and the query heads
// that share it. Rows and kv heads are independent, so a caller may spread them over threads.
//
// Order of operations, the same for prompt and generated rows: positions are split at absolute
// multiples of kAttentionSplit from position 0; each part sums in a fixed order; parts merge
// ascending. A row's result therefore depends on its own position and cache alone.
//
// Roundings follow transformers' eager attention: scores rounded to T, scaled and rounded again,
// softmax in float, weights rounded to T, sums in float, output rounded to T. With T = float none
// is visible.
#pragma once

#include <cstdint>

#include "kernels/bf16.h"

namespace plumbline::kernels {

constexpr int64_t kAttentionSplit = 256;  // positions

struct AttentionShape {
  int heads = 0;  // query heads; a multiple of kv_heads
  int kv_heads = 0;
  int head_dim = 0;  // channels of a head, at most kMaxHeadDim
  float scale = 0;   // of the scores, usually 1/sqrt(head_dim)
};
constexpr int kMaxHeadDim = 256;

// Floats of scratch that one call needs.
inline int64_t AttentionScratchFloats(int64_t kv_len) { return (kv_len + 15) & ~int64_t{15}; }

// query:  [heads, head_dim], rotated
// keys:   [kv_len, kv_heads, head_dim], rotated; the row itself is the last
// values: [kv_len, kv_heads, head_dim]
// out:    [heads, head_dim]; heads of `kv_head` are written
void AttendF32(const AttentionShape& shape, int kv_head, const float* query, const float* keys,
               const float* values, int64_t kv_len, float* scratch, float* out);
void AttendBf16(const AttentionShape& shape, int kv_head, const Bf16* query, const Bf16* keys,
                const Bf16* values, int64_t kv_len, float* scratch, Bf16* out);

}  // namespace plumbline::kernels
