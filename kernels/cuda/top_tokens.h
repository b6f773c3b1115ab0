// The most probable tokens of rows of logits, with their log probabilities under the softmax at
// temperature 1; services/engine/sampling has the definition. Tokens equal the host's. The sum of
// exponentials is in double, in a fixed order that is not the host's: log probabilities differ from
// the host's by at most one rounding to float.
#pragma once

#include "kernels/cuda/step.h"

namespace plumbline::cuda {

constexpr int kMaxTop = 64;
constexpr int kMaxTopRows = 512;  // of one launch

struct ProbableToken {
  int32_t token = 0;
  float log_probability = 0;
};

// Which rows of a chunk are listed.
struct TopRows {
  int32_t top = 0;  // tokens listed of each row, at most kMaxTop; no more than the vocabulary has
  int32_t count = 0;
  uint16_t row[kMaxTopRows] = {};
};

// logits: [chunk rows, vocab] of dtype. lists: device, [count, kMaxTop], most probable first, ties
// by the lower id; what is beyond `top` is left alone. Lists of rows that are not finite mean
// nothing.
cudaError_t LaunchTopTokens(Dtype dtype, const void* logits, int vocab, const TopRows& rows,
                            ProbableToken* lists, cudaStream_t stream);

}  // namespace plumbline::cuda
