#include "services/quant/device_rules.h"

#include "services/common/status_macros.h"
#include "services/quant/quant_layout.h"

namespace plumbline {
namespace {

cuda::RuleScope ScopeOf(Scope scope) {
  switch (scope) {
    case Scope::kStep:
      return cuda::RuleScope::kStep;
    case Scope::kPrompt:
      return cuda::RuleScope::kPrompt;
    case Scope::kCalibrated:
      return cuda::RuleScope::kCalibrated;
    case Scope::kWindow:
      break;
  }
  return cuda::RuleScope::kWindow;
}

void FreezeCalibrated(const Calibration& calibration, const LaneTables& tables, DeviceRule* bound) {
  const QuantSpec& spec = bound->rule.spec;
  const GroupRanges ranges = CalibratedRanges(calibration, spec, tables);
  bound->frozen_scale.resize(tables.groups());
  if (HasZero(spec)) bound->frozen_zero.resize(tables.groups());
  ComputeParameters(spec, tables.groups(), ranges.lo.data(), ranges.hi.data(),
                    bound->frozen_scale.data(), bound->frozen_zero.data());
}

}  // namespace

absl::StatusOr<DeviceRule> BindDeviceRule(const TensorFormat& format, TensorRole role,
                                          const TensorShape& shape,
                                          const Calibration* calibration) {
  // Every check is the quantizer's.
  PLUMB_RETURN_IF_ERROR(TensorQuantizer::Create(format, shape, calibration).status());
  DeviceRule bound;
  cuda::TensorRule& rule = bound.rule;
  if (format.is_fp()) return bound;
  const TensorFormat normal = NormalizedFormat(format, role);
  const LaneTables tables(normal, shape);
  const QuantLayout layout = tables.Layout();
  rule.fp = 0;
  rule.spec = SpecOf(normal, shape.dtype);
  rule.scope = ScopeOf(normal.scope);
  rule.window = normal.window;
  rule.window_flush = normal.window_flush;
  rule.sink = normal.sink_tokens;
  rule.post_rope = role == TensorRole::kKey && normal.place == RopePlace::kPostRope;
  rule.exact = normal.prefill == PrefillReads::kExact;
  rule.hadamard = normal.hadamard;
  rule.whole_block = layout.tokens_per_block == 0;
  rule.lanes = layout.lanes;
  rule.groups = layout.groups;
  rule.padded_group = layout.padded_group;
  if (layout.lane_channel != nullptr) {
    bound.lane_channel.assign(layout.lane_channel, layout.lane_channel + layout.lanes);
  }
  bound.group_begin = tables.group_begin();
  if (normal.scope == Scope::kCalibrated) FreezeCalibrated(*calibration, tables, &bound);
  return bound;
}

}  // namespace plumbline
