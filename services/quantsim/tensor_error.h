// The error of a stored tensor against the original, summed in double, channel by channel.
#pragma once

#include <cstdint>
#include <vector>

#include "plumbline/v1/quantsim.pb.h"

namespace plumbline {

class TensorErrorSum {
 public:
  TensorErrorSum(int32_t kv_heads, int32_t head_dim);

  // Both [tokens, kv_heads, head_dim].
  void Add(const std::vector<float>& original, const std::vector<float>& stored);

  // outliers: flat channels left out of relative_mse_without_outliers; within range.
  v1::TensorError Result(const std::vector<bool>& outliers, bool per_channel) const;

 private:
  int32_t kv_heads_;
  int32_t head_dim_;
  std::vector<double> error_;   // [channels] sum of (stored - original)^2
  std::vector<double> energy_;  // [channels] sum of original^2
  double max_abs_ = 0;
  int64_t elements_ = 0;
};

// error / energy; 0 for 0 / 0, infinite when only the energy is 0.
double RelativeError(double error, double energy);

}  // namespace plumbline
