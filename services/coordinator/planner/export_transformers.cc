// transformers' QuantizedCache with the quanto backend, axis 0: groups of q_group_size neighbouring
// channels of one token, minimum and scale in the model's dtype, keys after RoPE, the prompt's own
// attention on unquantized values. One width and group for keys, values and all layers. The HQQ
// backend fits its zero points by an optimizer that nothing here repeats.
#include "absl/strings/str_cat.h"
#include "services/common/status_macros.h"
#include "services/coordinator/planner/export_engines.h"
#include "services/quant/plan_parser.h"

namespace plumbline {
namespace {

constexpr char kEngine[] = "transformers' QuantizedCache";

std::string Wanted(const TensorFormat& format, bool key) {
  const int bits = format.bits() == 2 ? 2 : 4;
  const int group = format.group_size > 0 ? format.group_size : 64;
  return absl::StrCat("int", bits, ".affine.group", group, key ? ".post" : "", ".exact.sb16");
}

// OK when quanto does exactly this.
absl::Status CheckSide(const std::string& side, const TensorFormat& format) {
  const bool key = side == "keys";
  const std::string wanted = Wanted(format, key);
  PLUMB_ASSIGN_OR_RETURN(TensorFormat own, ParseFormat(wanted));
  TensorFormat given = format;
  if (given.scale_type == ScaleType::kF16) given.scale_type = ScaleType::kBf16;
  if (!key) given.place = own.place;
  if (given == own) return absl::OkStatus();
  return CannotExpress(
      kEngine, absl::StrCat(side, " ", FormatText(format),
                            ": its quanto backend has 2 or 4 bits, groups of neighbouring channels "
                            "with a minimum and scales in the model's dtype, keys after RoPE, and "
                            "the prompt's attention on unquantized values; measure ",
                            wanted, " instead"));
}

}  // namespace

absl::StatusOr<v1::ExportPlanResponse> TransformersSettings(const EnginePlan& plan) {
  PLUMB_ASSIGN_OR_RETURN(LayerFormat format,
                         UniformFormat(plan, kEngine, "it has one format for all layers"));
  v1::ExportPlanResponse response;
  if (format.key.is_fp() && format.value.is_fp()) {
    response.set_settings("model.generate(...)");
    response.add_notes("the default cache is unquantized");
    return response;
  }
  PLUMB_RETURN_IF_ERROR(CheckSide("keys", format.key));
  PLUMB_RETURN_IF_ERROR(CheckSide("values", format.value));
  if (format.key.type != format.value.type || format.key.group_size != format.value.group_size) {
    return CannotExpress(kEngine, absl::StrCat(LayerFormatText(format),
                                               ": keys and values share one nbits and one "
                                               "q_group_size"));
  }
  const int head_dim = static_cast<int>(plan.model.head_dim());
  if (head_dim % format.key.group_size != 0) {
    return CannotExpress(kEngine, absl::StrCat("groups of ", format.key.group_size,
                                               " do not divide the head dimension ", head_dim,
                                               " and would cross heads"));
  }
  response.set_settings(absl::StrCat(
      "from transformers import QuantizedCache\n"
      "cache = QuantizedCache(backend=\"quanto\", config=model.config, nbits=",
      format.key.bits(), ", axis_key=0, axis_value=0, q_group_size=", format.key.group_size,
      ", residual_length=1)\n"
      "model.generate(**inputs, past_key_values=cache)\n"));
  response.add_notes(
      "residual_length=1 quantizes each token as it comes; the default of 128 leaves short answers "
      "unquantized, which was not measured");
  response.add_notes(
      "a new token's own step still reads it unquantized, here it is read quantized");
  response.add_notes(absl::StrCat("load the model in ",
                                  format.key.scale_type == ScaleType::kF16 ? "float16" : "bfloat16",
                                  ": scales are stored in its dtype"));
  return response;
}

}  // namespace plumbline
