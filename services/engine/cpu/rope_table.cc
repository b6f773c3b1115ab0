#include "services/engine/cpu/rope_table.h"

#include <ATen/ATen.h>

#include <cmath>

#include "absl/strings/str_cat.h"

namespace plumbline {
namespace {

constexpr double kPi = 3.14159265358979323846;

std::vector<float> ToVector(const at::Tensor& tensor) {
  const at::Tensor dense = tensor.contiguous();
  const float* data = dense.const_data_ptr<float>();
  return std::vector<float>(data, data + dense.numel());
}

// Llama 3's rule: long wavelengths are stretched by `factor`, short ones kept, those between
// blended.
at::Tensor ScaleLlama3(const at::Tensor& inverse, const RopeScaling& scaling) {
  const double low_wavelength = scaling.original_max_position / scaling.low_freq_factor;
  const double high_wavelength = scaling.original_max_position / scaling.high_freq_factor;
  const at::Tensor wavelength = (2 * kPi) / inverse;
  at::Tensor scaled = at::where(wavelength > low_wavelength, inverse / scaling.factor, inverse);
  const at::Tensor blend = (scaling.original_max_position / wavelength - scaling.low_freq_factor) /
                           (scaling.high_freq_factor - scaling.low_freq_factor);
  const at::Tensor smoothed = (1 - blend) * scaled / scaling.factor + blend * scaled;
  const at::Tensor between = (wavelength >= high_wavelength) * (wavelength <= low_wavelength);
  return at::where(between, smoothed, scaled);
}

}  // namespace

absl::StatusOr<RopeTable> RopeTable::Create(const ModelConfig& config, bool bf16) {
  if (config.head_dim % 2 != 0) {
    return absl::InvalidArgumentError(
        absl::StrCat("config.json: head_dim must be even for RoPE, got ", config.head_dim));
  }
  RopeTable table;
  table.half_ = config.head_dim / 2;
  table.bf16_ = bf16;
  const at::InferenceMode guard;
  const at::Tensor exponents =
      at::arange(0, config.head_dim, 2, at::kLong).to(at::kFloat) / config.head_dim;
  at::Tensor inverse = 1.0 / at::pow(config.rope_theta, exponents);
  if (config.rope_scaling.type == "llama3") {
    inverse = ScaleLlama3(inverse, config.rope_scaling);
  } else if (!config.rope_scaling.type.empty()) {
    return absl::InvalidArgumentError(absl::StrCat("config.json: rope_scaling type '",
                                                   config.rope_scaling.type,
                                                   "' is not supported, llama3 is"));
  }
  table.inverse_frequencies_ = ToVector(inverse);
  return table;
}

void RopeTable::Extend(int64_t positions) {
  constexpr int64_t kBlock = 1024;
  positions = (positions + kBlock - 1) / kBlock * kBlock;
  if (positions <= positions_) return;
  const at::InferenceMode guard;
  const at::Tensor inverse = at::from_blob(inverse_frequencies_.data(), {1, half_}, at::kFloat);
  const at::Tensor angles =
      at::arange(positions_, positions, at::kLong).to(at::kFloat).unsqueeze(1) * inverse;
  for (auto [rows, values] :
       {std::pair(&cos_, at::cos(angles)), std::pair(&sin_, at::sin(angles))}) {
    if (bf16_) values = values.to(at::kBFloat16).to(at::kFloat);
    const std::vector<float> added = ToVector(values);
    rows->insert(rows->end(), added.begin(), added.end());
  }
  positions_ = positions;
}

}  // namespace plumbline
