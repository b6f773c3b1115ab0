// Private to services/quant: a format bound to a tensor's shape, in the kernels' words.
#pragma once

#include <cstdint>
#include <vector>

#include "kernels/quantize.h"
#include "services/quant/kv_format.h"
#include "services/quant/tensor_quantizer.h"

namespace plumbline {

QuantSpec SpecOf(const TensorFormat& format, KvDtype dtype);

// Owns the tables that a QuantLayout points at.
class LaneTables {
 public:
  // format and shape must fit each other (CheckFits).
  LaneTables(const TensorFormat& format, const TensorShape& shape);

  // Valid while this object lives and stays in place.
  QuantLayout Layout() const;
  int32_t lanes() const { return lanes_; }
  int32_t groups() const { return static_cast<int32_t>(group_begin_.size()) - 1; }
  int32_t ChannelOfLane(int32_t lane) const {
    return lane_channel_.empty() ? lane : lane_channel_[lane];
  }
  const std::vector<int32_t>& group_begin() const { return group_begin_; }

 private:
  int32_t lanes_ = 0;
  std::vector<int32_t> lane_channel_;  // empty = identity
  std::vector<int32_t> group_begin_;
  int32_t padded_group_ = 0;
  int64_t tokens_per_block_ = 0;
};

// What statistics of a capture say of each group, as AccumulateStatistics would over its tokens.
struct GroupRanges {
  std::vector<float> lo, hi;  // [groups]
};
GroupRanges CalibratedRanges(const Calibration& calibration, const QuantSpec& spec,
                             const LaneTables& tables);

}  // namespace plumbline
