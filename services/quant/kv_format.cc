#include "services/quant/kv_format.h"

#include <algorithm>
#include <map>
#include <utility>

#include "absl/strings/str_cat.h"
#include "services/common/digest.h"
#include "services/quant/format_rules.h"

namespace plumbline {
namespace {

std::string GranularityText(const TensorFormat& f) {
  switch (f.granularity) {
    case Granularity::kNone:
      return "";
    case Granularity::kTensor:
      return f.is_fp8() ? "" : "tensor";
    case Granularity::kToken:
      return "token";
    case Granularity::kChannel:
      return "channel";
    case Granularity::kGroup:
      return absl::StrCat("group", f.group_size);
  }
  return "";
}

std::string ScopeText(const TensorFormat& f) {
  switch (f.scope) {
    case Scope::kStep:
      return "";
    case Scope::kPrompt:
      return "prompt";
    case Scope::kCalibrated:
      return absl::StrCat("calibrated(", f.calibration_digest, ")");
    case Scope::kWindow:
      return f.window_flush == 0 ? absl::StrCat("window", f.window)
                                 : absl::StrCat("window", f.window, "x", f.window_flush);
  }
  return "";
}

std::string SymmetryText(Symmetry symmetry) {
  static constexpr const char* kNames[] = {"", "sym", "asym", "affine"};
  return kNames[static_cast<int>(symmetry)];
}

std::string SelectText(const TensorFormat& f) {
  if (!f.select_heads.empty()) return absl::StrCat("heads(", IndexListText(f.select_heads), ")");
  if (!f.select_channels.empty()) return absl::StrCat("ch(", IndexListText(f.select_channels), ")");
  return "";
}

}  // namespace

bool TensorFormat::rows_stand_alone() const {
  if (is_fp()) return true;
  if (scope != Scope::kStep) return false;
  return is_fp8() || granularity == Granularity::kToken || granularity == Granularity::kGroup;
}

bool TensorFormat::is_int() const { return !is_fp() && !is_fp8(); }

int TensorFormat::bits() const {
  switch (type) {
    case KvType::kFp:
      return 0;
    case KvType::kInt2:
      return 2;
    case KvType::kInt3:
      return 3;
    case KvType::kInt4:
      return 4;
    case KvType::kInt5:
      return 5;
    case KvType::kInt6:
      return 6;
    case KvType::kInt8:
    case KvType::kFp8E4m3:
    case KvType::kFp8E5m2:
      return 8;
  }
  return 0;
}

TensorFormat NormalizedFormat(TensorFormat format, TensorRole role) {
  if (format.is_fp()) return TensorFormat();
  if (format.is_fp8() && format.granularity == Granularity::kNone) {
    format.granularity = Granularity::kTensor;
  }
  if (role == TensorRole::kValue) format.place = RopePlace::kPreRope;
  if (format.granularity == Granularity::kChannel || !format.has_scales()) {
    format.heads = HeadGrouping::kJoint;
  }
  return format;
}

absl::Status CheckFormat(const TensorFormat& format, bool paper_quirks) {
  auto problem = FindProblem(format, paper_quirks);
  if (!problem) return absl::OkStatus();
  return absl::InvalidArgumentError(
      absl::StrCat(problem->message, " (format '", FormatText(format), "'): ", problem->hint));
}

std::string FormatText(const TensorFormat& f) {
  static constexpr const char* kScales[] = {"", "s16", "sb16"};
  const std::string parts[] = {
      TypeText(f.type),
      SymmetryText(f.symmetry),
      GranularityText(f),
      ScopeText(f),
      f.place == RopePlace::kPostRope ? "post" : "",
      f.heads == HeadGrouping::kPerHead ? "perhead" : "",
      f.prefill == PrefillReads::kExact ? "exact" : "",
      f.arithmetic == Arithmetic::kNative ? "native" : "",
      kScales[static_cast<int>(f.scale_type)],
      SelectText(f),
      f.sink_tokens > 0 ? absl::StrCat("sink", f.sink_tokens) : "",
      f.hadamard ? "hadamard" : "",
      f.fp8_overflow == Fp8Overflow::kTorchCast ? "torchcast" : "",
  };
  std::string text;
  for (const std::string& part : parts) {
    if (!part.empty()) absl::StrAppend(&text, text.empty() ? "" : ".", part);
  }
  return text;
}

std::string FormatText(const LayerFormat& format) {
  const TensorFormat key = NormalizedFormat(format.key, TensorRole::kKey);
  const TensorFormat value = NormalizedFormat(format.value, TensorRole::kValue);
  if (NormalizedFormat(key, TensorRole::kValue) == value) return FormatText(key);
  return absl::StrCat(FormatText(key), "|", FormatText(value));
}

std::string RuleText(const PlanRule& rule) {
  return absl::StrCat(rule.layers.empty() ? "*" : IndexListText(rule.layers), ":",
                      FormatText(rule.format));
}

std::string CanonicalPlanText(const std::vector<LayerFormat>& layers) {
  std::vector<std::pair<std::string, std::vector<int32_t>>> formats;  // by first layer
  std::map<std::string, size_t> index;
  for (size_t i = 0; i < layers.size(); ++i) {
    std::string text = FormatText(layers[i]);
    auto [it, is_new] = index.emplace(text, formats.size());
    if (is_new) formats.emplace_back(std::move(text), std::vector<int32_t>());
    formats[it->second].second.push_back(static_cast<int32_t>(i));
  }
  // The commonest format is the base; the earlier one wins a tie.
  const auto base = std::max_element(
      formats.begin(), formats.end(),
      [](const auto& a, const auto& b) { return a.second.size() < b.second.size(); });
  if (base == formats.end()) return "";
  std::string plan = absl::StrCat("*:", base->first);
  for (auto it = formats.begin(); it != formats.end(); ++it) {
    if (it != base) absl::StrAppend(&plan, ",", IndexListText(it->second), ":", it->first);
  }
  return plan;
}

std::string PlanDigest(const std::vector<LayerFormat>& layers) {
  return Sha256Hex(CanonicalPlanText(layers));
}

}  // namespace plumbline
