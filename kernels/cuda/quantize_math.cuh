// The arithmetic of kernels/quantize.h for one value or one group, on the device: the operations of
// quantize_cpu.cc in their order. Files that include this are compiled with -fmad=false; division
// and denormals are IEEE's by nvcc's default.
//
// The device makes one NaN (0x7fffffff) of every NaN; hosts keep the operand's sign and bits. Where
// that can be seen (codes of fp8, values, parameters) the host's choice is made by hand.
#pragma once

#include "kernels/float_formats.h"
#include "kernels/quantize.h"

namespace plumbline::cuda {

constexpr float kScaleFloor = 1e-8f;
constexpr float kTensorUnchangedBelow = 1e-10f;
// Adding and subtracting 1.5 * 2^23 rounds |v| < 2^22 to an integer, half to even.
constexpr float kRoundMagic = 12582912.0f;
constexpr uint32_t kInvalidNan = 0xffc00000u;  // what a host makes of 0 * inf

__device__ inline bool UsesZero(const QuantSpec& spec) {
  return spec.code == QuantCode::kInt && spec.symmetry != QuantSymmetry::kSym;
}

__device__ inline bool RoundsEveryOperation(const QuantSpec& spec) {
  return spec.native && spec.element == QuantElement::kBf16;
}

template <bool kBf16Rounding>
__device__ inline float R(float value) {
  if constexpr (kBf16Rounding) return RoundToBf16(value);
  return value;
}

__device__ inline float RoundAs(const QuantSpec& spec, float value) {
  return RoundsEveryOperation(spec) ? RoundToBf16(value) : value;
}

__device__ inline bool IsNan(float value) { return IsNanBits(FloatBits(value)); }

// The result of an operation on a and b with the NaN that a host gives: the first operand's, quiet,
// then the second's, else the one of invalid operations.
__device__ inline float WithHostNan(float result, float a, float b) {
  if (!IsNan(result)) return result;
  if (IsNan(a)) return FloatFromBits(FloatBits(a) | 0x00400000u);
  if (IsNan(b)) return FloatFromBits(FloatBits(b) | 0x00400000u);
  return FloatFromBits(kInvalidNan);
}
__device__ inline float Divide(float a, float b) { return WithHostNan(a / b, a, b); }

__device__ inline float Stored(QuantScaleType type, float value) {
  if (type == QuantScaleType::kF16) return RoundToHalf(value);
  if (type == QuantScaleType::kBf16) return RoundToBf16(value);
  return value;
}

__device__ inline float StoredScale(QuantScaleType type, float scale) {
  const float stored = Stored(type, scale);
  if (stored == 0.0f && scale > 0.0f) {
    return type == QuantScaleType::kF16 ? FloatFromBits(0x33800000u)  // 2^-24
                                        : FloatFromBits(0x00010000u);
  }
  return stored;
}

__device__ inline float Clamp(float value, float low, float high) {
  value = value < low ? low : value;  // keeps NaN
  return value > high ? high : value;
}

__device__ inline float RoundHalfEven(float value) {
  if (IsNan(value)) return value;
  return (value + kRoundMagic) - kRoundMagic;
}

struct Levels {
  float low;
  float high;
};

__device__ inline Levels LevelsOf(const QuantSpec& spec) {
  if (spec.symmetry == QuantSymmetry::kSym) {
    const float half = static_cast<float>(1 << (spec.bits - 1));
    return {-half, half - 1.0f};
  }
  return {0.0f, static_cast<float>((1 << spec.bits) - 1)};
}

__device__ inline float MaxCode(const QuantSpec& spec) {
  if (spec.code == QuantCode::kFp8E4m3) return kE4m3Max;
  if (spec.code == QuantCode::kFp8E5m2) return kE5m2Max;
  return LevelsOf(spec).high;
}

// Elements. T: float, or uint16_t for the bits of a bf16.
__device__ inline float ToFloat(float x) { return x; }
__device__ inline float ToFloat(uint16_t x) { return FloatFromBf16(x); }
template <typename T>
__device__ inline T FromFloat(float x);
template <>
__device__ inline float FromFloat<float>(float x) {
  return x;
}
template <>
__device__ inline uint16_t FromFloat<uint16_t>(float x) {
  return Bf16FromFloat(x);
}
template <typename T>
__device__ inline float RoundTo(float x) {
  return ToFloat(FromFloat<T>(x));
}

// Of a float that T holds: keeps all its bits, also those of a NaN.
template <typename T>
__device__ inline T Exactly(float x) {
  if constexpr (sizeof(T) == 4) return x;
  return static_cast<T>(FloatBits(x) >> 16);
}

// Statistics are kept as integers that order as the floats do, with NaN at the ends; merging them
// is exact in any order. Without zeros `high` is a magnitude's bits and `low` is unused.
struct RangeKeys {
  int32_t low;
  int32_t high;
};

__device__ inline int32_t OrderKey(float value) {
  const int32_t bits = static_cast<int32_t>(FloatBits(value));
  return bits ^ ((bits >> 31) & 0x7fffffff);
}
__device__ inline float FromOrderKey(int32_t key) {
  return FloatFromBits(static_cast<uint32_t>(key ^ ((key >> 31) & 0x7fffffff)));
}

__device__ inline RangeKeys EmptyRange(bool min_max) {
  if (!min_max) return {0, 0};
  return {0x7f800000, static_cast<int32_t>(0x807fffffu)};  // +inf, -inf
}

__device__ inline void Widen(bool min_max, float value, RangeKeys* range) {
  if (!min_max) {
    range->high = max(range->high, static_cast<int32_t>(FloatBits(value) & 0x7fffffffu));
    return;
  }
  const int32_t key = OrderKey(value);
  range->low = min(range->low, key);
  range->high = max(range->high, key);
}

__device__ inline RangeKeys Merged(RangeKeys a, RangeKeys b) {
  return {min(a.low, b.low), max(a.high, b.high)};
}

struct Parameters {
  float scale;
  float zero;
};

__device__ inline Parameters SymParameters(const QuantSpec& spec, float magnitude) {
  if (spec.tensor_rule && magnitude < kTensorUnchangedBelow) return {0.0f, 0.0f};
  const float floor = RoundAs(spec, kScaleFloor);
  if (!spec.tensor_rule && magnitude < floor) magnitude = floor;
  const float scale = RoundAs(spec, Divide(magnitude, MaxCode(spec)));
  return {StoredScale(spec.scale_type, scale), 0.0f};
}

__device__ inline Parameters RangeParameters(const QuantSpec& spec, float low, float high) {
  if (IsNan(low) || IsNan(high)) low = high = QuietNan();
  const float floor = RoundAs(spec, kScaleFloor);
  const float levels = MaxCode(spec);
  const float width = RoundAs(spec, WithHostNan(high - low, high, low));
  const float raw = RoundAs(spec, Divide(width, levels));
  const float scale = StoredScale(spec.scale_type, raw < floor ? floor : raw);
  if (spec.symmetry == QuantSymmetry::kAffine) return {scale, Stored(spec.scale_type, low)};
  const float negative = FloatFromBits(FloatBits(low) ^ 0x80000000u);
  const float zero = RoundAs(spec, Divide(negative, scale));
  return {scale, RoundHalfEven(Clamp(zero, 0.0f, levels))};
}

__device__ inline Parameters ParametersOf(const QuantSpec& spec, RangeKeys range) {
  if (spec.code != QuantCode::kInt && !spec.fp8_scaled) return {1.0f, 0.0f};
  if (!UsesZero(spec)) return SymParameters(spec, FloatFromBits(range.high));
  return RangeParameters(spec, FromOrderKey(range.low), FromOrderKey(range.high));
}

struct Quantized {
  float value;
  uint8_t code;
};

template <QuantSymmetry kSymmetry, bool kRound>
__device__ inline Quantized RoundTripInt(Levels levels, float x, float s, float z) {
  constexpr bool kZero = kSymmetry != QuantSymmetry::kSym;
  if (!kZero && s == 0.0f) return {x, 0};
  float t;
  if constexpr (kSymmetry == QuantSymmetry::kSym) t = R<kRound>(x / s);
  if constexpr (kSymmetry == QuantSymmetry::kAsym) t = R<kRound>(R<kRound>(x / s) + z);
  if constexpr (kSymmetry == QuantSymmetry::kAffine) t = R<kRound>(R<kRound>(x - z) / s);
  if (!IsFiniteBits(FloatBits(x)) || IsNan(t)) return {QuietNan(), 0};
  const float q = RoundHalfEven(Clamp(t, levels.low, levels.high));
  float back;
  if constexpr (kSymmetry == QuantSymmetry::kSym) back = R<kRound>(q * s);
  if constexpr (kSymmetry == QuantSymmetry::kAsym) back = R<kRound>(R<kRound>(q - z) * s);
  if constexpr (kSymmetry == QuantSymmetry::kAffine) back = R<kRound>(R<kRound>(q * s) + z);
  // Here a NaN can only come from 0 * inf.
  if (IsNan(back)) back = kRound ? QuietNan() : FloatFromBits(kInvalidNan);
  return {back, static_cast<uint8_t>(FloatBits(q + kRoundMagic))};
}

// A call, not inlined: it is long, and a kernel's instructions must be fetched too.
template <QuantCode kCode, bool kRound>
__device__ __noinline__ Quantized RoundTripFp8(bool torch_cast, float x, float s) {
  const float t = R<kRound>(Divide(x, s));
  uint8_t code;
  float decoded;
  if constexpr (kCode == QuantCode::kFp8E4m3) {
    code = E4m3FromFloat(t, torch_cast);
    decoded = FloatFromE4m3(code);
  } else {
    code = E5m2FromFloat(t, torch_cast);
    decoded = FloatFromE5m2(code);
  }
  return {R<kRound>(WithHostNan(decoded * s, decoded, s)), code};
}

// Calls run(f) with the round trip f(value, parameters) that the spec asks for, so that what
// differs between formats is decided once and not for every value.
template <bool kRound, typename Run>
__device__ inline void WithRoundTrip(const QuantSpec& spec, Run run) {
  const bool torch_cast = spec.fp8_torch_cast;
  if (spec.code == QuantCode::kFp8E4m3) {
    return run([=](float x, Parameters p) {
      return RoundTripFp8<QuantCode::kFp8E4m3, kRound>(torch_cast, x, p.scale);
    });
  }
  if (spec.code == QuantCode::kFp8E5m2) {
    return run([=](float x, Parameters p) {
      return RoundTripFp8<QuantCode::kFp8E5m2, kRound>(torch_cast, x, p.scale);
    });
  }
  const Levels levels = LevelsOf(spec);
  switch (spec.symmetry) {
    case QuantSymmetry::kSym:
      return run([=](float x, Parameters p) {
        return RoundTripInt<QuantSymmetry::kSym, kRound>(levels, x, p.scale, p.zero);
      });
    case QuantSymmetry::kAsym:
      return run([=](float x, Parameters p) {
        return RoundTripInt<QuantSymmetry::kAsym, kRound>(levels, x, p.scale, p.zero);
      });
    case QuantSymmetry::kAffine:
      return run([=](float x, Parameters p) {
        return RoundTripInt<QuantSymmetry::kAffine, kRound>(levels, x, p.scale, p.zero);
      });
  }
}

}  // namespace plumbline::cuda
