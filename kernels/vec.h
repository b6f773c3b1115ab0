// Sixteen-lane float vectors with one fixed order of operations on every instruction set: the
// compiler lowers them to whatever the target has, and no fused multiply-add is formed
// (-ffp-contract=off), so the same source gives the same bits on SSE2, AVX2 and AVX-512.
//
// Everything here is always inlined into the kernel's entry points, which PLUMB_KERNEL_CLONES
// compiles once per instruction set and selects at load time.
#pragma once

#include <cstdint>
#include <cstring>

#include "kernels/bf16.h"

// The resolvers that pick a clone run before a sanitizer's runtime is up.
// clang does not take these targets.
#if defined(__x86_64__) && !defined(__SANITIZE_ADDRESS__) && !defined(__SANITIZE_THREAD__) && \
    !defined(__clang__)
#define PLUMB_KERNEL_CLONES \
  __attribute__((target_clones("arch=x86-64-v4", "arch=x86-64-v3", "default")))
#else
#define PLUMB_KERNEL_CLONES
#endif
#define PLUMB_INLINE inline __attribute__((always_inline))

namespace plumbline {

namespace kernels {

constexpr int kLanes = 16;
typedef float Vec __attribute__((vector_size(64)));
typedef int32_t IntVec __attribute__((vector_size(64)));
typedef uint32_t UintVec __attribute__((vector_size(64)));
typedef uint16_t HalfVec __attribute__((vector_size(32)));

PLUMB_INLINE Vec Splat(float x) { return Vec{} + x; }

PLUMB_INLINE Vec Select(IntVec mask, Vec yes, Vec no) { return mask ? yes : no; }

PLUMB_INLINE Vec VecMax(Vec a, Vec b) { return Select(a > b, a, b); }

// Adds the lanes as a fixed tree: i with i^8, then i^4, i^2, i^1.
PLUMB_INLINE float SumLanes(Vec v) {
  v += __builtin_shufflevector(v, v, 8, 9, 10, 11, 12, 13, 14, 15, 0, 1, 2, 3, 4, 5, 6, 7);
  v += __builtin_shufflevector(v, v, 4, 5, 6, 7, 0, 1, 2, 3, 12, 13, 14, 15, 8, 9, 10, 11);
  v += __builtin_shufflevector(v, v, 2, 3, 0, 1, 6, 7, 4, 5, 10, 11, 8, 9, 14, 15, 12, 13);
  v += __builtin_shufflevector(v, v, 1, 0, 3, 2, 5, 4, 7, 6, 9, 8, 11, 10, 13, 12, 15, 14);
  return v[0];
}

PLUMB_INLINE Vec BitsToVec(UintVec bits) {
  Vec v;
  std::memcpy(&v, &bits, sizeof v);
  return v;
}
PLUMB_INLINE UintVec VecToBits(Vec v) {
  UintVec bits;
  std::memcpy(&bits, &v, sizeof bits);
  return bits;
}

// A NaN alone differs from itself.
PLUMB_INLINE IntVec IsNan(Vec v) { return v != v; }  // NOLINT(misc-redundant-expression)

// Round to nearest even; a NaN stays a (quiet) NaN.
PLUMB_INLINE UintVec RoundBitsToBf16(Vec v) {
  const UintVec bits = VecToBits(v);
  const UintVec rounded = (bits + 0x7fffu + ((bits >> 16) & 1u)) >> 16;
  return IsNan(v) ? ((bits >> 16) | 0x40u) : rounded;
}

// Load and Store widen and round between memory of type T and float lanes. The partial forms touch
// only `count` elements; absent lanes load as zero.
template <typename T>
struct Memory;

template <>
struct Memory<float> {
  static PLUMB_INLINE Vec Load(const float* p) {
    Vec v;
    std::memcpy(&v, p, sizeof v);
    return v;
  }
  static PLUMB_INLINE void Store(float* p, Vec v) { std::memcpy(p, &v, sizeof v); }
  // The value as this type can hold it, back in float.
  static PLUMB_INLINE Vec Rounded(Vec v) { return v; }
};

template <>
struct Memory<Bf16> {
  static PLUMB_INLINE Vec Load(const Bf16* p) {
    HalfVec half;
    std::memcpy(&half, p, sizeof half);
    return BitsToVec(__builtin_convertvector(half, UintVec) << 16);
  }
  static PLUMB_INLINE void Store(Bf16* p, Vec v) {
    const HalfVec half = __builtin_convertvector(RoundBitsToBf16(v), HalfVec);
    std::memcpy(p, &half, sizeof half);
  }
  static PLUMB_INLINE Vec Rounded(Vec v) { return BitsToVec(RoundBitsToBf16(v) << 16); }
};

template <typename T>
PLUMB_INLINE Vec LoadPartial(const T* p, int count) {
  T padded[kLanes] = {};
  for (int i = 0; i < count; ++i) padded[i] = p[i];
  return Memory<T>::Load(padded);
}
template <typename T>
PLUMB_INLINE void StorePartial(T* p, Vec v, int count) {
  T padded[kLanes];
  Memory<T>::Store(padded, v);
  for (int i = 0; i < count; ++i) p[i] = padded[i];
}
template <typename T>
PLUMB_INLINE Vec LoadUpTo(const T* p, int64_t left) {
  return left >= kLanes ? Memory<T>::Load(p) : LoadPartial(p, static_cast<int>(left));
}
template <typename T>
PLUMB_INLINE void StoreUpTo(T* p, Vec v, int64_t left) {
  if (left >= kLanes) {
    Memory<T>::Store(p, v);
  } else {
    StorePartial(p, v, static_cast<int>(left));
  }
}

// exp, at most 2 ulp off in [-87, 88]; underflows to 0 below, overflows to inf above, NaN stays
// NaN. Cody-Waite reduction by ln 2 in two parts, then a polynomial on [-ln2/2, ln2/2].
PLUMB_INLINE Vec Exp(Vec x) {
  const Vec clamped = Select(x < Splat(-87.33654f), Splat(-87.33654f),
                             Select(x > Splat(88.72283f), Splat(88.72283f), x));
  const Vec magic = Splat(12582912.0f);  // 1.5 * 2^23: adding it rounds to an integer
  const Vec shifted = clamped * Splat(1.44269504f) + magic;
  const Vec n = shifted - magic;
  const Vec r = (clamped - n * Splat(0.693359375f)) - n * Splat(-2.12194440e-4f);
  Vec p = Splat(1.9875691500e-4f);
  p = p * r + Splat(1.3981999507e-3f);
  p = p * r + Splat(8.3334519073e-3f);
  p = p * r + Splat(4.1665795894e-2f);
  p = p * r + Splat(1.6666665459e-1f);
  p = p * r + Splat(5.0000001201e-1f);
  p = p * (r * r) + r + Splat(1.0f);
  // Two factors of 2^(n/2), since 2^128 itself is not a float.
  const IntVec ni = __builtin_convertvector(n, IntVec);
  const IntVec half = ni >> 1;
  const Vec scale_a = BitsToVec(__builtin_convertvector(half + 127, UintVec) << 23);
  const Vec scale_b = BitsToVec(__builtin_convertvector(ni - half + 127, UintVec) << 23);
  Vec result = p * scale_a * scale_b;
  result = Select(x < Splat(-87.33654f), Splat(0.0f), result);
  result = Select(x > Splat(88.72283f), Splat(__builtin_inff()), result);
  return Select(IsNan(x), x, result);
}

}  // namespace kernels
}  // namespace plumbline
