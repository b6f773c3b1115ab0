#include <algorithm>
#include <cmath>
#include <limits>

#include "kernels/float_formats.h"
#include "kernels/quantize.h"

namespace plumbline {
namespace {

constexpr float kScaleFloor = 1e-8f;
constexpr float kTensorUnchangedBelow = 1e-10f;
// Adding and subtracting 1.5 * 2^23 rounds |v| < 2^22 to an integer, half to even, in any vector
// unit.
constexpr float kRoundMagic = 12582912.0f;

template <bool kBf16Rounding>
inline float R(float value) {
  if constexpr (kBf16Rounding) return RoundToBf16(value);
  return value;
}

bool RoundsEveryOperation(const QuantSpec& spec) {
  return spec.native && spec.element == QuantElement::kBf16;
}

float RoundAs(const QuantSpec& spec, float value) {
  return RoundsEveryOperation(spec) ? RoundToBf16(value) : value;
}

float Stored(QuantScaleType type, float value) {
  switch (type) {
    case QuantScaleType::kF16:
      return RoundToHalf(value);
    case QuantScaleType::kBf16:
      return RoundToBf16(value);
    case QuantScaleType::kF32:
      break;
  }
  return value;
}

float StoredScale(QuantScaleType type, float scale) {
  const float stored = Stored(type, scale);
  if (stored == 0.0f && scale > 0.0f) {
    return type == QuantScaleType::kF16 ? FloatFromBits(0x33800000u)  // 2^-24
                                        : FloatFromBits(0x00010000u);
  }
  return stored;
}

inline float Clamp(float value, float low, float high) {
  value = value < low ? low : value;  // keeps NaN
  return value > high ? high : value;
}

inline float RoundHalfEven(float value) { return (value + kRoundMagic) - kRoundMagic; }

struct Levels {
  float low;
  float high;
};

Levels LevelsOf(const QuantSpec& spec) {
  if (spec.symmetry == QuantSymmetry::kSym) {
    const float half = static_cast<float>(1 << (spec.bits - 1));
    return {-half, half - 1.0f};
  }
  return {0.0f, static_cast<float>((1 << spec.bits) - 1)};
}

float MaxCode(const QuantSpec& spec) {
  if (spec.code == QuantCode::kFp8E4m3) return kE4m3Max;
  if (spec.code == QuantCode::kFp8E5m2) return kE5m2Max;
  return LevelsOf(spec).high;
}

// Order-preserving integers: as signed integers they compare as the floats do, with NaN at the
// ends.
inline int32_t OrderKey(float value) {
  const int32_t bits = static_cast<int32_t>(FloatBits(value));
  return bits ^ ((bits >> 31) & 0x7fffffff);
}
inline float FromOrderKey(int32_t key) {
  return FloatFromBits(static_cast<uint32_t>(key ^ ((key >> 31) & 0x7fffffff)));
}

// Statistics as keys. `lo_key > hi_key` never happens once a value was seen.
inline float AbsMaxOf(const float* x, int64_t n, float seen) {
  int32_t best = static_cast<int32_t>(FloatBits(seen) & 0x7fffffffu);
  for (int64_t i = 0; i < n; ++i) {
    best = std::max(best, static_cast<int32_t>(FloatBits(x[i]) & 0x7fffffffu));
  }
  return FloatFromBits(static_cast<uint32_t>(best));  // a NaN has the largest bits
}

inline void MinMaxOf(const float* x, int64_t n, float* lo, float* hi) {
  int32_t low = OrderKey(*lo);
  int32_t high = OrderKey(*hi);
  for (int64_t i = 0; i < n; ++i) {
    const int32_t key = OrderKey(x[i]);
    low = std::min(low, key);
    high = std::max(high, key);
  }
  *lo = FromOrderKey(low);
  *hi = FromOrderKey(high);
  if (std::isnan(*lo) || std::isnan(*hi)) *lo = *hi = QuietNan();
}

bool PerLaneGroups(const QuantLayout& layout) {
  return layout.groups == layout.lanes && layout.padded_group == 0;
}

// One token's lanes against one statistic a lane.
void AccumulatePerLane(bool min_max, const float* x, int32_t n, float* lo, float* hi) {
  if (!min_max) {
    for (int32_t i = 0; i < n; ++i) {
      const int32_t seen = static_cast<int32_t>(FloatBits(hi[i]) & 0x7fffffffu);
      const int32_t now = static_cast<int32_t>(FloatBits(x[i]) & 0x7fffffffu);
      hi[i] = FloatFromBits(static_cast<uint32_t>(std::max(seen, now)));
    }
    return;
  }
  for (int32_t i = 0; i < n; ++i) MinMaxOf(x + i, 1, lo + i, hi + i);
}

int64_t TokensPerBlock(const QuantLayout& layout, int64_t tokens) {
  return layout.tokens_per_block == 0 ? std::max<int64_t>(tokens, 1) : layout.tokens_per_block;
}

}  // namespace

void GatherLanes(const QuantLayout& layout, QuantElement element, const void* rows,
                 int64_t row_stride, int64_t tokens, float* lanes) {
  for (int64_t t = 0; t < tokens; ++t) {
    float* out = lanes + t * layout.lanes;
    if (element == QuantElement::kF32) {
      const float* row = static_cast<const float*>(rows) + t * row_stride;
      if (layout.lane_channel == nullptr) {
        std::copy_n(row, layout.lanes, out);
      } else {
        for (int32_t i = 0; i < layout.lanes; ++i) out[i] = row[layout.lane_channel[i]];
      }
      continue;
    }
    const uint16_t* row = static_cast<const uint16_t*>(rows) + t * row_stride;
    for (int32_t i = 0; i < layout.lanes; ++i) {
      out[i] = FloatFromBf16(row[layout.lane_channel == nullptr ? i : layout.lane_channel[i]]);
    }
  }
}

void ScatterLanes(const QuantLayout& layout, QuantElement element, const float* lanes,
                  int64_t tokens, void* rows, int64_t row_stride) {
  for (int64_t t = 0; t < tokens; ++t) {
    const float* in = lanes + t * layout.lanes;
    if (element == QuantElement::kF32) {
      float* row = static_cast<float*>(rows) + t * row_stride;
      if (layout.lane_channel == nullptr) {
        std::copy_n(in, layout.lanes, row);
      } else {
        for (int32_t i = 0; i < layout.lanes; ++i) row[layout.lane_channel[i]] = in[i];
      }
      continue;
    }
    uint16_t* row = static_cast<uint16_t*>(rows) + t * row_stride;
    for (int32_t i = 0; i < layout.lanes; ++i) {
      row[layout.lane_channel == nullptr ? i : layout.lane_channel[i]] = Bf16FromFloat(in[i]);
    }
  }
}

namespace {

template <bool kRound>
void RotateHead(int32_t head_dim, float factor, float* x) {
  for (int32_t h = 1; h < head_dim; h *= 2) {
    for (int32_t base = 0; base < head_dim; base += 2 * h) {
      for (int32_t i = base; i < base + h; ++i) {
        const float a = x[i];
        const float b = x[i + h];
        x[i] = R<kRound>(a + b);
        x[i + h] = R<kRound>(a - b);
      }
    }
  }
  for (int32_t i = 0; i < head_dim; ++i) x[i] = R<kRound>(x[i] * factor);
}

}  // namespace

void RotateLanes(const QuantSpec& spec, int32_t head_dim, int64_t heads_times_tokens,
                 float* lanes) {
  const float factor = static_cast<float>(1.0 / std::sqrt(static_cast<double>(head_dim)));
  for (int64_t head = 0; head < heads_times_tokens; ++head) {
    float* x = lanes + head * head_dim;
    if (RoundsEveryOperation(spec)) {
      RotateHead<true>(head_dim, factor, x);
    } else {
      RotateHead<false>(head_dim, factor, x);
    }
  }
}

void ResetStatistics(int64_t count, float* lo, float* hi) {
  // Infinities lose against any value. Sym reads hi as a magnitude, so it starts from 0 there: see
  // AccumulateStatistics, which treats -infinity as "nothing seen".
  std::fill_n(lo, count, std::numeric_limits<float>::infinity());
  std::fill_n(hi, count, -std::numeric_limits<float>::infinity());
}

void AccumulateStatistics(const QuantSpec& spec, const QuantLayout& layout, const float* lanes,
                          int64_t tokens, float* lo, float* hi) {
  const bool min_max = HasZero(spec);
  const int64_t per_block = TokensPerBlock(layout, tokens);
  const int64_t count = ParameterCount(layout, tokens);
  const float nothing = -std::numeric_limits<float>::infinity();
  if (!min_max) {
    for (int64_t p = 0; p < count; ++p) hi[p] = hi[p] == nothing ? 0.0f : hi[p];
  }
  for (int64_t t = 0; t < tokens; ++t) {
    const float* row = lanes + t * layout.lanes;
    const int64_t p = t / per_block * layout.groups;
    if (PerLaneGroups(layout)) {
      AccumulatePerLane(min_max, row, layout.lanes, lo + p, hi + p);
      continue;
    }
    for (int32_t g = 0; g < layout.groups; ++g) {
      const int32_t begin = layout.group_begin[g];
      const int32_t n = layout.group_begin[g + 1] - begin;
      if (!min_max) {
        hi[p + g] = AbsMaxOf(row + begin, n, hi[p + g]);
        continue;
      }
      MinMaxOf(row + begin, n, lo + p + g, hi + p + g);
      const float pad = 0.0f;
      if (n < layout.padded_group) MinMaxOf(&pad, 1, lo + p + g, hi + p + g);
    }
  }
}

void ComputeParameters(const QuantSpec& spec, int64_t count, const float* lo, const float* hi,
                       float* scale, float* zero) {
  if (spec.code != QuantCode::kInt && !spec.fp8_scaled) {
    std::fill_n(scale, count, 1.0f);
    return;
  }
  const float floor = RoundAs(spec, kScaleFloor);
  const float levels = MaxCode(spec);
  const bool sym_rule = !HasZero(spec);
  for (int64_t p = 0; p < count; ++p) {
    if (sym_rule) {
      if (spec.tensor_rule && hi[p] < kTensorUnchangedBelow) {
        scale[p] = 0.0f;
        continue;
      }
      const float magnitude = !spec.tensor_rule && hi[p] < floor ? floor : hi[p];
      scale[p] = StoredScale(spec.scale_type, RoundAs(spec, magnitude / levels));
      continue;
    }
    const float raw = RoundAs(spec, RoundAs(spec, hi[p] - lo[p]) / levels);
    scale[p] = StoredScale(spec.scale_type, raw < floor ? floor : raw);
    if (spec.symmetry == QuantSymmetry::kAffine) {
      zero[p] = Stored(spec.scale_type, lo[p]);
      continue;
    }
    zero[p] = RoundHalfEven(Clamp(RoundAs(spec, -lo[p] / scale[p]), 0.0f, levels));
  }
}

namespace {

// The value to be rounded to a code, before clamping.
template <QuantSymmetry kSymmetry, bool kRound>
inline float ScaledValue(float x, float s, float z) {
  if constexpr (kSymmetry == QuantSymmetry::kSym) return R<kRound>(x / s);
  if constexpr (kSymmetry == QuantSymmetry::kAsym) return R<kRound>(R<kRound>(x / s) + z);
  return R<kRound>(R<kRound>(x - z) / s);
}

template <QuantSymmetry kSymmetry, bool kRound>
inline float ValueOfCode(float q, float s, float z) {
  if constexpr (kSymmetry == QuantSymmetry::kSym) return R<kRound>(q * s);
  if constexpr (kSymmetry == QuantSymmetry::kAsym) return R<kRound>(R<kRound>(q - z) * s);
  return R<kRound>(R<kRound>(q * s) + z);
}

// One run of lanes. kPerLane: scale and zero hold one entry a lane, else one for the run. The loop
// body has no branch, so that it becomes vector code.
template <QuantSymmetry kSymmetry, bool kRound, bool kPerLane, bool kCodes>
void RoundTripRun(Levels levels, const float* __restrict scale, const float* __restrict zero,
                  int32_t n, float* __restrict x, uint8_t* __restrict codes) {
  constexpr bool kZero = kSymmetry != QuantSymmetry::kSym;
  const float run_scale = kPerLane ? 1.0f : scale[0];
  const float run_zero = kZero && !kPerLane ? zero[0] : 0.0f;
  for (int32_t i = 0; i < n; ++i) {
    const float value = x[i];
    const float s = kPerLane ? scale[i] : run_scale;
    const float z = kZero && kPerLane ? zero[i] : run_zero;
    const float t = ScaledValue<kSymmetry, kRound>(value, s, z);
    const float q = RoundHalfEven(Clamp(t, levels.low, levels.high));
    // Selections by masks of integer bits: see the header for what each case means.
    const uint32_t bad =
        (IsFiniteBits(FloatBits(value)) ? 0u : ~0u) | (IsNanBits(FloatBits(t)) ? ~0u : 0u);
    const uint32_t keep = !kZero && s == 0.0f ? ~0u : 0u;
    const uint32_t back = FloatBits(ValueOfCode<kSymmetry, kRound>(q, s, z));
    const uint32_t stored = (back & ~bad) | (0x7fc00000u & bad);
    x[i] = FloatFromBits((stored & ~keep) | (FloatBits(value) & keep));
    if constexpr (kCodes) {
      // q + 1.5 * 2^23 holds the integer q in its low bits; it needs no conversion that NaN upsets.
      codes[i] = static_cast<uint8_t>(FloatBits(q + kRoundMagic) & ~(bad | keep));
    }
  }
}

template <QuantSymmetry kSymmetry, bool kRound, bool kPerLane>
void RoundTripInt(Levels levels, const float* scale, const float* zero, int32_t n, float* x,
                  uint8_t* codes) {
  if (codes != nullptr) {
    RoundTripRun<kSymmetry, kRound, kPerLane, true>(levels, scale, zero, n, x, codes);
  } else {
    RoundTripRun<kSymmetry, kRound, kPerLane, false>(levels, scale, zero, n, x, codes);
  }
}

template <bool kRound>
void RoundTripFp8(const QuantSpec& spec, const float* scale, bool per_lane, int32_t n, float* x,
                  uint8_t* codes) {
  for (int32_t i = 0; i < n; ++i) {
    const float s = scale[per_lane ? i : 0];
    const float t = R<kRound>(x[i] / s);
    uint8_t code;
    float decoded;
    if (spec.code == QuantCode::kFp8E4m3) {
      code = E4m3FromFloat(t, spec.fp8_torch_cast);
      decoded = FloatFromE4m3(code);
    } else {
      code = E5m2FromFloat(t, spec.fp8_torch_cast);
      decoded = FloatFromE5m2(code);
    }
    x[i] = R<kRound>(decoded * s);
    if (codes != nullptr) codes[i] = code;
  }
}

template <bool kRound, bool kPerLane>
void RoundTripOf(const QuantSpec& spec, const float* scale, const float* zero, int32_t n, float* x,
                 uint8_t* codes) {
  if (spec.code != QuantCode::kInt) {
    return RoundTripFp8<kRound>(spec, scale, kPerLane, n, x, codes);
  }
  const Levels levels = LevelsOf(spec);
  switch (spec.symmetry) {
    case QuantSymmetry::kSym:
      return RoundTripInt<QuantSymmetry::kSym, kRound, kPerLane>(levels, scale, zero, n, x, codes);
    case QuantSymmetry::kAsym:
      return RoundTripInt<QuantSymmetry::kAsym, kRound, kPerLane>(levels, scale, zero, n, x, codes);
    case QuantSymmetry::kAffine:
      return RoundTripInt<QuantSymmetry::kAffine, kRound, kPerLane>(levels, scale, zero, n, x,
                                                                    codes);
  }
}

float DecodeOne(const QuantSpec& spec, uint8_t code, float scale, float zero) {
  if (spec.code == QuantCode::kFp8E4m3) return RoundAs(spec, FloatFromE4m3(code) * scale);
  if (spec.code == QuantCode::kFp8E5m2) return RoundAs(spec, FloatFromE5m2(code) * scale);
  if (spec.symmetry == QuantSymmetry::kSym) {
    return RoundAs(spec, static_cast<float>(static_cast<int8_t>(code)) * scale);
  }
  const float q = static_cast<float>(code);
  if (spec.symmetry == QuantSymmetry::kAsym) return RoundAs(spec, RoundAs(spec, q - zero) * scale);
  return RoundAs(spec, RoundAs(spec, q * scale) + zero);
}

}  // namespace

void RoundTrip(const QuantSpec& spec, const QuantLayout& layout, int64_t tokens, const float* scale,
               const float* zero, float* lanes, uint8_t* codes) {
  const int64_t per_block = TokensPerBlock(layout, tokens);
  const bool round = RoundsEveryOperation(spec);
  for (int64_t t = 0; t < tokens; ++t) {
    const int64_t p = t / per_block * layout.groups;
    const int64_t row = t * layout.lanes;
    uint8_t* row_codes = codes == nullptr ? nullptr : codes + row;
    if (PerLaneGroups(layout)) {
      const float* z = HasZero(spec) ? zero + p : nullptr;
      auto* run = round ? RoundTripOf<true, true> : RoundTripOf<false, true>;
      run(spec, scale + p, z, layout.lanes, lanes + row, row_codes);
      continue;
    }
    auto* run = round ? RoundTripOf<true, false> : RoundTripOf<false, false>;
    for (int32_t g = 0; g < layout.groups; ++g) {
      const int32_t begin = layout.group_begin[g];
      const float* z = HasZero(spec) ? zero + p + g : nullptr;
      run(spec, scale + p + g, z, layout.group_begin[g + 1] - begin, lanes + row + begin,
          row_codes == nullptr ? nullptr : row_codes + begin);
    }
  }
}

void DecodeLanes(const QuantSpec& spec, const QuantLayout& layout, int64_t tokens,
                 const float* scale, const float* zero, const uint8_t* codes, float* lanes) {
  const int64_t per_block = TokensPerBlock(layout, tokens);
  for (int64_t t = 0; t < tokens; ++t) {
    for (int32_t g = 0; g < layout.groups; ++g) {
      const int64_t p = t / per_block * layout.groups + g;
      for (int32_t i = layout.group_begin[g]; i < layout.group_begin[g + 1]; ++i) {
        const int64_t at = t * layout.lanes + i;
        lanes[at] = DecodeOne(spec, codes[at], scale[p], HasZero(spec) ? zero[p] : 0.0f);
      }
    }
  }
}

}  // namespace plumbline
