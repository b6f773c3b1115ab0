// Values of a stored tensor in an engine's compute dtype.
#pragma once

#include <cstdint>

#include "kernels/bf16.h"
#include "services/engine/bundle/safetensors.h"

namespace plumbline {

// Values [first, first + count) of the tensor: exact where the dtype holds the value, one rounding
// else.
void CopyWeights(const TensorView& view, int64_t first, int64_t count, float* out);
void CopyWeights(const TensorView& view, int64_t first, int64_t count, Bf16* out);

}  // namespace plumbline
