// Causal attention of a step's rows over the paged cache: generated tokens and prompts alike, a row
// and kv head at a time with the query heads that share it. The device half of kernels/attention.h.
//
// Positions are split at absolute multiples of kAttentionSplit from position 0. Within a split the
// pages are dealt to four warps by page number, each warp sums its pages ascending (a running
// softmax), the four merge in order, and splits merge ascending: a row's bits depend on its
// position and cache alone, not on its neighbours, nor on whether it is a prompt's row.
//
// Scores, softmax and sums are float; in bf16 the weights are carried as a sum of two bf16 numbers
// (16 bits); the output is rounded once to the dtype. Queries are rotated as the CPU rotates them,
// bit for bit.
#pragma once

#include "kernels/cuda/step.h"

namespace plumbline::cuda {

// A split is what one block works through alone. It is longer than the CPU's 256: answers of a few
// hundred tokens then need no partial results.
constexpr int kAttentionSplit = 1024;  // positions
// Rows of a run that a block may take, counted from the run's first. A value of one of them that is
// not a number also spoils those before it in the block (it is masked by a weight of zero), but
// none beyond.
constexpr int kAttentionTileRows = 8;

struct Attention {
  Dtype dtype = Dtype::kBf16;
  ModelDims dims;
  int layer = 0;
  float scale = 0;         // of the scores, usually 1 / sqrt(head_dim)
  int sliding_window = 0;  // a row sees its newest N positions, itself included; 0 = all
  float logit_cap = 0;     // scores = cap * tanh(scores / cap); 0 = none
  StepTables step;
  KvPool pool;
  RopeTables rope;
  const void* qkv = nullptr;         // [max_rows, qkv_dim]; queries before rotation: rotated here
  const void* exact_keys = nullptr;  // [max_rows, kv_dim], see kv_write.h
  const void* exact_values = nullptr;
  void* out = nullptr;        // [max_rows, q_dim]; rows that take no part are left alone
  void* workspace = nullptr;  // AttentionWorkspaceBytes; may be null if that is 0
  int max_context = 0;        // positions that any row may attend to
  int block_heads = 0;        // kv heads that a block takes in turn; 0 = as suits. Moves no bit
};

// Partial results of any launch with at most max_rows rows; 0 unless contexts are so long that
// several blocks share a row.
int64_t AttentionWorkspaceBytes(const ModelDims& dims, int max_rows, int max_context);
// cudaErrorInvalidValue for a head_dim or group size that is not served.
cudaError_t LaunchAttention(const Attention& args, cudaStream_t stream);

}  // namespace plumbline::cuda
