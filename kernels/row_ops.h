// Operations on one token's row: norm, rotary embedding, activation, residual. Each row's result
// depends on that row alone; sums run in a fixed order. Roundings to T follow transformers' Llama
// and Qwen2.
#pragma once

#include <cstdint>

#include "kernels/bf16.h"

namespace plumbline::kernels {

// out[i] = weight[i] * T(x[i] / sqrt(mean(x^2) + eps)); statistics in float. out may be x.
void RmsNormF32(const float* x, const float* weight, int64_t n, float eps, float* out);
void RmsNormBf16(const Bf16* x, const Bf16* weight, int64_t n, float eps, Bf16* out);

// Rotates `heads` heads of [heads, head_dim] by the angles of one position: channel i pairs with
// i + head_dim/2. cos, sin: [head_dim/2], already rounded to T's precision. out may be x.
void RotateF32(const float* x, int heads, int head_dim, const float* cos, const float* sin,
               float* out);
void RotateBf16(const Bf16* x, int heads, int head_dim, const float* cos, const float* sin,
                Bf16* out);

// out[i] = T(silu(gate[i])) * up[i]
void SiluMulF32(const float* gate, const float* up, int64_t n, float* out);
void SiluMulBf16(const Bf16* gate, const Bf16* up, int64_t n, Bf16* out);

// x[i] += y[i]
void AddF32(const float* y, int64_t n, float* x);
void AddBf16(const Bf16* y, int64_t n, Bf16* x);

// Moves every element by one unit in the last place, up or down by a hash of (seed, index); zeros,
// infinities and NaNs stay. The noise of a jitter replica.
void JitterF32(uint64_t seed, int64_t n, float* x);
void JitterBf16(uint64_t seed, int64_t n, Bf16* x);

}  // namespace plumbline::kernels
