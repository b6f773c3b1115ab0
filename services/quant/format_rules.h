// Private to services/quant: the tables and combination rules of the format grammar.
#pragma once

#include <optional>
#include <string>

#include "services/quant/kv_format.h"

namespace plumbline {

inline constexpr int32_t kMaxGroupSize = 65536;  // channels
inline constexpr int32_t kMaxWindow = 1048576;   // tokens
inline constexpr int32_t kMaxLayerIndex = 4095;
inline constexpr int32_t kMaxChannelIndex = 65535;

// What an option sets; each may be given once a format.
enum class OptionKind {
  kType,
  kSymmetry,
  kGranularity,
  kScope,
  kHeads,
  kPlace,
  kPrefill,
  kArithmetic,
  kScale,
  kSelect,
  kSink,
  kHadamard,
  kFp8Overflow,
};
inline constexpr int kOptionKinds = 13;
const char* OptionKindName(OptionKind kind);

const char* TypeText(KvType type);
inline constexpr const char* kTypeNames = "fp int2 int3 int4 int5 int6 int8 fp8_e4m3 fp8_e5m2";
inline constexpr const char* kOptionNames =
    "sym asym affine, tensor token channel group<G>, step prompt calibrated(<digest>) "
    "window<R>[x<G>], joint perhead, pre post, seen exact, f32 native, s32 s16 sb16, heads(<list>) "
    "ch(<list>), sink<N>, hadamard, satur torchcast";

struct FormatProblem {
  OptionKind kind;      // the option to point at
  std::string message;  // what is wrong
  std::string hint;     // what would be right
};

// The first broken rule, if any.
std::optional<FormatProblem> FindProblem(const TensorFormat& format, bool paper_quirks);

// Whether selected heads and channels exist, a group is no larger than a token, and hadamard's
// head_dim is a power of two. InvalidArgument with both sizes.
absl::Status CheckFits(const TensorFormat& format, int num_kv_heads, int head_dim);

// "0-3+7" from sorted unique numbers.
std::string IndexListText(const std::vector<int32_t>& indices);

}  // namespace plumbline
