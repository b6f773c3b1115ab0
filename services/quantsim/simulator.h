// Formats on captured activations: the quantizer of the engine (services/quant), its errors.
// No gRPC.
#pragma once

#include <functional>
#include <map>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/statusor.h"
#include "plumbline/v1/capture.pb.h"
#include "plumbline/v1/quantsim.pb.h"
#include "services/quant/kv_format.h"
#include "services/quant/tensor_quantizer.h"

namespace plumbline {

// "format" or "keys|values". InvalidArgument with the parser's caret line and the text.
absl::StatusOr<LayerFormat> ParseFormatPair(const std::string& text, bool paper_quirks);

// Statistics of one layer of a capture, for calibrated formats.
struct LayerCalibration {
  Calibration keys;
  Calibration values;
};
// By capture digest and layer.
using Calibrations = std::map<std::pair<std::string, uint32_t>, LayerCalibration>;

struct SimulationOptions {
  v1::CaptureHeader header;                // checked (services/capture/activation_block.h)
  std::vector<uint32_t> outlier_channels;  // flat
  bool per_channel = false;
  Calibrations calibrations;
  std::function<bool()> cancelled;  // asked between prompts; may be null
};

// Every format's error over all prompts of one layer, in the formats' order: each prompt is
// quantized alone, whole, as a prompt is at prefill, and compared as it lies in the cache after it.
// `.prefill exact` therefore shows the error that later tokens see. Keys of a `.post` format are
// rotated first. Spread over the process's threads (services/common/parallel.h); the numbers do not
// depend on them. InvalidArgument, with the format's text, when one does not fit, or quantizes
// after RoPE and the header carries no rotation; Cancelled.
absl::StatusOr<std::vector<v1::FormatError>> SimulateFormats(
    const SimulationOptions& options, const std::vector<std::string>& texts,
    const std::vector<LayerFormat>& formats, uint32_t layer,
    const std::vector<v1::ActivationBlock>& blocks);

// One tensor. InvalidArgument names the field.
absl::StatusOr<v1::QuantizeTensorResponse> QuantizeOneTensor(
    const v1::QuantizeTensorRequest& request);

}  // namespace plumbline
