#include "services/quantsim/simulator.h"

#include <algorithm>
#include <atomic>
#include <cstring>
#include <optional>
#include <thread>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "services/common/status_macros.h"
#include "services/quant/plan_parser.h"
#include "services/quantsim/attention_error.h"
#include "services/quantsim/tensor_error.h"

namespace plumbline {
namespace {

constexpr unsigned kMaxThreads = 16;

std::vector<float> Floats(const std::string& bytes) {
  std::vector<float> values(bytes.size() / sizeof(float));
  memcpy(values.data(), bytes.data(), values.size() * sizeof(float));
  return values;
}

absl::StatusOr<const Calibration*> CalibrationFor(const SimulationOptions& options,
                                                  const TensorFormat& format, uint32_t layer,
                                                  bool keys) {
  if (format.scope != Scope::kCalibrated) return nullptr;
  if (keys && format.place == RopePlace::kPostRope) {
    return absl::InvalidArgumentError(
        absl::StrCat("format '", FormatText(format), "' is calibrated after RoPE, but a capture's ",
                     "statistics are taken before it: use place pre"));
  }
  const auto found = options.calibrations.find({format.calibration_digest, layer});
  if (found == options.calibrations.end()) {
    return absl::InvalidArgumentError(absl::StrCat("the capture ", format.calibration_digest,
                                                   " of format '", FormatText(format),
                                                   "' has no statistics of layer ", layer));
  }
  return keys ? &found->second.keys : &found->second.values;
}

// The rows as they lie in the cache after a prompt of exactly these rows.
absl::StatusOr<std::vector<float>> Stored(const TensorFormat& format, const TensorShape& shape,
                                          const Calibration* calibration,
                                          const std::vector<float>& rows) {
  std::vector<float> stored = rows;
  if (format.is_fp()) return stored;
  PLUMB_ASSIGN_OR_RETURN(auto quantizer, TensorQuantizer::Create(format, shape, calibration));
  quantizer->Append(stored.data(), 0, static_cast<int64_t>(rows.size()) / shape.flat_channels(),
                    Phase::kPromptLast);
  return stored;
}

// One (format, layer) on its way through the prompts.
class LayerRun {
 public:
  LayerRun(const SimulationOptions& options, const LayerFormat& format)
      : options_(options),
        format_(format),
        shape_{static_cast<int32_t>(options.header.num_kv_heads()),
               static_cast<int32_t>(options.header.head_dim()), KvDtype::kF32},
        rotation_(options.header.rope_inverse_frequency().begin(),
                  options.header.rope_inverse_frequency().end()),
        keys_(shape_.kv_heads, shape_.head_dim),
        values_(shape_.kv_heads, shape_.head_dim),
        attention_(
            {static_cast<int32_t>(options.header.num_heads()), shape_.kv_heads, shape_.head_dim}) {}

  absl::Status Bind(uint32_t layer) {
    post_rope_ = !format_.key.is_fp() && format_.key.place == RopePlace::kPostRope;
    if (post_rope_ && rotation_.empty()) {
      return absl::InvalidArgumentError(
          absl::StrCat("format '", FormatText(format_.key), "' quantizes keys after RoPE, but the ",
                       "capture's header carries no rope_inverse_frequency"));
    }
    PLUMB_ASSIGN_OR_RETURN(key_calibration_, CalibrationFor(options_, format_.key, layer, true));
    PLUMB_ASSIGN_OR_RETURN(value_calibration_,
                           CalibrationFor(options_, format_.value, layer, false));
    return absl::OkStatus();
  }

  absl::Status Add(const v1::ActivationBlock& block) {
    std::vector<float> keys = Floats(block.keys());
    const std::vector<float> values = Floats(block.values());
    if (post_rope_) RotateRows(rotation_, shape_.kv_heads, shape_.head_dim, &keys);
    PLUMB_ASSIGN_OR_RETURN(std::vector<float> stored_keys,
                           Stored(format_.key, shape_, key_calibration_, keys));
    PLUMB_ASSIGN_OR_RETURN(std::vector<float> stored_values,
                           Stored(format_.value, shape_, value_calibration_, values));
    keys_.Add(keys, stored_keys);
    values_.Add(values, stored_values);
    tokens_ += block.tokens();
    if (block.queries().empty()) return absl::OkStatus();
    std::vector<float> queries = Floats(block.queries());
    RotateRows(rotation_, static_cast<int32_t>(options_.header.num_heads()), shape_.head_dim,
               &queries);
    if (!post_rope_) {
      RotateRows(rotation_, shape_.kv_heads, shape_.head_dim, &keys);
      RotateRows(rotation_, shape_.kv_heads, shape_.head_dim, &stored_keys);
    }
    attention_.Add(queries, keys, values, stored_keys, stored_values);
    return absl::OkStatus();
  }

  v1::FormatError Result(const std::string& text, uint32_t layer) const {
    std::vector<bool> outliers(static_cast<size_t>(shape_.flat_channels()));
    for (uint32_t channel : options_.outlier_channels) outliers[channel] = true;
    v1::FormatError error;
    error.set_format(text);
    error.set_layer(layer);
    *error.mutable_keys() = keys_.Result(outliers, options_.per_channel);
    *error.mutable_values() = values_.Result(outliers, options_.per_channel);
    error.set_attention_score_relative_mse(attention_.score_relative_mse());
    error.set_attention_output_relative_mse(attention_.output_relative_mse());
    error.set_tokens(tokens_);
    return error;
  }

 private:
  const SimulationOptions& options_;
  const LayerFormat& format_;
  const TensorShape shape_;
  const std::vector<double> rotation_;
  TensorErrorSum keys_;
  TensorErrorSum values_;
  AttentionErrorSum attention_;
  bool post_rope_ = false;
  const Calibration* key_calibration_ = nullptr;
  const Calibration* value_calibration_ = nullptr;
  uint64_t tokens_ = 0;
};

}  // namespace

absl::StatusOr<LayerFormat> ParseFormatPair(const std::string& text, bool paper_quirks) {
  const std::vector<std::string> parts = absl::StrSplit(text, '|');
  if (parts.size() > 2) {
    return absl::InvalidArgumentError(
        absl::StrCat("a format is 'format' or 'keys|values', got '", text, "'"));
  }
  LayerFormat format;
  const PlanParseOptions options{.paper_quirks = paper_quirks};
  PLUMB_ASSIGN_OR_RETURN(format.key, ParseFormat(parts.front(), options));
  PLUMB_ASSIGN_OR_RETURN(format.value, ParseFormat(parts.back(), options));
  return format;
}

absl::StatusOr<v1::FormatError> SimulateLayer(const SimulationOptions& options,
                                              const std::string& format_text,
                                              const LayerFormat& format, uint32_t layer,
                                              const std::vector<v1::ActivationBlock>& blocks) {
  LayerRun run(options, format);
  PLUMB_RETURN_IF_ERROR(run.Bind(layer));
  for (const v1::ActivationBlock& block : blocks) {
    if (options.cancelled && options.cancelled()) {
      return absl::CancelledError("the caller went away");
    }
    const absl::Status status = run.Add(block);
    if (!status.ok()) return Annotate(status, absl::StrCat("format '", format_text, "'"));
  }
  return run.Result(format_text, layer);
}

absl::StatusOr<std::vector<v1::FormatError>> SimulateFormats(
    const SimulationOptions& options, const std::vector<std::string>& texts,
    const std::vector<LayerFormat>& formats, uint32_t layer,
    const std::vector<v1::ActivationBlock>& blocks) {
  std::vector<absl::StatusOr<v1::FormatError>> results(
      formats.size(), absl::StatusOr<v1::FormatError>(absl::InternalError("not run")));
  std::atomic<size_t> next{0};
  const auto work = [&] {
    for (size_t i = next++; i < formats.size(); i = next++) {
      results[i] = SimulateLayer(options, texts[i], formats[i], layer, blocks);
    }
  };
  const size_t count = std::min<size_t>(
      {formats.size(), kMaxThreads, std::max(1u, std::thread::hardware_concurrency())});
  std::vector<std::thread> threads;
  for (size_t i = 1; i < count; ++i) threads.emplace_back(work);
  work();
  for (std::thread& thread : threads) thread.join();
  std::vector<v1::FormatError> errors;
  for (auto& result : results) {
    if (!result.ok()) return result.status();
    errors.push_back(*std::move(result));
  }
  return errors;
}

}  // namespace plumbline
