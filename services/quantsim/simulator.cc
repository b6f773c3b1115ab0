#include "services/quantsim/simulator.h"

#include <algorithm>
#include <cstring>
#include <deque>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "services/common/parallel.h"
#include "services/common/status_macros.h"
#include "services/quant/plan_parser.h"
#include "services/quantsim/attention_error.h"
#include "services/quantsim/tensor_error.h"

namespace plumbline {
namespace {

// Each holds a prompt's keys and values while it is compared.
constexpr size_t kFormatsAtOnce = 16;

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

// A captured prompt as the formats find it: what no format changes.
struct Prompt {
  std::vector<float> keys, values;
  std::vector<float> rotated_keys;  // = keys where the capture carries no rotation
  std::vector<float> queries;       // rotated; empty where none were captured
};

// One (format, layer) on its way through the prompts.
class FormatRun {
 public:
  FormatRun(const SimulationOptions& options, const LayerFormat& format, const TensorShape& shape)
      : options_(options),
        format_(format),
        shape_(shape),
        post_rope_(!format.key.is_fp() && format.key.place == RopePlace::kPostRope),
        keys_(shape.kv_heads, shape.head_dim),
        values_(shape.kv_heads, shape.head_dim) {}

  absl::Status Bind(uint32_t layer) {
    if (post_rope_ && options_.header.rope_inverse_frequency().empty()) {
      return absl::InvalidArgumentError(
          absl::StrCat("format '", FormatText(format_.key), "' quantizes keys after RoPE, but the ",
                       "capture's header carries no rope_inverse_frequency"));
    }
    PLUMB_ASSIGN_OR_RETURN(key_calibration_, CalibrationFor(options_, format_.key, layer, true));
    PLUMB_ASSIGN_OR_RETURN(value_calibration_,
                           CalibrationFor(options_, format_.value, layer, false));
    return absl::OkStatus();
  }

  // Stores the prompt and adds up the error of its keys and values.
  absl::Status Store(const Prompt& prompt, const std::vector<double>& rotation) {
    const std::vector<float>& keys = post_rope_ ? prompt.rotated_keys : prompt.keys;
    PLUMB_ASSIGN_OR_RETURN(stored_keys_, Stored(format_.key, shape_, key_calibration_, keys));
    PLUMB_ASSIGN_OR_RETURN(stored_values_,
                           Stored(format_.value, shape_, value_calibration_, prompt.values));
    keys_.Add(keys, stored_keys_);
    values_.Add(prompt.values, stored_values_);
    if (!post_rope_) RotateRows(rotation, shape_.kv_heads, shape_.head_dim, &stored_keys_);
    return absl::OkStatus();
  }

  // The prompt stored last, as attention reads it.
  AttendedRows stored() const { return {&stored_keys_, &stored_values_}; }
  void Add(const AttentionError& error) { attention_.Add(error); }

  v1::FormatError Result(const std::vector<bool>& outliers) const {
    v1::FormatError error;
    *error.mutable_keys() = keys_.Result(outliers, options_.per_channel);
    *error.mutable_values() = values_.Result(outliers, options_.per_channel);
    error.set_attention_score_relative_mse(attention_.score_relative_mse());
    error.set_attention_output_relative_mse(attention_.output_relative_mse());
    return error;
  }

 private:
  const SimulationOptions& options_;
  const LayerFormat& format_;
  const TensorShape shape_;
  const bool post_rope_;
  const Calibration* key_calibration_ = nullptr;
  const Calibration* value_calibration_ = nullptr;
  std::vector<float> stored_keys_, stored_values_;
  TensorErrorSum keys_;
  TensorErrorSum values_;
  AttentionError attention_;
};

// Some formats on one layer, prompt by prompt: what they share is computed once.
class LayerRun {
 public:
  explicit LayerRun(const SimulationOptions& options)
      : options_(options),
        shape_{static_cast<int32_t>(options.header.num_kv_heads()),
               static_cast<int32_t>(options.header.head_dim()), KvDtype::kF32},
        heads_(static_cast<int32_t>(options.header.num_heads())),
        rotation_(options.header.rope_inverse_frequency().begin(),
                  options.header.rope_inverse_frequency().end()) {}

  absl::Status Bind(const std::string& text, const LayerFormat& format, uint32_t layer) {
    texts_.push_back(text);
    runs_.emplace_back(options_, format, shape_);
    return Named(runs_.size() - 1, runs_.back().Bind(layer));
  }

  absl::Status Add(const v1::ActivationBlock& block) {
    Prompt prompt{.keys = Floats(block.keys()), .values = Floats(block.values())};
    prompt.rotated_keys = prompt.keys;
    RotateRows(rotation_, shape_.kv_heads, shape_.head_dim, &prompt.rotated_keys);
    PLUMB_RETURN_IF_ERROR(StoreAll(prompt));
    tokens_ += block.tokens();
    if (block.queries().empty()) return absl::OkStatus();
    prompt.queries = Floats(block.queries());
    RotateRows(rotation_, heads_, shape_.head_dim, &prompt.queries);
    std::vector<AttendedRows> stored;
    for (const FormatRun& run : runs_) stored.push_back(run.stored());
    const std::vector<AttentionError> errors =
        AttentionErrors({heads_, shape_.kv_heads, shape_.head_dim}, prompt.queries,
                        {&prompt.rotated_keys, &prompt.values}, stored);
    for (size_t i = 0; i < runs_.size(); ++i) runs_[i].Add(errors[i]);
    return absl::OkStatus();
  }

  void Results(uint32_t layer, std::vector<v1::FormatError>* results) const {
    std::vector<bool> outliers(static_cast<size_t>(shape_.flat_channels()));
    for (uint32_t channel : options_.outlier_channels) outliers[channel] = true;
    for (size_t i = 0; i < runs_.size(); ++i) {
      v1::FormatError error = runs_[i].Result(outliers);
      error.set_format(texts_[i]);
      error.set_layer(layer);
      error.set_tokens(tokens_);
      results->push_back(std::move(error));
    }
  }

 private:
  absl::Status Named(size_t run, const absl::Status& status) const {
    return status.ok() ? status : Annotate(status, absl::StrCat("format '", texts_[run], "'"));
  }

  absl::Status StoreAll(const Prompt& prompt) {
    std::vector<absl::Status> statuses(runs_.size());
    ParallelFor(static_cast<int64_t>(runs_.size()), 1, [&](int64_t begin, int64_t end) {
      for (int64_t i = begin; i < end; ++i) {
        const auto run = static_cast<size_t>(i);
        statuses[run] = Named(run, runs_[run].Store(prompt, rotation_));
      }
    });
    for (const absl::Status& status : statuses) PLUMB_RETURN_IF_ERROR(status);
    return absl::OkStatus();
  }

  const SimulationOptions& options_;
  const TensorShape shape_;
  const int32_t heads_;
  const std::vector<double> rotation_;
  std::vector<std::string> texts_;
  std::deque<FormatRun> runs_;
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

absl::StatusOr<std::vector<v1::FormatError>> SimulateFormats(
    const SimulationOptions& options, const std::vector<std::string>& texts,
    const std::vector<LayerFormat>& formats, uint32_t layer,
    const std::vector<v1::ActivationBlock>& blocks) {
  std::vector<v1::FormatError> errors;
  for (size_t first = 0; first < formats.size(); first += kFormatsAtOnce) {
    LayerRun run(options);
    for (size_t i = first; i < std::min(first + kFormatsAtOnce, formats.size()); ++i) {
      PLUMB_RETURN_IF_ERROR(run.Bind(texts[i], formats[i], layer));
    }
    for (const v1::ActivationBlock& block : blocks) {
      if (options.cancelled && options.cancelled()) {
        return absl::CancelledError("the caller went away");
      }
      PLUMB_RETURN_IF_ERROR(run.Add(block));
    }
    run.Results(layer, &errors);
  }
  return errors;
}

}  // namespace plumbline
