#include "services/quant/tensor_quantizer.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <utility>

#include "absl/strings/str_cat.h"
#include "kernels/quantize.h"
#include "services/common/status_macros.h"
#include "services/quant/format_rules.h"
#include "services/quant/quant_layout.h"

namespace plumbline {
namespace {

// Lanes handled at once: small enough for the second-level cache.
constexpr int64_t kScratchLanes = 16384;

// Working memory of one thread, shared by all its quantizers; it only ever grows.
struct Scratch {
  std::vector<float> lanes, lo, hi, scale, zero;
  std::vector<uint8_t> codes;

  static Scratch& Get(int64_t lanes, int64_t parameters) {
    thread_local Scratch scratch;
    if (static_cast<int64_t>(scratch.lanes.size()) < lanes) {
      scratch.lanes.resize(lanes);
      scratch.codes.resize(lanes);
    }
    if (static_cast<int64_t>(scratch.lo.size()) < parameters) {
      for (auto* v : {&scratch.lo, &scratch.hi, &scratch.scale, &scratch.zero}) {
        v->resize(parameters);
      }
    }
    return scratch;
  }
};

class FpQuantizer final : public TensorQuantizer {
 public:
  explicit FpQuantizer(int64_t channels) : channels_(channels) {}
  RowRange Append(void*, int64_t first, int64_t tokens, Phase) override {
    total_ += tokens * channels_;
    return {first, first + tokens};
  }
  void Adopt(int64_t tokens) override { total_ += tokens * channels_; }
  void SetObserver(QuantObserver*) override {}
  int64_t elements_total() const override { return total_; }
  int64_t elements_quantized() const override { return 0; }

 private:
  const int64_t channels_;
  int64_t total_ = 0;
};

class LaneQuantizer final : public TensorQuantizer {
 public:
  LaneQuantizer(const TensorFormat& format, const TensorShape& shape)
      : format_(format),
        shape_(shape),
        spec_(SpecOf(format, shape.dtype)),
        tables_(format, shape),
        layout_(tables_.Layout()),
        chunk_tokens_(std::max<int64_t>(1, kScratchLanes / layout_.lanes)),
        done_(format.sink_tokens) {}

  void Freeze(const GroupRanges& ranges);

  RowRange Append(void* rows, int64_t first, int64_t tokens, Phase phase) override;
  void Adopt(int64_t tokens) override;
  void SetObserver(QuantObserver* observer) override { observer_ = observer; }
  int64_t elements_total() const override { return total_tokens_ * shape_.flat_channels(); }
  int64_t elements_quantized() const override { return quantized_tokens_ * layout_.lanes; }

  const LaneTables& tables() const { return tables_; }

 private:
  struct Parameters {
    float* scale;
    float* zero;
  };

  void QuantizeRange(void* rows, int64_t begin, int64_t end, Phase phase);
  void QuantizePerToken(void* rows, int64_t begin, int64_t end);
  void QuantizeTogether(void* rows, int64_t begin, int64_t end);
  void Accumulate(void* rows, int64_t begin, int64_t end, Scratch* scratch);
  void ApplyFrozen(void* rows, int64_t begin, int64_t end);

  void Load(const void* rows, int64_t begin, int64_t tokens, float* lanes) const;
  void Store(int64_t begin, int64_t tokens, Parameters parameters, bool new_parameters,
             Scratch* scratch, void* rows);
  Scratch& GetScratch() const {
    const int64_t parameters = std::max<int64_t>(chunk_tokens_, 1) * layout_.groups;
    return Scratch::Get(chunk_tokens_ * layout_.lanes, parameters);
  }
  int64_t row_bytes() const { return shape_.flat_channels() * KvDtypeBytes(shape_.dtype); }

  const TensorFormat format_;
  const TensorShape shape_;
  const QuantSpec spec_;
  const LaneTables tables_;
  const QuantLayout layout_;
  const int64_t chunk_tokens_;
  QuantObserver* observer_ = nullptr;
  std::vector<float> frozen_scale_, frozen_zero_;  // scopes prompt and calibrated, once known
  bool frozen_reported_ = false;
  int64_t done_;  // rows before it are sinks or quantized
  int64_t total_tokens_ = 0;
  int64_t quantized_tokens_ = 0;
};

void LaneQuantizer::Freeze(const GroupRanges& ranges) {
  frozen_scale_.resize(layout_.groups);
  frozen_zero_.resize(layout_.groups);
  ComputeParameters(spec_, layout_.groups, ranges.lo.data(), ranges.hi.data(), frozen_scale_.data(),
                    frozen_zero_.data());
}

RowRange LaneQuantizer::Append(void* rows, int64_t first, int64_t tokens, Phase phase) {
  total_tokens_ += tokens;
  const int64_t begin = done_;
  const int64_t end = format_.sink_tokens + QuantizedTokens(format_, first + tokens);
  if (end <= begin) return {first, first + tokens};
  QuantizeRange(rows, begin, end, phase);
  quantized_tokens_ += end - begin;
  done_ = end;
  return {std::min(begin, first), first + tokens};
}

void LaneQuantizer::Adopt(int64_t tokens) {
  total_tokens_ += tokens;
  if (tokens <= done_) return;
  quantized_tokens_ += tokens - done_;
  done_ = tokens;
}

void LaneQuantizer::QuantizeRange(void* rows, int64_t begin, int64_t end, Phase phase) {
  if (layout_.tokens_per_block == 1) return QuantizePerToken(rows, begin, end);
  switch (format_.scope) {
    case Scope::kWindow: {
      const int64_t block = format_.window_flush > 0 ? format_.window_flush : 1;
      for (int64_t t = begin; t < end; t += block) QuantizeTogether(rows, t, t + block);
      return;
    }
    case Scope::kStep:
      if (phase == Phase::kPromptLast) return QuantizeTogether(rows, begin, end);
      for (int64_t t = begin; t < end; ++t) QuantizeTogether(rows, t, t + 1);
      return;
    case Scope::kPrompt:
      if (frozen_scale_.empty()) {
        Scratch& scratch = GetScratch();
        Accumulate(rows, begin, end, &scratch);
        const int64_t n = layout_.groups;
        Freeze({.lo = {scratch.lo.begin(), scratch.lo.begin() + n},
                .hi = {scratch.hi.begin(), scratch.hi.begin() + n}});
      }
      return ApplyFrozen(rows, begin, end);
    case Scope::kCalibrated:
      return ApplyFrozen(rows, begin, end);
  }
}

void LaneQuantizer::QuantizePerToken(void* rows, int64_t begin, int64_t end) {
  Scratch& s = GetScratch();
  for (int64_t t = begin; t < end; t += chunk_tokens_) {
    const int64_t tokens = std::min(chunk_tokens_, end - t);
    const int64_t count = ParameterCount(layout_, tokens);
    Load(rows, t, tokens, s.lanes.data());
    ResetStatistics(count, s.lo.data(), s.hi.data());
    AccumulateStatistics(spec_, layout_, s.lanes.data(), tokens, s.lo.data(), s.hi.data());
    ComputeParameters(spec_, count, s.lo.data(), s.hi.data(), s.scale.data(), s.zero.data());
    Store(t, tokens, {s.scale.data(), s.zero.data()}, true, &s, rows);
  }
}

void LaneQuantizer::Accumulate(void* rows, int64_t begin, int64_t end, Scratch* s) {
  ResetStatistics(layout_.groups, s->lo.data(), s->hi.data());
  for (int64_t t = begin; t < end; t += chunk_tokens_) {
    const int64_t tokens = std::min(chunk_tokens_, end - t);
    Load(rows, t, tokens, s->lanes.data());
    AccumulateStatistics(spec_, layout_, s->lanes.data(), tokens, s->lo.data(), s->hi.data());
  }
}

void LaneQuantizer::QuantizeTogether(void* rows, int64_t begin, int64_t end) {
  Scratch& s = GetScratch();
  Accumulate(rows, begin, end, &s);
  ComputeParameters(spec_, layout_.groups, s.lo.data(), s.hi.data(), s.scale.data(), s.zero.data());
  for (int64_t t = begin; t < end; t += chunk_tokens_) {
    const int64_t tokens = std::min(chunk_tokens_, end - t);
    // A range that fits one chunk is still loaded from the statistics pass.
    if (end - begin > chunk_tokens_) Load(rows, t, tokens, s.lanes.data());
    Store(t, tokens, {s.scale.data(), s.zero.data()}, t == begin, &s, rows);
  }
}

void LaneQuantizer::ApplyFrozen(void* rows, int64_t begin, int64_t end) {
  Scratch& s = GetScratch();
  for (int64_t t = begin; t < end; t += chunk_tokens_) {
    const int64_t tokens = std::min(chunk_tokens_, end - t);
    Load(rows, t, tokens, s.lanes.data());
    Store(t, tokens, {frozen_scale_.data(), frozen_zero_.data()}, !frozen_reported_, &s, rows);
    frozen_reported_ = true;
  }
}

void LaneQuantizer::Load(const void* rows, int64_t begin, int64_t tokens, float* lanes) const {
  GatherLanes(layout_, spec_.element, static_cast<const char*>(rows) + begin * row_bytes(),
              shape_.flat_channels(), tokens, lanes);
  if (format_.hadamard) {
    RotateLanes(spec_, shape_.head_dim, tokens * (layout_.lanes / shape_.head_dim), lanes);
  }
}

void LaneQuantizer::Store(int64_t begin, int64_t tokens, Parameters parameters, bool new_parameters,
                          Scratch* s, void* rows) {
  uint8_t* codes = observer_ == nullptr ? nullptr : s->codes.data();
  RoundTrip(spec_, layout_, tokens, parameters.scale, parameters.zero, s->lanes.data(), codes);
  if (observer_ != nullptr) {
    observer_->OnBlock({.first_token = begin,
                        .tokens = tokens,
                        .lanes = layout_.lanes,
                        .codes = codes,
                        .new_parameters = new_parameters,
                        .groups = layout_.groups,
                        .group_begin = layout_.group_begin,
                        .parameters = ParameterCount(layout_, tokens),
                        .scale = parameters.scale,
                        .zero = HasZero(spec_) ? parameters.zero : nullptr});
  }
  if (format_.hadamard) {
    RotateLanes(spec_, shape_.head_dim, tokens * (layout_.lanes / shape_.head_dim),
                s->lanes.data());
  }
  ScatterLanes(layout_, spec_.element, s->lanes.data(), tokens,
               static_cast<char*>(rows) + begin * row_bytes(), shape_.flat_channels());
}

absl::Status CheckCalibration(const Calibration* calibration, const TensorShape& shape) {
  if (calibration == nullptr) {
    return absl::InvalidArgumentError("a calibrated format without the capture's statistics");
  }
  for (const auto* list :
       {&calibration->channel_absmax, &calibration->channel_min, &calibration->channel_max}) {
    if (static_cast<int64_t>(list->size()) != shape.flat_channels()) {
      return absl::InvalidArgumentError(absl::StrCat(
          "calibration of ", list->size(), " channels for a tensor of ", shape.flat_channels()));
    }
    const auto bad =
        std::find_if(list->begin(), list->end(), [](float v) { return !std::isfinite(v); });
    if (bad != list->end()) {
      return absl::InvalidArgumentError(absl::StrCat("calibration of channel ", bad - list->begin(),
                                                     " is ", *bad, ", not a finite number"));
    }
  }
  return absl::OkStatus();
}

}  // namespace

absl::StatusOr<std::unique_ptr<TensorQuantizer>> TensorQuantizer::Create(
    const TensorFormat& format, const TensorShape& shape, const Calibration* calibration) {
  if (shape.kv_heads < 1 || shape.head_dim < 1 ||
      shape.flat_channels() > std::numeric_limits<int32_t>::max()) {
    return absl::InvalidArgumentError(
        absl::StrCat("a tensor of ", shape.kv_heads, " heads of ", shape.head_dim, " channels"));
  }
  PLUMB_RETURN_IF_ERROR(CheckFormat(format, /*paper_quirks=*/true));
  if (format.is_fp()) return std::make_unique<FpQuantizer>(shape.flat_channels());
  const TensorFormat normal = NormalizedFormat(format, TensorRole::kKey);
  PLUMB_RETURN_IF_ERROR(Annotate(CheckFits(normal, shape.kv_heads, shape.head_dim),
                                 absl::StrCat("format '", FormatText(normal), "'")));
  if (normal.scope == Scope::kCalibrated) {
    PLUMB_RETURN_IF_ERROR(CheckCalibration(calibration, shape));
  }
  auto quantizer = std::make_unique<LaneQuantizer>(normal, shape);
  if (normal.scope == Scope::kCalibrated) {
    quantizer->Freeze(
        CalibratedRanges(*calibration, SpecOf(normal, shape.dtype), quantizer->tables()));
  }
  return quantizer;
}

}  // namespace plumbline
