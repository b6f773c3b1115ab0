#include "services/quant/quant_layout.h"

#include <algorithm>
#include <limits>

namespace plumbline {
namespace {

std::vector<int32_t> SelectedChannels(const TensorFormat& format, const TensorShape& shape) {
  std::vector<int32_t> channels = format.select_channels;
  for (int32_t head : format.select_heads) {
    for (int32_t c = 0; c < shape.head_dim; ++c) channels.push_back(head * shape.head_dim + c);
  }
  return channels;
}

}  // namespace

QuantSpec SpecOf(const TensorFormat& format, KvDtype dtype) {
  QuantSpec spec;
  if (format.type == KvType::kFp8E4m3) spec.code = QuantCode::kFp8E4m3;
  if (format.type == KvType::kFp8E5m2) spec.code = QuantCode::kFp8E5m2;
  spec.bits = format.bits();
  if (format.symmetry == Symmetry::kAsym) spec.symmetry = QuantSymmetry::kAsym;
  if (format.symmetry == Symmetry::kAffine) spec.symmetry = QuantSymmetry::kAffine;
  spec.element = dtype == KvDtype::kF32 ? QuantElement::kF32 : QuantElement::kBf16;
  spec.native = format.arithmetic == Arithmetic::kNative;
  if (format.scale_type == ScaleType::kF16) spec.scale_type = QuantScaleType::kF16;
  if (format.scale_type == ScaleType::kBf16) spec.scale_type = QuantScaleType::kBf16;
  spec.tensor_rule =
      format.symmetry == Symmetry::kSym && format.granularity == Granularity::kTensor;
  spec.fp8_torch_cast = format.fp8_overflow == Fp8Overflow::kTorchCast;
  spec.fp8_scaled = format.is_fp8() && format.has_scales();
  return spec;
}

LaneTables::LaneTables(const TensorFormat& format, const TensorShape& shape)
    : lane_channel_(SelectedChannels(format, shape)) {
  lanes_ = lane_channel_.empty() ? static_cast<int32_t>(shape.flat_channels())
                                 : static_cast<int32_t>(lane_channel_.size());
  if (format.granularity == Granularity::kToken || format.granularity == Granularity::kGroup) {
    tokens_per_block_ = 1;
  }
  padded_group_ = format.group_size;
  // A run ends at its size, and with perhead at each head's last lane.
  int32_t run = lanes_;
  if (format.granularity == Granularity::kChannel) run = 1;
  if (format.granularity == Granularity::kGroup) run = format.group_size;
  int32_t begin = 0;
  for (int32_t lane = 0; lane < lanes_; ++lane) {
    const bool new_head =
        format.heads == HeadGrouping::kPerHead && lane > 0 &&
        ChannelOfLane(lane) / shape.head_dim != ChannelOfLane(lane - 1) / shape.head_dim;
    if (lane == 0 || lane - begin == run || new_head) {
      begin = lane;
      group_begin_.push_back(lane);
    }
  }
  group_begin_.push_back(lanes_);
}

QuantLayout LaneTables::Layout() const {
  QuantLayout layout;
  layout.lanes = lanes_;
  layout.lane_channel = lane_channel_.empty() ? nullptr : lane_channel_.data();
  layout.groups = groups();
  layout.group_begin = group_begin_.data();
  layout.padded_group = padded_group_;
  layout.tokens_per_block = tokens_per_block_;
  return layout;
}

GroupRanges CalibratedRanges(const Calibration& calibration, const QuantSpec& spec,
                             const LaneTables& tables) {
  const auto& highs = HasZero(spec) ? calibration.channel_max : calibration.channel_absmax;
  GroupRanges ranges;
  ranges.lo.assign(tables.groups(), std::numeric_limits<float>::infinity());
  ranges.hi.assign(tables.groups(), -std::numeric_limits<float>::infinity());
  for (int32_t g = 0; g < tables.groups(); ++g) {
    for (int32_t i = tables.group_begin()[g]; i < tables.group_begin()[g + 1]; ++i) {
      const int32_t channel = tables.ChannelOfLane(i);
      ranges.lo[g] = std::min(ranges.lo[g], calibration.channel_min[channel]);
      ranges.hi[g] = std::max(ranges.hi[g], highs[channel]);
    }
  }
  return ranges;
}

}  // namespace plumbline
