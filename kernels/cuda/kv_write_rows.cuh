// Elements of rows and of the paged cache as the write kernels move them: 16 bytes a thread, jitter
// and rotation with the roundings of kernels/row_ops.h.
#pragma once

#include "kernels/cuda/kv_write.h"
#include "kernels/cuda/quantize_math.cuh"

namespace plumbline::cuda {

template <typename T>
struct alignas(16) Pack {
  static constexpr int kSize = 16 / sizeof(T);
  T v[kSize];
};

template <typename T>
__device__ inline Pack<T> LoadPack(const T* from) {
  return *reinterpret_cast<const Pack<T>*>(from);
}
template <typename T>
__device__ inline void StorePack(T* to, const Pack<T>& pack) {
  *reinterpret_cast<Pack<T>*>(to) = pack;
}

template <typename T>
__device__ inline void Unpack(const Pack<T>& pack, float* to) {
#pragma unroll
  for (int k = 0; k < Pack<T>::kSize; k += 4) {
    float4 four = {ToFloat(pack.v[k]), ToFloat(pack.v[k + 1]), ToFloat(pack.v[k + 2]),
                   ToFloat(pack.v[k + 3])};
    *reinterpret_cast<float4*>(to + k) = four;
  }
}

// The row holds values of T.
template <typename T>
__device__ inline Pack<T> PackOf(const float* from) {
  Pack<T> pack;
#pragma unroll
  for (int k = 0; k < Pack<T>::kSize; k += 4) {
    const float4 four = *reinterpret_cast<const float4*>(from + k);
    pack.v[k] = Exactly<T>(four.x);
    pack.v[k + 1] = Exactly<T>(four.y);
    pack.v[k + 2] = Exactly<T>(four.z);
    pack.v[k + 3] = Exactly<T>(four.w);
  }
  return pack;
}

// cos and sin of one position, [head_dim / 2].
struct Angles {
  const float* cos;
  const float* sin;
};
__device__ inline Angles AnglesOf(const RopeTables& rope, int head_dim, int position) {
  const int64_t at = int64_t{position} * (head_dim / 2);
  return {rope.cos + at, rope.sin + at};
}

// The pair (a, b) = (channel i, channel i + head_dim / 2) of a head, turned.
template <typename T>
__device__ inline float TurnedFirst(float a, float b, float c, float s) {
  return RoundTo<T>(RoundTo<T>(a * c) + RoundTo<T>(-b * s));
}
template <typename T>
__device__ inline float TurnedSecond(float a, float b, float c, float s) {
  return RoundTo<T>(RoundTo<T>(b * c) + RoundTo<T>(a * s));
}

// Channels [channel, channel + kSize) of the rotated row; a pack lies in one half of one head. The
// row holds values of T.
template <typename T>
__device__ inline Pack<T> TurnedPack(const float* row, int channel, int head_dim,
                                     const Angles& angles) {
  const int half = head_dim / 2;
  const int in_head = channel % head_dim;
  const bool first = in_head < half;
  const int i = first ? in_head : in_head - half;
  const float* head = row + (channel - in_head);
  Pack<T> pack;
#pragma unroll
  for (int k = 0; k < Pack<T>::kSize; ++k) {
    const float a = head[i + k];
    const float b = head[i + k + half];
    const float c = angles.cos[i + k];
    const float s = angles.sin[i + k];
    pack.v[k] = Exactly<T>(first ? TurnedFirst<T>(a, b, c, s) : TurnedSecond<T>(a, b, c, s));
  }
  return pack;
}

template <typename T>
__device__ inline void TurnRow(float* row, int channels, int head_dim, const Angles& angles) {
  const int half = head_dim / 2;
  for (int p = threadIdx.x; p < channels / 2; p += blockDim.x) {
    float* x = row + p / half * head_dim + p % half;
    const float a = x[0];
    const float b = x[half];
    const float c = angles.cos[p % half];
    const float s = angles.sin[p % half];
    x[0] = TurnedFirst<T>(a, b, c, s);
    x[half] = TurnedSecond<T>(a, b, c, s);
  }
}

// One seed a tensor and token, so that noise does not depend on how tokens arrive.
__device__ inline uint64_t JitterKey(uint64_t seed, int layer, int position, bool value) {
  uint64_t key = seed * 0x9e3779b97f4a7c15u;
  const uint64_t parts[] = {static_cast<uint64_t>(layer), static_cast<uint64_t>(position),
                            static_cast<uint64_t>(value)};
#pragma unroll
  for (uint64_t part : parts) {
    key = (key ^ part) * 0xff51afd7ed558ccdu;
    key ^= key >> 32;
  }
  return key;
}

// SplitMix64's finalizer; its top bit is a coin for element i.
__device__ inline bool HashBit(uint64_t seed, int64_t i) {
  uint64_t z = seed + 0x9e3779b97f4a7c15u * static_cast<uint64_t>(i + 1);
  z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
  z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
  return ((z ^ (z >> 31)) >> 63) != 0;
}

// One unit in the last place up or down; zeros, infinities and NaNs stay.
template <typename Bits>
__device__ inline Bits Nudge(Bits bits, bool up, Bits magnitude_mask, Bits infinity) {
  const Bits magnitude = bits & magnitude_mask;
  if (magnitude == 0 || magnitude >= infinity) return bits;
  const bool grow = up && magnitude + 1 < infinity;
  return static_cast<Bits>(grow ? bits + 1 : bits - 1);
}
__device__ inline float Nudged(float x, bool up) {
  return FloatFromBits(Nudge<uint32_t>(FloatBits(x), up, 0x7fffffffu, 0x7f800000u));
}
__device__ inline uint16_t Nudged(uint16_t x, bool up) {
  return Nudge<uint16_t>(x, up, 0x7fffu, 0x7f80u);
}

template <typename T>
__device__ inline void JitterPack(uint64_t key, int channel, Pack<T>* pack) {
#pragma unroll
  for (int k = 0; k < Pack<T>::kSize; ++k) {
    pack->v[k] = Nudged(pack->v[k], HashBit(key, channel + k));
  }
}

}  // namespace plumbline::cuda
