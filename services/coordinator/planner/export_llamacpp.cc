// llama.cpp stores keys after RoPE in blocks of 32 channels with fp16 scales, one type for the keys
// and one for the values of all layers:
//   q8_0  scale = absmax / 127                   = int8.sym.group32.s16
//   q4_1  scale = (max - min) / 15, plus min     = int4.affine.group32.s16
//   q5_1  scale = (max - min) / 31, plus min     = int5.affine.group32.s16
//   q4_0  scale = (the value of largest magnitude) / -8, 16 codes: no format here does that
//   q5_0  the same with / -16
#include "absl/strings/str_cat.h"
#include "services/common/status_macros.h"
#include "services/coordinator/planner/export_engines.h"
#include "services/quant/plan_parser.h"

namespace plumbline {
namespace {

constexpr char kEngine[] = "llama.cpp";
constexpr uint32_t kBlock = 32;

struct CacheType {
  const char* format;  // without the place
  const char* name;
};
constexpr CacheType kTypes[] = {{"fp", "f16"},
                                {"int8.sym.group32.s16", "q8_0"},
                                {"int4.affine.group32.s16", "q4_1"},
                                {"int5.affine.group32.s16", "q5_1"}};

absl::Status WhyNot(const std::string& side, const TensorFormat& format) {
  const std::string text = FormatText(format);
  if (format.hadamard) {
    return CannotExpress(kEngine, absl::StrCat(side, " ", text,
                                               ": its own rotation works on other blocks; measure "
                                               "the format without hadamard"));
  }
  if (format.is_int() && format.symmetry == Symmetry::kSym && format.bits() < 8) {
    return CannotExpress(
        kEngine,
        absl::StrCat(
            side, " ", text, ": q4_0 and q5_0 scale by the value of largest magnitude over ",
            "-8 and -16 and use every code, the symmetric rule here scales by absmax over ",
            "7 and 15; measure int4.affine.group32.s16 (q4_1) instead"));
  }
  return CannotExpress(kEngine, absl::StrCat(side, " ", text,
                                             " is none of its cache types; those that agree are "
                                             "int8.sym.group32.s16 (q8_0), int4.affine.group32.s16 "
                                             "(q4_1), int5.affine.group32.s16 (q5_1), keys with "
                                             ".post, and fp"));
}

absl::StatusOr<std::string> TypeName(const std::string& side, const TensorFormat& format) {
  for (const CacheType& type : kTypes) {
    PLUMB_ASSIGN_OR_RETURN(TensorFormat own, ParseFormat(type.format));
    TensorFormat same_place = format;
    same_place.place = own.place;
    if (!(same_place == own)) continue;
    if (side == "keys" && !format.is_fp() && format.place == RopePlace::kPreRope) {
      return CannotExpress(kEngine, absl::StrCat("keys ", FormatText(format),
                                                 " are quantized before RoPE, llama.cpp stores "
                                                 "them after it; measure ",
                                                 type.format, ".post instead"));
    }
    return std::string(type.name);
  }
  return WhyNot(side, format);
}

}  // namespace

absl::StatusOr<v1::ExportPlanResponse> LlamaCppSettings(const EnginePlan& plan) {
  PLUMB_ASSIGN_OR_RETURN(LayerFormat format,
                         UniformFormat(plan, kEngine, "it has one cache type for all layers"));
  PLUMB_ASSIGN_OR_RETURN(std::string key, TypeName("keys", format.key));
  PLUMB_ASSIGN_OR_RETURN(std::string value, TypeName("values", format.value));
  const bool quantized = key != "f16" || value != "f16";
  if (quantized && plan.model.head_dim() % kBlock != 0) {
    return CannotExpress(kEngine,
                         absl::StrCat("blocks of ", kBlock, " do not divide the head dimension ",
                                      plan.model.head_dim()));
  }
  v1::ExportPlanResponse response;
  std::string settings = absl::StrCat("--cache-type-k ", key, " --cache-type-v ", value);
  if (value != "f16") absl::StrAppend(&settings, " --flash-attn on");
  if (quantized) {
    settings = absl::StrCat("LLAMA_ATTN_ROT_DISABLE=1 llama-server ", settings);
    response.add_notes(
        "versions from April 2026 rotate quantized caches unless LLAMA_ATTN_ROT_DISABLE=1; the "
        "plan "
        "was measured without rotation");
    response.add_notes(
        "codes may differ by one where a value lies within fp16 rounding of a boundary: llama.cpp "
        "divides by the scale before it is rounded to fp16 and rounds ties away from zero");
  }
  response.set_settings(settings);
  return response;
}

}  // namespace plumbline
