// Tokens of a step's rows, some of which the device itself chose in the step before.
#pragma once

#include "kernels/cuda/step.h"

namespace plumbline::cuda {

// A row's source: a token id, -1 for no token, or this for what sampling wrote to fed[slot].
constexpr int32_t FedSlot(int32_t slot) { return -2 - slot; }

// tokens[row] = source[row], or fed[slot]. A fed value outside [0, vocab) becomes 0: it belongs to
// a row whose logits were not finite, and that row's result is not used.
cudaError_t LaunchFeed(const int32_t* source, const int32_t* fed, int rows, int vocab,
                       int32_t* tokens, cudaStream_t stream);

}  // namespace plumbline::cuda
