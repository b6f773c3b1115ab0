// The device half of kernels/channel_stats.h: statistics of the keys and values of a step's
// prompts. Equal to the CPU's bit for bit on equal rows.
#pragma once

#include "kernels/channel_stats.h"
#include "kernels/cuda/step.h"

namespace plumbline::cuda {

struct MeasureKv {
  Dtype dtype = Dtype::kBf16;
  ModelDims dims;  // head_dim at most 256
  int layer = 0;
  StepTables step;            // runs and measured
  const void* qkv = nullptr;  // [rows, qkv_dim] of dtype, before the rotation
  // [slots, layers, 2]: keys, values; each as ChannelStatsAt lays them out.
  char* out = nullptr;
};

inline int64_t MeasuredLayerBytes(const ModelDims& dims) {
  return 2 * kernels::ChannelStatsBytes(dims.kv_heads, dims.head_dim);
}

// One launch: a block a head of keys or values and run. No float atomics; counts are integers.
// Recordable: which runs are measured is read on the device.
cudaError_t LaunchMeasureKv(const MeasureKv& args, cudaStream_t stream);

}  // namespace plumbline::cuda
