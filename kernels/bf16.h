// A bfloat16 value by its bits, and its conversions.
#pragma once

#include <cstdint>
#include <cstring>

namespace plumbline {

struct Bf16 {
  uint16_t bits;
};

namespace kernels {

inline float ToFloat(float x) { return x; }
inline float ToFloat(Bf16 x) {
  const uint32_t bits = static_cast<uint32_t>(x.bits) << 16;
  float value;
  std::memcpy(&value, &bits, sizeof value);
  return value;
}
// Round to nearest even; a NaN stays a (quiet) NaN.
inline Bf16 ToBf16(float x) {
  uint32_t bits;
  std::memcpy(&bits, &x, sizeof bits);
  if (x != x) return Bf16{static_cast<uint16_t>((bits >> 16) | 0x40u)};
  return Bf16{static_cast<uint16_t>((bits + 0x7fffu + ((bits >> 16) & 1u)) >> 16)};
}

}  // namespace kernels
}  // namespace plumbline
