// Words of two bf16 numbers in registers: loads, tensor core products, transposition.
#pragma once

#include <cuda_bf16.h>

#include <cstdint>

namespace plumbline::cuda {

// Bytes that are read once: they pass the L1 by. Zeros where not valid. Volatile and not .nc, so
// that no load moves above a wait for the kernel that writes the bytes (early_launch.cuh).
__device__ inline void LoadWords(const void* from, bool valid, uint32_t (&to)[4]) {
  to[0] = to[1] = to[2] = to[3] = 0;
  if (!valid) return;
  asm volatile("ld.global.L1::no_allocate.v4.u32 {%0, %1, %2, %3}, [%4];"
               : "=r"(to[0]), "=r"(to[1]), "=r"(to[2]), "=r"(to[3])
               : "l"(from));
}
__device__ inline void LoadWords(const void* from, bool valid, uint32_t (&to)[2]) {
  to[0] = to[1] = 0;
  if (!valid) return;
  asm volatile("ld.global.L1::no_allocate.v2.u32 {%0, %1}, [%2];"
               : "=r"(to[0]), "=r"(to[1])
               : "l"(from));
}
__device__ inline void LoadWords(const void* from, bool valid, uint32_t (&to)[1]) {
  to[0] = 0;
  if (valid) asm volatile("ld.global.L1::no_allocate.u32 %0, [%1];" : "=r"(to[0]) : "l"(from));
}

__device__ inline void MultiplyAdd(float (&c)[4], uint32_t a0, uint32_t a1, uint32_t a2,
                                   uint32_t a3, uint32_t b0, uint32_t b1) {
  asm("mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 "
      "{%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, {%0, %1, %2, %3};"
      : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
      : "r"(a0), "r"(a1), "r"(a2), "r"(a3), "r"(b0), "r"(b1));
}

// Of the 8x8 matrix whose row g, columns 2t and 2t + 1 lane (g, t) holds.
__device__ inline uint32_t Transposed(uint32_t x) {
  uint32_t y;
  asm("movmatrix.sync.aligned.m8n8.trans.b16 %0, %1;" : "=r"(y) : "r"(x));
  return y;
}

__device__ inline uint32_t PackBf16(float low, float high) {
  const __nv_bfloat162 pair = __floats2bfloat162_rn(low, high);
  return *reinterpret_cast<const uint32_t*>(&pair);
}
__device__ inline float LowBf16(uint32_t pair) { return __uint_as_float(pair << 16); }
__device__ inline float HighBf16(uint32_t pair) { return __uint_as_float(pair & 0xffff0000u); }

__device__ inline float RoundBf16(float x) { return __bfloat162float(__float2bfloat16_rn(x)); }

}  // namespace plumbline::cuda
