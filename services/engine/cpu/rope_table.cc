#include "services/engine/cpu/rope_table.h"

#include <cmath>

#include "absl/strings/str_cat.h"
#include "kernels/bf16.h"

namespace plumbline {
namespace {

constexpr float kTwoPi = 6.28318530717958647692f;

// Llama 3's rule: long wavelengths are stretched by `factor`, short ones kept, those between
// blended.
float ScaleLlama3(float inverse, const RopeScaling& scaling) {
  const float original = static_cast<float>(scaling.original_max_position);
  const float factor = static_cast<float>(scaling.factor);
  const float low = static_cast<float>(scaling.low_freq_factor);
  const float high = static_cast<float>(scaling.high_freq_factor);
  const float wavelength = kTwoPi / inverse;
  if (wavelength > original / low) return inverse / factor;
  if (wavelength < original / high) return inverse;
  const float blend = (original / wavelength - low) / (high - low);
  return (1 - blend) * inverse / factor + blend * inverse;
}

}  // namespace

absl::StatusOr<RopeTable> RopeTable::Create(const ModelConfig& config, bool bf16) {
  if (config.head_dim % 2 != 0) {
    return absl::InvalidArgumentError(
        absl::StrCat("config.json: head_dim must be even for RoPE, got ", config.head_dim));
  }
  const std::string& scaling = config.rope_scaling.type;
  if (!scaling.empty() && scaling != "llama3") {
    return absl::InvalidArgumentError(
        absl::StrCat("config.json: rope_scaling type '", scaling, "' is not supported, llama3 is"));
  }
  RopeTable table;
  table.half_ = config.head_dim / 2;
  table.bf16_ = bf16;
  for (int i = 0; i < config.head_dim; i += 2) {
    const float exponent = static_cast<float>(i) / static_cast<float>(config.head_dim);
    const float inverse = 1.0f / static_cast<float>(std::pow(config.rope_theta, double{exponent}));
    table.inverse_frequencies_.push_back(
        scaling.empty() ? inverse : ScaleLlama3(inverse, config.rope_scaling));
  }
  return table;
}

void RopeTable::Extend(int64_t positions) {
  constexpr int64_t kBlock = 1024;
  positions = (positions + kBlock - 1) / kBlock * kBlock;
  const auto rounded = [this](double value) {
    const float single = static_cast<float>(value);
    return bf16_ ? kernels::ToFloat(kernels::ToBf16(single)) : single;
  };
  for (; positions_ < positions; ++positions_) {
    for (float inverse : inverse_frequencies_) {
      const float angle = static_cast<float>(positions_) * inverse;
      cos_.push_back(rounded(std::cos(double{angle})));
      sin_.push_back(rounded(std::sin(double{angle})));
    }
  }
}

}  // namespace plumbline
