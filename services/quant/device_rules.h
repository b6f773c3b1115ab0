// A tensor's format as the GPU's kernels read it (kernels/cuda/step.h), with the tables that it
// points at. Built only with CUDA.
#pragma once

#include <cstdint>
#include <vector>

#include "absl/status/statusor.h"
#include "kernels/cuda/step.h"
#include "services/quant/kv_format.h"
#include "services/quant/tensor_quantizer.h"

namespace plumbline {

struct DeviceRule {
  // Its pointers are null: whoever copies the tables to the device sets them, each to null where
  // the table is empty.
  cuda::TensorRule rule;
  std::vector<int32_t> lane_channel;
  std::vector<int32_t> group_begin;
  std::vector<float> frozen_scale;  // calibrated only
  std::vector<float> frozen_zero;   // calibrated with zero points or minima only
};

// InvalidArgument as TensorQuantizer::Create. calibration may be null unless the format is
// calibrated. A rule with scope prompt needs rule.groups entries in StepTables::frozen; one with
// scope window, a key role and post_rope 0 needs raw pages.
absl::StatusOr<DeviceRule> BindDeviceRule(const TensorFormat& format, TensorRole role,
                                          const TensorShape& shape, const Calibration* calibration);

}  // namespace plumbline
