// The quantization formulas of Plumbline, defined bit for bit. quantize_cpu.cc is the reference; a
// device file implements the same functions (or fuses them) and must return the same bits.
//
// Data flow of one block of tokens:
//
//   rows (tensor dtype) --GatherLanes--> lanes (float) --RotateLanes (hadamard only)-->
//     --AccumulateStatistics--> lo, hi --ComputeParameters--> scale, zero
//     --RoundTrip--> codes, lanes (dequantized) --RotateLanes--> --ScatterLanes--> rows
//
// A *lane* is a channel that is quantized (all, or the selected ones in ascending order). A *group*
// is a run of lanes that share parameters; a *block* is a run of tokens that share them. Parameter
// index: p = (token / tokens_per_block) * groups + group. Every granularity is one choice of the
// two:
//
//   granularity     groups                             tokens_per_block
//   tensor          1 (joint) or 1 a head              0 = all
//   token           1 or 1 a head                      1
//   channel         1 a lane                           0 (a window's block: G)
//   group<G>        runs of G lanes (of each head)     1
//
// The arithmetic. R(v) is the identity when arithmetic is f32 and rounding to the tensor's dtype
// when it is native (so native on an f32 tensor equals f32). S(v) rounds to the storage type of
// scales; a positive scale that S takes to 0 becomes the type's smallest positive number (2^-24 for
// half). Every operation is one IEEE f32 operation, rounded to nearest even, never fused; division
// is a true division. L = 2^b - 1, M = 2^(b-1) - 1. rint rounds half to even.
//
//   sym     scale = S(R(max(absmax, R(1e-8)) / M))
//           per tensor: absmax < 1e-10 gives scale 0, which means "x is returned unchanged, code
//           0"; otherwise scale = S(R(absmax / M)) q = rint(clamp(R(x / scale), -M-1, M)),  x' =
//           R(q * scale)
//   asym    scale = S(max(R(R(max - min) / L), R(1e-8)))
//           zero = rint(clamp(R(-min / scale), 0, L))
//           q = rint(clamp(R(R(x / scale) + zero), 0, L)),  x' = R(R(q - zero) * scale)
//   affine  scale as asym, zero = S(min)
//           q = rint(clamp(R(R(x - zero) / scale), 0, L)),  x' = R(R(q * scale) + zero)
//   fp8     scale = 1, or with statistics S(R(max(absmax, R(1e-8)) / max value of the type))
//           q = fp8(R(x / scale)),  x' = R(float(q) * scale)
//
// With integer bounds rint(clamp(v)) equals clamp(rint(v)). q is an integer, so int formats never
// give a negative zero by q. Statistics propagate NaN. A padded group's zeros take part in min and
// max. Integer formats: where x is not finite, or the value to be rounded is NaN, the code is 0 and
// x' is NaN; a group with a non-finite element has a non-finite scale, hence only non-finite
// values. The code 0 cannot say so: a packed cache must keep such rows apart, as it must rows with
// scale 0.
//
// RotateLanes multiplies each head's d lanes by the d x d Walsh-Hadamard matrix / sqrt(d): for
// h = 1, 2, 4, .. d/2 and each pair (i, i + h) with bit h of i clear: (a, b) -> (R(a + b), R(a -
// b)); at the end every lane is R(lane * f), f = float(1 / sqrt(double(d))). It is its own inverse.
//
// Raw pointers only; no allocation; any thread.
#pragma once

#include <cstdint>

namespace plumbline {

enum class QuantCode { kInt, kFp8E4m3, kFp8E5m2 };
enum class QuantSymmetry { kSym, kAsym, kAffine };
enum class QuantElement { kF32, kBf16 };  // bf16 as raw uint16_t
enum class QuantScaleType { kF32, kF16, kBf16 };

struct QuantSpec {
  QuantCode code = QuantCode::kInt;
  int32_t bits = 8;  // 2..8, kInt only
  QuantSymmetry symmetry = QuantSymmetry::kSym;
  QuantElement element = QuantElement::kF32;  // dtype of the tensor
  bool native = false;                        // R rounds to `element`
  QuantScaleType scale_type = QuantScaleType::kF32;
  bool tensor_rule = false;     // the per-tensor rule of sym
  bool fp8_torch_cast = false;  // overflow gives torch's NaN / inf instead of saturating
  bool fp8_scaled = false;      // the scale comes from statistics instead of being 1
};

// Whether a zero point (asym) or minimum (affine) goes with each scale.
inline bool HasZero(const QuantSpec& spec) {
  return spec.code == QuantCode::kInt && spec.symmetry != QuantSymmetry::kSym;
}

struct QuantLayout {
  int32_t lanes = 0;
  const int32_t* lane_channel =
      nullptr;  // [lanes] flat channel of a lane; null = lane i is channel i
  int32_t groups = 0;
  const int32_t* group_begin = nullptr;  // [groups + 1] first lane of each group, and `lanes`
  int32_t padded_group =
      0;  // group size G; groups with fewer lanes are padded with zeros; 0 = none
  int64_t tokens_per_block = 0;  // 0 = all tokens of a call are one block
};

// Blocks x groups: how many parameters `tokens` tokens have.
inline int64_t ParameterCount(const QuantLayout& layout, int64_t tokens) {
  if (tokens == 0) return 0;
  const int64_t per_block = layout.tokens_per_block == 0 ? tokens : layout.tokens_per_block;
  return (tokens + per_block - 1) / per_block * layout.groups;
}

void GatherLanes(const QuantLayout& layout, QuantElement element,
                 const void* rows,  // [tokens, row_stride] of `element`
                 int64_t row_stride, int64_t tokens,
                 float* lanes);  // [tokens, layout.lanes] dense

// Rounds each lane to `element` once.
void ScatterLanes(const QuantLayout& layout, QuantElement element,
                  const float* lanes,  // [tokens, layout.lanes] dense
                  int64_t tokens,
                  void* rows,  // [tokens, row_stride] of `element`
                  int64_t row_stride);

// head_dim a power of two that divides layout.lanes; lanes in whole heads.
void RotateLanes(const QuantSpec& spec, int32_t head_dim, int64_t heads_times_tokens,
                 float* lanes);  // [heads_times_tokens, head_dim] dense

// lo, hi: [count]. sym and fp8 use hi = max |x| alone; asym and affine min and max.
void ResetStatistics(int64_t count, float* lo, float* hi);
// Merges the tokens' statistics into lo and hi; merging is exact, so any split of a block's tokens
// into calls gives the same bits (with tokens_per_block 0).
void AccumulateStatistics(const QuantSpec& spec, const QuantLayout& layout,
                          const float* lanes,  // [tokens, layout.lanes]
                          int64_t tokens, float* lo,
                          float* hi);  // [ParameterCount(layout, tokens)]

// count parameters; lo is read, and zero written, only when HasZero(spec) (zero may be null
// otherwise).
void ComputeParameters(const QuantSpec& spec, int64_t count, const float* lo, const float* hi,
                       float* scale, float* zero);

// Quantizes and dequantizes lanes in place.
// codes: [tokens, layout.lanes] or null. sym: two's complement; asym, affine: unsigned; fp8: its
// bits.
void RoundTrip(const QuantSpec& spec, const QuantLayout& layout, int64_t tokens, const float* scale,
               const float* zero,  // [ParameterCount(layout, tokens)]
               float* lanes,       // [tokens, layout.lanes]
               uint8_t* codes);

// Values of codes, for storage that keeps them packed; equals what RoundTrip leaves in lanes
// wherever scales are finite and not 0 and inputs were finite.
void DecodeLanes(const QuantSpec& spec, const QuantLayout& layout, int64_t tokens,
                 const float* scale, const float* zero,  // [ParameterCount(layout, tokens)]
                 const uint8_t* codes,                   // [tokens, layout.lanes]
                 float* lanes);                          // [tokens, layout.lanes]

}  // namespace plumbline
