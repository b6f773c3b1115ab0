// vLLM stores keys after RoPE, takes one --kv-cache-dtype for keys and values, and keeps the layers
// named by --kv-cache-dtype-skip-layers in the model's dtype. fp8 scales are 1.0 unless the
// checkpoint has some.
#include <optional>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "services/common/status_macros.h"
#include "services/coordinator/planner/export_engines.h"
#include "services/quant/plan_parser.h"

namespace plumbline {
namespace {

constexpr char kEngine[] = "vLLM";

absl::Status WhyNotFp8(const LayerFormat& format) {
  const std::string text = LayerFormatText(format);
  if (format.key.is_int() || format.value.is_int()) {
    return CannotExpress(
        kEngine, absl::StrCat(text,
                              " is an integer format. Its int8_per_token_head truncates "
                              "towards zero where Plumbline rounds to nearest, and its 4-bit "
                              "types use codebooks; only fp8_e4m3 and fp8_e5m2 agree"));
  }
  if (format.key.type != format.value.type) {
    return CannotExpress(kEngine,
                         absl::StrCat(text,
                                      " has other types for keys than for values; there is "
                                      "one --kv-cache-dtype for both"));
  }
  const std::string type = format.key.type == KvType::kFp8E4m3 ? "fp8_e4m3" : "fp8_e5m2";
  if (format.key.place == RopePlace::kPreRope) {
    return CannotExpress(kEngine, absl::StrCat(text,
                                               " quantizes keys before RoPE, vLLM stores "
                                               "them after it; measure *:",
                                               type, ".post instead"));
  }
  return CannotExpress(kEngine, absl::StrCat(text,
                                             " has options that its fp8 cache does not "
                                             "have; measure *:",
                                             type, ".post instead"));
}

// The dtype's name if vLLM does exactly this.
absl::StatusOr<std::string> Fp8Name(const LayerFormat& format) {
  for (const char* name : {"fp8_e4m3", "fp8_e5m2"}) {
    PLUMB_ASSIGN_OR_RETURN(TensorFormat post, ParseFormat(absl::StrCat(name, ".post")));
    TensorFormat value = format.value;
    value.place = RopePlace::kPostRope;  // values are not rotated
    if (format.key == post && value == post) return std::string(name);
  }
  return WhyNotFp8(format);
}

}  // namespace

absl::StatusOr<v1::ExportPlanResponse> VllmSettings(const EnginePlan& plan) {
  std::vector<std::string> skipped;
  std::optional<LayerFormat> format;
  for (size_t layer = 0; layer < plan.layers.size(); ++layer) {
    const LayerFormat& own = plan.layers[layer];
    if (own.key.is_fp() && own.value.is_fp()) {
      skipped.push_back(absl::StrCat(layer));
      continue;
    }
    if (format.has_value() && !(own == *format)) {
      return CannotExpress(kEngine,
                           absl::StrCat("layers that are quantized must share one format; "
                                        "found ",
                                        LayerFormatText(*format), " and ", LayerFormatText(own)));
    }
    format = own;
  }
  v1::ExportPlanResponse response;
  if (!format.has_value()) {
    response.set_settings("--kv-cache-dtype auto");
    response.add_notes("auto stores keys and values in the model's own dtype");
    return response;
  }
  PLUMB_ASSIGN_OR_RETURN(std::string dtype, Fp8Name(*format));
  std::string settings = absl::StrCat("--kv-cache-dtype ", dtype);
  if (!skipped.empty()) {
    absl::StrAppend(&settings, " --kv-cache-dtype-skip-layers ", absl::StrJoin(skipped, " "));
    response.add_notes("--kv-cache-dtype-skip-layers needs a vLLM of 2026 or later");
  }
  response.set_settings(settings);
  response.add_notes(
      "scales are 1.0 as measured here: do not set calculate_kv_scales, and use a checkpoint "
      "without k_scale and v_scale");
  response.add_notes(
      "attention backends that also quantize the queries to fp8 add an error that was not "
      "measured");
  return response;
}

}  // namespace plumbline
