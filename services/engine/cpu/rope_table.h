// cos and sin of every position's rotary angles, by the same float steps as transformers.
#pragma once

#include <cstdint>
#include <vector>

#include "absl/status/statusor.h"
#include "services/engine/model_bundle.h"

namespace plumbline {

class RopeTable {
 public:
  // bf16: round cos and sin to bf16, as a bf16 model does.
  static absl::StatusOr<RopeTable> Create(const ModelConfig& config, bool bf16);

  // Grows the table to `positions` positions. Not while others read.
  void Extend(int64_t positions);

  const float* cos(int64_t position) const { return cos_.data() + position * half_; }
  const float* sin(int64_t position) const { return sin_.data() + position * half_; }
  // Radians a position of each channel pair (i, i + head_dim/2), scaling included.
  const std::vector<float>& inverse_frequencies() const { return inverse_frequencies_; }

 private:
  std::vector<float> inverse_frequencies_;  // [head_dim / 2]
  std::vector<float> cos_, sin_;            // [positions, head_dim / 2]
  int64_t half_ = 0;
  int64_t positions_ = 0;
  bool bf16_ = false;
};

}  // namespace plumbline
