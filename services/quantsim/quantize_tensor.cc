// QuantizeOneTensor: codes and parameters of one tensor.
#include <algorithm>
#include <cstring>
#include <set>

#include "absl/strings/str_cat.h"
#include "kernels/float_formats.h"
#include "services/common/status_macros.h"
#include "services/quant/plan_parser.h"
#include "services/quantsim/simulator.h"

namespace plumbline {
namespace {

constexpr uint32_t kMaxHeads = 1024;
constexpr uint32_t kMaxHeadDim = 1024;
constexpr uint32_t kMaxTokens = 1 << 20;

absl::Status CheckShape(const v1::QuantizeTensorRequest& request) {
  const auto range = [](absl::string_view field, uint32_t value, uint32_t most) {
    return value >= 1 && value <= most ? absl::OkStatus()
                                       : absl::InvalidArgumentError(absl::StrCat(
                                             field, " must be 1..", most, ", got ", value));
  };
  PLUMB_RETURN_IF_ERROR(range("tokens", request.tokens(), kMaxTokens));
  PLUMB_RETURN_IF_ERROR(range("kv_heads", request.kv_heads(), kMaxHeads));
  PLUMB_RETURN_IF_ERROR(range("head_dim", request.head_dim(), kMaxHeadDim));
  const uint64_t wanted = uint64_t{request.tokens()} * request.kv_heads() * request.head_dim() * 4;
  if (request.values().size() == wanted) return absl::OkStatus();
  return absl::InvalidArgumentError(absl::StrCat("values must have ", wanted,
                                                 " bytes (tokens x kv_heads x head_dim x 4), got ",
                                                 request.values().size()));
}

// The quantized channels, ascending.
std::vector<int32_t> Lanes(const TensorFormat& format, const v1::QuantizeTensorRequest& request) {
  std::set<int32_t> lanes(format.select_channels.begin(), format.select_channels.end());
  const auto head_dim = static_cast<int32_t>(request.head_dim());
  for (int32_t head : format.select_heads) {
    for (int32_t c = 0; c < head_dim; ++c) lanes.insert(head * head_dim + c);
  }
  if (lanes.empty()) {
    for (int32_t c = 0; c < static_cast<int32_t>(request.kv_heads()) * head_dim; ++c)
      lanes.insert(c);
  }
  return {lanes.begin(), lanes.end()};
}

class Collector final : public QuantObserver {
 public:
  Collector(const TensorFormat& format, const v1::QuantizeTensorRequest& request,
            v1::QuantizeTensorResponse* response)
      : is_signed_(format.symmetry == Symmetry::kSym),
        lanes_(Lanes(format, request)),
        channels_(int64_t{request.kv_heads()} * request.head_dim()),
        response_(response) {
    response_->mutable_codes()->Resize(static_cast<int>(request.tokens() * channels_), 0);
  }

  void OnBlock(const QuantizedBlock& block) override {
    for (int64_t t = 0; t < block.tokens; ++t) {
      for (int32_t lane = 0; lane < block.lanes; ++lane) {
        const uint8_t code = block.codes[t * block.lanes + lane];
        const int64_t at = (block.first_token + t) * channels_ + lanes_[static_cast<size_t>(lane)];
        response_->set_codes(static_cast<int>(at), is_signed_ ? static_cast<int8_t>(code) : code);
      }
    }
    if (!block.new_parameters) return;
    for (int64_t p = 0; p < block.parameters; ++p) {
      response_->add_scales(block.scale[p]);
      if (block.zero != nullptr) response_->add_zeros(block.zero[p]);
    }
  }

 private:
  const bool is_signed_;
  const std::vector<int32_t> lanes_;
  const int64_t channels_;
  v1::QuantizeTensorResponse* response_;
};

std::string RoundedToBf16(const std::string& floats) {
  std::string rows(floats.size() / 2, '\0');
  for (size_t i = 0; i < floats.size() / 4; ++i) {
    float value;
    memcpy(&value, floats.data() + 4 * i, 4);
    const uint16_t half = Bf16FromFloat(value);
    memcpy(rows.data() + 2 * i, &half, 2);
  }
  return rows;
}

std::string WidenedFromBf16(const std::string& rows) {
  std::string floats(rows.size() * 2, '\0');
  for (size_t i = 0; i < rows.size() / 2; ++i) {
    uint16_t half;
    memcpy(&half, rows.data() + 2 * i, 2);
    const float value = FloatFromBf16(half);
    memcpy(floats.data() + 4 * i, &value, 4);
  }
  return floats;
}

}  // namespace

absl::StatusOr<v1::QuantizeTensorResponse> QuantizeOneTensor(
    const v1::QuantizeTensorRequest& request) {
  absl::StatusOr<TensorFormat> parsed =
      ParseFormat(request.format(), {.paper_quirks = request.paper_quirks()});
  if (!parsed.ok()) return Annotate(parsed.status(), "format");
  const TensorFormat format = *std::move(parsed);
  PLUMB_RETURN_IF_ERROR(CheckShape(request));
  if (format.scope == Scope::kCalibrated) {
    return absl::InvalidArgumentError(
        "format: one tensor has no layer to take calibrated statistics of; ask Simulate");
  }
  std::string rows = request.bf16() ? RoundedToBf16(request.values()) : request.values();
  v1::QuantizeTensorResponse response;
  if (!format.is_fp()) {
    const TensorShape shape{static_cast<int32_t>(request.kv_heads()),
                            static_cast<int32_t>(request.head_dim()),
                            request.bf16() ? KvDtype::kBf16 : KvDtype::kF32};
    PLUMB_ASSIGN_OR_RETURN(auto quantizer, TensorQuantizer::Create(format, shape, nullptr));
    Collector collector(format, request, &response);
    quantizer->SetObserver(&collector);
    quantizer->Append(rows.data(), 0, request.tokens(), Phase::kPromptLast);
  }
  response.set_values(request.bf16() ? WidenedFromBf16(rows) : std::move(rows));
  return response;
}

}  // namespace plumbline
