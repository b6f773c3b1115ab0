// Plans between text, proto and plain types.
#include <algorithm>
#include <array>
#include <utility>

#include "absl/strings/str_cat.h"
#include "services/cells/cells.h"
#include "services/common/status_macros.h"
#include "services/quant/plan_parser.h"

namespace plumbline {
namespace {

// The proto's values in the order of the plain enums. Symmetry and granularity have "unspecified"
// as their plain kNone; scope and scale type read it as their default.
constexpr std::array kTypes = {v1::KV_TYPE_FP,   v1::KV_TYPE_INT2,     v1::KV_TYPE_INT3,
                               v1::KV_TYPE_INT4, v1::KV_TYPE_INT5,     v1::KV_TYPE_INT6,
                               v1::KV_TYPE_INT8, v1::KV_TYPE_FP8_E4M3, v1::KV_TYPE_FP8_E5M2};
constexpr std::array kSymmetries = {v1::SYMMETRY_UNSPECIFIED, v1::SYMMETRY_SYM, v1::SYMMETRY_ASYM,
                                    v1::SYMMETRY_AFFINE};
constexpr std::array kGranularities = {v1::GRANULARITY_UNSPECIFIED, v1::GRANULARITY_TENSOR,
                                       v1::GRANULARITY_TOKEN, v1::GRANULARITY_CHANNEL,
                                       v1::GRANULARITY_GROUP};
constexpr std::array kScopes = {v1::SCOPE_STEP, v1::SCOPE_PROMPT, v1::SCOPE_CALIBRATED,
                                v1::SCOPE_WINDOW};
constexpr std::array kScaleTypes = {v1::SCALE_TYPE_S32, v1::SCALE_TYPE_S16, v1::SCALE_TYPE_SB16};

template <typename Plain, typename Proto, size_t N>
absl::Status FromProtoEnum(const std::array<Proto, N>& table, Proto value, const char* field,
                           Plain* out) {
  for (size_t i = 0; i < N; ++i) {
    if (table[i] == value) {
      *out = static_cast<Plain>(i);
      return absl::OkStatus();
    }
  }
  return absl::InvalidArgumentError(
      absl::StrCat("plan: ", field, " has the unusable value ", static_cast<int>(value)));
}

template <typename T, typename Repeated>
std::vector<T> ToVector(const Repeated& values) {
  return std::vector<T>(values.begin(), values.end());
}

absl::StatusOr<TensorFormat> FormatFromProto(const v1::TensorFormat& proto) {
  TensorFormat format;
  PLUMB_RETURN_IF_ERROR(FromProtoEnum(kTypes, proto.type(), "type", &format.type));
  PLUMB_RETURN_IF_ERROR(FromProtoEnum(kSymmetries, proto.symmetry(), "symmetry", &format.symmetry));
  PLUMB_RETURN_IF_ERROR(
      FromProtoEnum(kGranularities, proto.granularity(), "granularity", &format.granularity));
  if (proto.scope() != v1::SCOPE_UNSPECIFIED) {
    PLUMB_RETURN_IF_ERROR(FromProtoEnum(kScopes, proto.scope(), "scope", &format.scope));
  }
  if (proto.scale_type() != v1::SCALE_TYPE_UNSPECIFIED) {
    PLUMB_RETURN_IF_ERROR(
        FromProtoEnum(kScaleTypes, proto.scale_type(), "scale_type", &format.scale_type));
  }
  format.group_size = static_cast<int32_t>(proto.group_size());
  format.calibration_digest = proto.calibration_digest();
  format.window = static_cast<int32_t>(proto.window());
  format.window_flush = static_cast<int32_t>(proto.window_flush());
  format.heads = proto.per_head() ? HeadGrouping::kPerHead : HeadGrouping::kJoint;
  format.place = proto.post_rope() ? RopePlace::kPostRope : RopePlace::kPreRope;
  format.prefill = proto.prefill_exact() ? PrefillReads::kExact : PrefillReads::kSeen;
  format.arithmetic = proto.native_arithmetic() ? Arithmetic::kNative : Arithmetic::kF32;
  format.select_heads = ToVector<int32_t>(proto.select_heads());
  format.select_channels = ToVector<int32_t>(proto.select_channels());
  format.sink_tokens = static_cast<int32_t>(proto.sink_tokens());
  format.hadamard = proto.hadamard();
  format.fp8_overflow = proto.torchcast() ? Fp8Overflow::kTorchCast : Fp8Overflow::kSaturate;
  // The grammar is the one judge of what fits together: the text of the format must parse back to
  // it.
  PLUMB_ASSIGN_OR_RETURN(TensorFormat parsed,
                         ParseFormat(FormatText(format), {.paper_quirks = true}));
  return parsed;
}

v1::TensorFormat FormatToProto(const TensorFormat& format) {
  v1::TensorFormat proto;
  proto.set_type(kTypes[static_cast<size_t>(format.type)]);
  proto.set_symmetry(kSymmetries[static_cast<size_t>(format.symmetry)]);
  proto.set_granularity(kGranularities[static_cast<size_t>(format.granularity)]);
  proto.set_group_size(static_cast<uint32_t>(format.group_size));
  proto.set_scope(kScopes[static_cast<size_t>(format.scope)]);
  proto.set_calibration_digest(format.calibration_digest);
  proto.set_window(static_cast<uint32_t>(format.window));
  proto.set_window_flush(static_cast<uint32_t>(format.window_flush));
  proto.set_per_head(format.heads == HeadGrouping::kPerHead);
  proto.set_post_rope(format.place == RopePlace::kPostRope);
  proto.set_prefill_exact(format.prefill == PrefillReads::kExact);
  proto.set_native_arithmetic(format.arithmetic == Arithmetic::kNative);
  proto.set_scale_type(kScaleTypes[static_cast<size_t>(format.scale_type)]);
  for (const int32_t head : format.select_heads) {
    proto.add_select_heads(static_cast<uint32_t>(head));
  }
  for (const int32_t channel : format.select_channels) {
    proto.add_select_channels(static_cast<uint32_t>(channel));
  }
  proto.set_sink_tokens(static_cast<uint32_t>(format.sink_tokens));
  proto.set_hadamard(format.hadamard);
  proto.set_torchcast(format.fp8_overflow == Fp8Overflow::kTorchCast);
  return proto;
}

}  // namespace

absl::StatusOr<std::string> CanonicalizePlan(const std::string& text, const v1::ModelInfo& model,
                                             bool paper_quirks) {
  PLUMB_ASSIGN_OR_RETURN(const Plan plan, ParsePlan(text, {.paper_quirks = paper_quirks}));
  PLUMB_ASSIGN_OR_RETURN(
      const std::vector<LayerFormat> layers,
      plan.Resolve(static_cast<int>(model.num_layers()), static_cast<int>(model.num_kv_heads()),
                   static_cast<int>(model.head_dim())));
  return CanonicalPlanText(layers);
}

absl::StatusOr<Plan> PlanFromProto(const v1::Plan& proto) {
  std::vector<PlanRule> rules;
  for (int i = 0; i < proto.rules_size(); ++i) {
    const v1::PlanRule& rule = proto.rules(i);
    const std::string where = absl::StrCat("rule ", i + 1);
    PlanRule out;
    out.layers = ToVector<int32_t>(rule.layers());
    std::sort(out.layers.begin(), out.layers.end());
    out.layers.erase(std::unique(out.layers.begin(), out.layers.end()), out.layers.end());
    auto key = FormatFromProto(rule.key());
    if (!key.ok()) return Annotate(key.status(), absl::StrCat(where, ", keys"));
    auto value = FormatFromProto(rule.value());
    if (!value.ok()) return Annotate(value.status(), absl::StrCat(where, ", values"));
    out.format = {*std::move(key), *std::move(value)};
    rules.push_back(std::move(out));
  }
  if (rules.empty()) return absl::InvalidArgumentError("plan: no rules; give at least one");
  return Plan(std::move(rules));
}

v1::Plan PlanToProto(const Plan& plan) {
  v1::Plan proto;
  for (const PlanRule& rule : plan.rules()) {
    v1::PlanRule* out = proto.add_rules();
    for (const int32_t layer : rule.layers) out->add_layers(static_cast<uint32_t>(layer));
    *out->mutable_key() = FormatToProto(rule.format.key);
    *out->mutable_value() = FormatToProto(rule.format.value);
  }
  return proto;
}

}  // namespace plumbline
