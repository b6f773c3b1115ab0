// Conversions between float and the narrow formats of the cache: bfloat16, IEEE half, fp8 e4m3
// (finite only, as in torch.float8_e4m3fn) and fp8 e5m2. All round to nearest, ties to even, by
// integer arithmetic, so that host and device agree bit for bit whatever the instruction set.
#pragma once

#include <cstdint>
#include <cstring>

#ifdef __CUDACC__
#define PLUMB_HOST_DEVICE __host__ __device__
#else
#define PLUMB_HOST_DEVICE
#endif

namespace plumbline {

PLUMB_HOST_DEVICE inline uint32_t FloatBits(float value) {
  uint32_t bits;
  memcpy(&bits, &value, sizeof(bits));
  return bits;
}

PLUMB_HOST_DEVICE inline float FloatFromBits(uint32_t bits) {
  float value;
  memcpy(&value, &bits, sizeof(value));
  return value;
}

PLUMB_HOST_DEVICE inline float QuietNan() { return FloatFromBits(0x7fc00000u); }
PLUMB_HOST_DEVICE inline bool IsNanBits(uint32_t bits) {
  return (bits & 0x7fffffffu) > 0x7f800000u;
}
PLUMB_HOST_DEVICE inline bool IsFiniteBits(uint32_t bits) {
  return (bits & 0x7f800000u) != 0x7f800000u;
}

// A NaN becomes 0x7fc0.
PLUMB_HOST_DEVICE inline uint16_t Bf16FromFloat(float value) {
  const uint32_t bits = FloatBits(value);
  const uint32_t rounded = (bits + 0x7fffu + ((bits >> 16) & 1u)) >> 16;
  return static_cast<uint16_t>(IsNanBits(bits) ? 0x7fc0u : rounded);
}
PLUMB_HOST_DEVICE inline float FloatFromBf16(uint16_t value) {
  return FloatFromBits(static_cast<uint32_t>(value) << 16);
}
PLUMB_HOST_DEVICE inline float RoundToBf16(float value) {
  return FloatFromBf16(Bf16FromFloat(value));
}

// The nearest float whose significand has `kept_bits` bits after the leading one and whose exponent
// is at least `min_exponent` (smaller magnitudes get that exponent's spacing). No overflow rule:
// the result may exceed the narrow format's range. Finite input.
PLUMB_HOST_DEVICE inline float RoundSignificand(float value, int kept_bits, int min_exponent) {
  const uint32_t bits = FloatBits(value);
  const uint32_t sign = bits & 0x80000000u;
  const uint32_t magnitude = bits & 0x7fffffffu;
  const int exponent = static_cast<int>(magnitude >> 23) - 127;
  if (exponent < min_exponent) {
    // Adding 1.5 * 2^(23 + spacing exponent) leaves a sum whose unit in the last place is the
    // spacing.
    const uint32_t magic_exponent = static_cast<uint32_t>(min_exponent - kept_bits + 23 + 127);
    const float magic = FloatFromBits((magic_exponent << 23) | 0x00400000u);
    const float sum = FloatFromBits(magnitude) + magic;
    const float rounded = sum - magic;
    return FloatFromBits(FloatBits(rounded) | sign);
  }
  const int drop = 23 - kept_bits;
  const uint32_t half = (1u << (drop - 1)) - 1u + ((magnitude >> drop) & 1u);
  return FloatFromBits((((magnitude + half) >> drop) << drop) | sign);
}

// Rounds to a value that IEEE half can hold; beyond its range the result is an infinity.
PLUMB_HOST_DEVICE inline float RoundToHalf(float value) {
  if (!IsFiniteBits(FloatBits(value))) return value;
  const float rounded = RoundSignificand(value, 10, -14);
  if (rounded > 65504.0f) return FloatFromBits(0x7f800000u);
  if (rounded < -65504.0f) return FloatFromBits(0xff800000u);
  return rounded;
}

inline constexpr float kE4m3Max = 448.0f;
inline constexpr float kE5m2Max = 57344.0f;

// The code of a float that the format holds exactly (finite, |value| <= max).
PLUMB_HOST_DEVICE inline uint8_t Fp8CodeOfExact(float value, int mantissa_bits, int min_exponent) {
  const uint32_t bits = FloatBits(value);
  const uint32_t sign = (bits >> 24) & 0x80u;
  const uint32_t magnitude = bits & 0x7fffffffu;
  const int exponent = static_cast<int>(magnitude >> 23) - 127;
  if (exponent < min_exponent) {
    const float units =
        FloatFromBits(magnitude) *
        FloatFromBits(static_cast<uint32_t>(mantissa_bits - min_exponent + 127) << 23);
    return static_cast<uint8_t>(sign | static_cast<uint32_t>(units));
  }
  const uint32_t field = (static_cast<uint32_t>(exponent - min_exponent + 1) << mantissa_bits) |
                         ((magnitude & 0x7fffffu) >> (23 - mantissa_bits));
  return static_cast<uint8_t>(sign | field);
}

// torch_cast false: finite values saturate at +-448, and an infinity becomes NaN (0x7f).
// torch_cast true: values that round beyond 448 and infinities become NaN with their sign.
PLUMB_HOST_DEVICE inline uint8_t E4m3FromFloat(float value, bool torch_cast) {
  const uint32_t bits = FloatBits(value);
  const uint8_t nan_code = static_cast<uint8_t>(0x7fu | (torch_cast ? (bits >> 24) & 0x80u : 0u));
  if (!IsFiniteBits(bits)) return nan_code;
  float rounded = RoundSignificand(value, 3, -6);
  if (rounded > kE4m3Max || rounded < -kE4m3Max) {
    if (torch_cast) return nan_code;
    rounded = rounded > 0 ? kE4m3Max : -kE4m3Max;
  }
  return Fp8CodeOfExact(rounded, 3, -6);
}

// torch_cast false: finite values saturate at +-57344, and an infinity becomes NaN (0x7f).
// torch_cast true: values that round beyond 57344 become infinity (0x7c | sign).
PLUMB_HOST_DEVICE inline uint8_t E5m2FromFloat(float value, bool torch_cast) {
  const uint32_t bits = FloatBits(value);
  const uint8_t sign = static_cast<uint8_t>((bits >> 24) & 0x80u);
  if (!IsFiniteBits(bits)) {
    if (!torch_cast) return 0x7f;
    return static_cast<uint8_t>(sign | (IsNanBits(bits) ? 0x7fu : 0x7cu));
  }
  float rounded = RoundSignificand(value, 2, -14);
  if (rounded > kE5m2Max || rounded < -kE5m2Max) {
    if (torch_cast) return static_cast<uint8_t>(sign | 0x7cu);
    rounded = rounded > 0 ? kE5m2Max : -kE5m2Max;
  }
  return Fp8CodeOfExact(rounded, 2, -14);
}

PLUMB_HOST_DEVICE inline float FloatFromFp8(uint8_t code, int mantissa_bits, int min_exponent) {
  const uint32_t sign = static_cast<uint32_t>(code & 0x80u) << 24;
  const uint32_t exponent_field = (code & 0x7fu) >> mantissa_bits;
  const uint32_t mantissa = code & ((1u << mantissa_bits) - 1u);
  if (exponent_field == 0) {
    const float unit =
        FloatFromBits(static_cast<uint32_t>(min_exponent - mantissa_bits + 127) << 23);
    return FloatFromBits(FloatBits(static_cast<float>(mantissa) * unit) | sign);
  }
  const uint32_t exponent =
      static_cast<uint32_t>(static_cast<int>(exponent_field) - 1 + min_exponent + 127);
  return FloatFromBits(sign | (exponent << 23) | (mantissa << (23 - mantissa_bits)));
}

PLUMB_HOST_DEVICE inline float FloatFromE4m3(uint8_t code) {
  if ((code & 0x7fu) == 0x7fu) return QuietNan();
  return FloatFromFp8(code, 3, -6);
}
PLUMB_HOST_DEVICE inline float FloatFromE5m2(uint8_t code) {
  if ((code & 0x7fu) > 0x7cu) return QuietNan();
  if ((code & 0x7fu) == 0x7cu) {
    return FloatFromBits((static_cast<uint32_t>(code & 0x80u) << 24) | 0x7f800000u);
  }
  return FloatFromFp8(code, 2, -14);
}

}  // namespace plumbline
