#include "services/quantsim/tensor_error.h"

#include <algorithm>
#include <cassert>
#include <cmath>
#include <limits>

namespace plumbline {

double RelativeError(double error, double energy) {
  if (energy > 0 || std::isnan(error)) return error / energy;
  return error > 0 ? std::numeric_limits<double>::infinity() : 0;
}

TensorErrorSum::TensorErrorSum(int32_t kv_heads, int32_t head_dim)
    : kv_heads_(kv_heads),
      head_dim_(head_dim),
      error_(static_cast<size_t>(kv_heads) * head_dim),
      energy_(error_.size()) {}

void TensorErrorSum::Add(const std::vector<float>& original, const std::vector<float>& stored) {
  const size_t channels = error_.size();
  assert(channels > 0 && original.size() % channels == 0);
  for (size_t row = 0; row + channels <= original.size(); row += channels) {
    for (size_t c = 0; c < channels; ++c) {
      const double value = original[row + c];
      const double difference = static_cast<double>(stored[row + c]) - value;
      error_[c] += difference * difference;
      energy_[c] += value * value;
      // Written so that a NaN stays: a format that makes NaN must not look harmless.
      if (!(std::fabs(difference) <= max_abs_)) max_abs_ = std::fabs(difference);
    }
  }
  elements_ += static_cast<int64_t>(original.size());
}

v1::TensorError TensorErrorSum::Result(const std::vector<bool>& outliers, bool per_channel) const {
  v1::TensorError result;
  double error = 0, energy = 0, inner_error = 0, inner_energy = 0;
  std::vector<double> head_error(static_cast<size_t>(kv_heads_)), head_energy(head_error.size());
  for (size_t c = 0; c < error_.size(); ++c) {
    const size_t head = c / static_cast<size_t>(head_dim_);
    error += error_[c];
    energy += energy_[c];
    head_error[head] += error_[c];
    head_energy[head] += energy_[c];
    if (outliers.empty() || !outliers[c]) {
      inner_error += error_[c];
      inner_energy += energy_[c];
    }
    if (per_channel) result.add_channel_relative_mse(RelativeError(error_[c], energy_[c]));
  }
  result.set_mse(elements_ == 0 ? 0 : error / static_cast<double>(elements_));
  result.set_relative_mse(RelativeError(error, energy));
  result.set_relative_mse_without_outliers(RelativeError(inner_error, inner_energy));
  result.set_max_abs(max_abs_);
  for (size_t h = 0; h < head_error.size(); ++h) {
    result.add_head_relative_mse(RelativeError(head_error[h], head_energy[h]));
  }
  return result;
}

}  // namespace plumbline
