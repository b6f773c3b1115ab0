#include "services/quant/format_rules.h"

#include <algorithm>

#include "absl/strings/str_cat.h"

namespace plumbline {
namespace {

using Problem = std::optional<FormatProblem>;

Problem Refuse(OptionKind kind, std::string message, std::string hint) {
  return FormatProblem{kind, std::move(message), std::move(hint)};
}

bool IsDigest(const std::string& text) {
  return text.size() >= 8 && text.size() <= 64 && std::all_of(text.begin(), text.end(), [](char c) {
           return (c >= '0' && c <= '9') || (c >= 'a' && c <= 'f');
         });
}

bool IsSortedUnique(const std::vector<int32_t>& list, int32_t max) {
  for (size_t i = 0; i < list.size(); ++i) {
    if (list[i] < 0 || list[i] > max || (i > 0 && list[i] <= list[i - 1])) return false;
  }
  return true;
}

bool CrossesTokens(Granularity granularity) {
  return granularity == Granularity::kTensor || granularity == Granularity::kChannel;
}

Problem CheckFp(const TensorFormat& f) {
  if (f == TensorFormat()) return std::nullopt;
  return Refuse(OptionKind::kType, "fp takes no options", "write fp alone");
}

Problem CheckIntOnly(const TensorFormat& f) {
  if (f.symmetry == Symmetry::kNone) {
    return Refuse(OptionKind::kType, absl::StrCat(TypeText(f.type), " needs a symmetry"),
                  "add one of: sym asym affine");
  }
  if (f.granularity == Granularity::kNone) {
    return Refuse(OptionKind::kType, absl::StrCat(TypeText(f.type), " needs a granularity"),
                  "add one of: tensor token channel group<G>");
  }
  if (f.fp8_overflow != Fp8Overflow::kSaturate) {
    return Refuse(OptionKind::kFp8Overflow, "torchcast is an fp8 option",
                  "drop it, or use fp8_e4m3 or fp8_e5m2");
  }
  return std::nullopt;
}

Problem CheckFp8Only(const TensorFormat& f) {
  if (f.symmetry != Symmetry::kNone) {
    return Refuse(OptionKind::kSymmetry, "fp8 has no symmetry", "drop it");
  }
  if (f.scope == Scope::kPrompt) {
    return Refuse(OptionKind::kScope, "the scale of fp8 is 1 unless calibrated; prompt sets none",
                  "use calibrated(<digest>) or drop it");
  }
  const bool calibrated = f.scope == Scope::kCalibrated;
  if (!calibrated && f.granularity != Granularity::kTensor) {
    return Refuse(OptionKind::kGranularity,
                  "the scale of fp8 is 1 unless calibrated; a granularity has no effect",
                  "drop it, or add calibrated(<digest>)");
  }
  if (!calibrated && f.scale_type != ScaleType::kF32) {
    return Refuse(OptionKind::kScale, "fp8 stores no scale unless calibrated",
                  "drop it, or add calibrated(<digest>)");
  }
  if (f.scope == Scope::kWindow && f.window_flush != 0) {
    return Refuse(OptionKind::kScope, "fp8 in a window forms no statistics over tokens",
                  "write window<R> without x<G>");
  }
  return std::nullopt;
}

Problem CheckGroup(const TensorFormat& f) {
  const bool is_group = f.granularity == Granularity::kGroup;
  if (is_group && (f.group_size < 2 || f.group_size > kMaxGroupSize)) {
    return Refuse(OptionKind::kGranularity, absl::StrCat("group size ", f.group_size),
                  absl::StrCat("G of group<G> is 2 to ", kMaxGroupSize, " channels"));
  }
  if (!is_group && f.group_size != 0) {
    return Refuse(OptionKind::kGranularity, "a group size without granularity group",
                  "use group<G>");
  }
  return std::nullopt;
}

Problem CheckWindow(const TensorFormat& f) {
  if (f.scope != Scope::kWindow) {
    if (f.window == 0 && f.window_flush == 0) return std::nullopt;
    return Refuse(OptionKind::kScope, "window tokens without scope window", "use window<R>[x<G>]");
  }
  if (f.window < 1 || f.window > kMaxWindow) {
    return Refuse(OptionKind::kScope, absl::StrCat("window of ", f.window, " tokens"),
                  absl::StrCat("R of window<R> is 1 to ", kMaxWindow, " tokens"));
  }
  if (f.window_flush < 0 || (f.window_flush > 0 && f.window % f.window_flush != 0)) {
    return Refuse(OptionKind::kScope,
                  absl::StrCat("window of ", f.window, " tokens is no multiple of its flush of ",
                               f.window_flush),
                  "R of window<R>x<G> must be a multiple of G");
  }
  if (f.is_int() && CrossesTokens(f.granularity) && f.window_flush < 2) {
    return Refuse(OptionKind::kScope,
                  absl::StrCat("statistics of ",
                               f.granularity == Granularity::kChannel ? "channel" : "tensor",
                               " in a window need several tokens"),
                  "write window<R>x<G> with G >= 2: G tokens share statistics");
  }
  return std::nullopt;
}

Problem CheckScope(const TensorFormat& f, bool paper_quirks) {
  const bool crosses = CrossesTokens(f.granularity);
  if (f.scope == Scope::kPrompt && !crosses) {
    return Refuse(OptionKind::kScope, "prompt statistics need a granularity that crosses tokens",
                  "use tensor or channel, or drop prompt");
  }
  if (f.scope == Scope::kCalibrated && !crosses) {
    return Refuse(OptionKind::kScope,
                  "calibrated statistics need a granularity that crosses tokens",
                  "use tensor or channel, or drop calibrated");
  }
  if (f.scope == Scope::kCalibrated ? !IsDigest(f.calibration_digest)
                                    : !f.calibration_digest.empty()) {
    return Refuse(OptionKind::kScope,
                  absl::StrCat("calibration digest '", f.calibration_digest, "'"),
                  "calibrated(<digest>) takes 8 to 64 lower-case hexadecimal digits");
  }
  if (f.symmetry == Symmetry::kAsym && f.granularity == Granularity::kChannel &&
      f.scope == Scope::kStep && !paper_quirks) {
    return Refuse(OptionKind::kScope,
                  "asym.channel.step returns about 0 for every single decoded token",
                  "use prompt, calibrated or a window, or ask for it by name: --paper-quirks");
  }
  return CheckWindow(f);
}

Problem CheckSelect(const TensorFormat& f) {
  if (!f.select_heads.empty() && !f.select_channels.empty()) {
    return Refuse(OptionKind::kSelect, "heads(...) and ch(...) together", "list the channels");
  }
  if (!IsSortedUnique(f.select_heads, kMaxChannelIndex) ||
      !IsSortedUnique(f.select_channels, kMaxChannelIndex)) {
    return Refuse(OptionKind::kSelect, "the selection is not sorted, unique and in range",
                  absl::StrCat("indices are 0 to ", kMaxChannelIndex));
  }
  if (f.hadamard && !f.select_channels.empty()) {
    return Refuse(OptionKind::kSelect, "hadamard mixes all channels of a head",
                  "select whole heads(<list>), or drop hadamard");
  }
  if (f.hadamard && f.scope == Scope::kCalibrated) {
    return Refuse(OptionKind::kHadamard,
                  "a capture holds statistics of channels that are not rotated",
                  "drop hadamard, or use another scope");
  }
  return std::nullopt;
}

}  // namespace

std::optional<FormatProblem> FindProblem(const TensorFormat& format, bool paper_quirks) {
  TensorFormat f = format;
  if (f.is_fp()) return CheckFp(f);
  if (f.is_fp8() && f.granularity == Granularity::kNone) f.granularity = Granularity::kTensor;
  if (Problem p = f.is_int() ? CheckIntOnly(f) : CheckFp8Only(f)) return p;
  if (Problem p = CheckGroup(f)) return p;
  if (Problem p = CheckScope(f, paper_quirks)) return p;
  if (Problem p = CheckSelect(f)) return p;
  if (f.sink_tokens < 0 || f.sink_tokens > kMaxWindow) {
    return Refuse(OptionKind::kSink, absl::StrCat("sink of ", f.sink_tokens, " tokens"),
                  absl::StrCat("N of sink<N> is 1 to ", kMaxWindow, " tokens"));
  }
  return std::nullopt;
}

absl::Status CheckFits(const TensorFormat& f, int num_kv_heads, int head_dim) {
  const int64_t channels = int64_t{num_kv_heads} * head_dim;
  if (!f.select_heads.empty() && f.select_heads.back() >= num_kv_heads) {
    return absl::InvalidArgumentError(
        absl::StrCat("head ", f.select_heads.back(), " is not in 0 to ", num_kv_heads - 1,
                     ": the model has ", num_kv_heads, " key/value heads"));
  }
  if (!f.select_channels.empty() && f.select_channels.back() >= channels) {
    return absl::InvalidArgumentError(
        absl::StrCat("channel ", f.select_channels.back(), " is not in 0 to ", channels - 1,
                     ": the model has ", num_kv_heads, " key/value heads of ", head_dim));
  }
  if (f.group_size > channels) {
    return absl::InvalidArgumentError(
        absl::StrCat("group", f.group_size, " exceeds the ", channels, " channels of a token"));
  }
  if (f.hadamard && (head_dim & (head_dim - 1)) != 0) {
    return absl::InvalidArgumentError(absl::StrCat(
        "hadamard needs a head_dim that is a power of two; the model's is ", head_dim));
  }
  return absl::OkStatus();
}

const char* OptionKindName(OptionKind kind) {
  static constexpr const char* kNames[kOptionKinds] = {
      "type",  "symmetry", "granularity", "scope", "heads",    "place",       "prefill",
      "arith", "scale",    "select",      "sink",  "hadamard", "fp8 overflow"};
  return kNames[static_cast<int>(kind)];
}

const char* TypeText(KvType type) {
  static constexpr const char* kNames[] = {"fp",   "int2", "int3",     "int4",    "int5",
                                           "int6", "int8", "fp8_e4m3", "fp8_e5m2"};
  return kNames[static_cast<int>(type)];
}

std::string IndexListText(const std::vector<int32_t>& indices) {
  std::string text;
  for (size_t begin = 0; begin < indices.size();) {
    size_t end = begin + 1;
    while (end < indices.size() && indices[end] == indices[end - 1] + 1) ++end;
    if (!text.empty()) text += '+';
    absl::StrAppend(&text, indices[begin]);
    if (end - begin > 1) absl::StrAppend(&text, "-", indices[end - 1]);
    begin = end;
  }
  return text;
}

}  // namespace plumbline
