// Operations on a step's rows: embedding, norms, activation, residual. Each row's result depends on
// that row alone; sums run in a fixed order. The device half of kernels/row_ops.h, with its
// roundings to the dtype.
#pragma once

#include "kernels/cuda/step.h"

namespace plumbline::cuda {

// hidden[row] = table[tokens[row]]; rows with token -1 become zero.
cudaError_t LaunchEmbed(Dtype dtype, const void* table, const int32_t* tokens, int rows, int width,
                        void* hidden, cudaStream_t stream);

// out[row] = norm(hidden[row]) * weight. With `added` non-null first hidden[row] += added[row]
// (rounded to the dtype), as the residual of the product before.
cudaError_t LaunchAddNorm(Dtype dtype, const void* added, void* hidden, const void* weight,
                          float eps, int rows, int width, void* out, cudaStream_t stream);

// hidden[row] += added[row]
cudaError_t LaunchAdd(Dtype dtype, const void* added, int rows, int width, void* hidden,
                      cudaStream_t stream);

// gate_up: [rows, 2 * inner], gate first. out: [rows, inner] = silu(gate) * up.
cudaError_t LaunchSiluMul(Dtype dtype, const void* gate_up, int rows, int inner, void* out,
                          cudaStream_t stream);

// x[row] += bias, rounded to the dtype (QKV bias of Qwen2).
cudaError_t LaunchAddBias(Dtype dtype, const void* bias, int rows, int width, void* x,
                          cudaStream_t stream);

// out[i] = hidden[row_of[i]]; row_of[i] -1 gives zeros.
cudaError_t LaunchGather(Dtype dtype, const void* hidden, const int32_t* row_of, int rows,
                         int width, void* out, cudaStream_t stream);

}  // namespace plumbline::cuda
