// Writes a step's keys and values into the cache: jitter, quantization by each sequence's own plan,
// rotation of the keys. The device half of services/engine/cpu/cpu_sequence.h and of
// services/quant/tensor_quantizer.h; values equal theirs bit for bit on equal inputs.
#pragma once

#include "kernels/cuda/step.h"

namespace plumbline::cuda {

struct KvWrite {
  Dtype dtype = Dtype::kBf16;
  ModelDims dims;
  int layer = 0;
  StepTables step;
  KvPool pool;
  RopeTables rope;
  void* qkv = nullptr;  // [max_rows, qkv_dim] of dtype: q, k, v before rotation and bias added.
                        // Jitter changes k and v in place; q is left alone.
  // Keys (rotated) and values of prompt rows under `exact`, for this layer's attention.
  void* exact_keys = nullptr;    // [max_rows, kv_dim]
  void* exact_values = nullptr;  // [max_rows, kv_dim]
};

// Two launches: every row, a block a row and tensor, quantized where it stands alone (fp, token,
// group, fp8, frozen); then runs whose statistics cross rows and rows that leave a window, a block
// a run and tensor. Recordable.
cudaError_t LaunchKvWrite(const KvWrite& args, cudaStream_t stream);

// The largest kv_dim: a row of a set, its ranges and its parameters lie in a block's shared memory.
int MostKvDim();

// For tests and for captures: the device's functions on plain arrays, as kernels/quantize.h has
// them. rows: device, [tokens, channels] of dtype, quantized and dequantized in place.
// codes: device, [tokens, lanes] or null; scale, zero: device, as ParameterCount says, or null.
cudaError_t LaunchQuantizeRows(Dtype dtype, int channels, int head_dim, const TensorRule& rule,
                               int64_t tokens, void* rows, uint8_t* codes, float* scale,
                               float* zero, cudaStream_t stream);

}  // namespace plumbline::cuda
