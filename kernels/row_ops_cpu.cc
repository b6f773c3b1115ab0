#include <cmath>

#include "kernels/row_ops.h"
#include "kernels/vec.h"

namespace plumbline::kernels {
namespace {

template <typename T>
PLUMB_INLINE void RmsNorm(const T* x, const T* weight, int64_t n, float eps, T* out) {
  Vec sum = Vec{};
  for (int64_t i = 0; i < n; i += kLanes) {
    const Vec v = LoadUpTo(x + i, n - i);
    sum += v * v;
  }
  const float mean = SumLanes(sum) / static_cast<float>(n);
  const Vec inverse = Splat(1.0f / std::sqrt(mean + eps));
  for (int64_t i = 0; i < n; i += kLanes) {
    const Vec normed = Memory<T>::Rounded(LoadUpTo(x + i, n - i) * inverse);
    StoreUpTo(out + i, LoadUpTo(weight + i, n - i) * normed, n - i);
  }
}

template <typename T>
PLUMB_INLINE void Rotate(const T* x, int heads, int head_dim, const float* cos, const float* sin,
                         T* out) {
  const int half = head_dim / 2;
  for (int h = 0; h < heads; ++h, x += head_dim, out += head_dim) {
    for (int i = 0; i < half; i += kLanes) {
      const Vec a = LoadUpTo(x + i, half - i);
      const Vec b = LoadUpTo(x + half + i, half - i);
      const Vec c = LoadUpTo(cos + i, half - i);
      const Vec s = LoadUpTo(sin + i, half - i);
      StoreUpTo(out + i, Memory<T>::Rounded(a * c) + Memory<T>::Rounded(-b * s), half - i);
      StoreUpTo(out + half + i, Memory<T>::Rounded(b * c) + Memory<T>::Rounded(a * s), half - i);
    }
  }
}

template <typename T>
PLUMB_INLINE void SiluMul(const T* gate, const T* up, int64_t n, T* out) {
  for (int64_t i = 0; i < n; i += kLanes) {
    const Vec g = LoadUpTo(gate + i, n - i);
    const Vec silu = Memory<T>::Rounded(g / (Splat(1.0f) + Exp(-g)));
    StoreUpTo(out + i, silu * LoadUpTo(up + i, n - i), n - i);
  }
}

template <typename T>
PLUMB_INLINE void Add(const T* y, int64_t n, T* x) {
  for (int64_t i = 0; i < n; i += kLanes) {
    StoreUpTo(x + i, LoadUpTo(x + i, n - i) + LoadUpTo(y + i, n - i), n - i);
  }
}

// SplitMix64's finalizer.
PLUMB_INLINE uint64_t Mix(uint64_t z) {
  z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
  z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
  return z ^ (z >> 31);
}

// Adding one to the magnitude's bits is the next float away from zero.
template <typename Bits>
PLUMB_INLINE Bits Nudge(Bits bits, bool up, Bits magnitude_mask, Bits infinity) {
  const Bits magnitude = bits & magnitude_mask;
  if (magnitude == 0 || magnitude >= infinity) return bits;
  const bool grow = up && magnitude + 1 < infinity;
  return static_cast<Bits>(grow ? bits + 1 : bits - 1);
}

PLUMB_INLINE bool HashBit(uint64_t seed, int64_t i) {
  return (Mix(seed + 0x9e3779b97f4a7c15u * static_cast<uint64_t>(i + 1)) >> 63) != 0;
}

}  // namespace

PLUMB_KERNEL_CLONES
void RmsNormF32(const float* x, const float* weight, int64_t n, float eps, float* out) {
  RmsNorm(x, weight, n, eps, out);
}
PLUMB_KERNEL_CLONES
void RmsNormBf16(const Bf16* x, const Bf16* weight, int64_t n, float eps, Bf16* out) {
  RmsNorm(x, weight, n, eps, out);
}

PLUMB_KERNEL_CLONES
void RotateF32(const float* x, int heads, int head_dim, const float* cos, const float* sin,
               float* out) {
  Rotate(x, heads, head_dim, cos, sin, out);
}
PLUMB_KERNEL_CLONES
void RotateBf16(const Bf16* x, int heads, int head_dim, const float* cos, const float* sin,
                Bf16* out) {
  Rotate(x, heads, head_dim, cos, sin, out);
}

PLUMB_KERNEL_CLONES
void SiluMulF32(const float* gate, const float* up, int64_t n, float* out) {
  SiluMul(gate, up, n, out);
}
PLUMB_KERNEL_CLONES
void SiluMulBf16(const Bf16* gate, const Bf16* up, int64_t n, Bf16* out) {
  SiluMul(gate, up, n, out);
}

PLUMB_KERNEL_CLONES
void AddF32(const float* y, int64_t n, float* x) { Add(y, n, x); }
PLUMB_KERNEL_CLONES
void AddBf16(const Bf16* y, int64_t n, Bf16* x) { Add(y, n, x); }

void JitterF32(uint64_t seed, int64_t n, float* x) {
  for (int64_t i = 0; i < n; ++i) {
    uint32_t bits;
    std::memcpy(&bits, x + i, sizeof bits);
    bits = Nudge<uint32_t>(bits, HashBit(seed, i), 0x7fffffffu, 0x7f800000u);
    std::memcpy(x + i, &bits, sizeof bits);
  }
}

void JitterBf16(uint64_t seed, int64_t n, Bf16* x) {
  for (int64_t i = 0; i < n; ++i) {
    x[i].bits = Nudge<uint16_t>(x[i].bits, HashBit(seed, i), 0x7fffu, 0x7f80u);
  }
}

}  // namespace plumbline::kernels
