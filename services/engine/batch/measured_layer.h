// Statistics of keys and values on their way from a kernel's memory to a result, and over several
// prompts.
#pragma once

#include <cstdint>
#include <vector>

#include "kernels/channel_stats.h"
#include "services/engine/engine.h"

namespace plumbline {

// Of `n` rows of all key or value heads, one every `stride` elements, on the host. T: float or
// Bf16.
template <typename T>
MeasuredTensor MeasureTensor(const T* rows, int64_t n, int64_t stride, const ModelShape& shape);

// Copies what a kernel has written.
MeasuredTensor TensorOf(const kernels::ChannelStats& stats, const ModelShape& shape);

// Adds the rows of `more`, which follow those of `sum`; a sum without tokens becomes `more`. Both
// are of one layer. The result depends on the order in which parts are added.
void AddMeasured(const MeasuredLayer& more, MeasuredLayer* sum);

// Largest magnitude of each channel.
std::vector<float> Absmax(const MeasuredTensor& tensor);

}  // namespace plumbline
