// Text -> Plan, by the closed grammar:
//
//   plan        = rule *("," rule)                  ; later rules win
//   rule        = layers ":" format ["|" format]    ; one format for both, or keys | values
//   layers      = "*" / range *("+" range)          ; range = N / N "-" N
//   format      = "fp" / type *("." option)
//
// Blanks around tokens are ignored. Examples: "*:int4.asym.token", "*:fp,7:int3.sym.tensor",
// "*:int8.asym.token|fp_8"  -> error that points at the character:
//
//   plan: unknown type 'fp_8' at character 18
//     *:int8.asym.token|fp_8
//                       ^
//     types: fp int2 int3 int4 int5 int6 int8 fp8_e4m3 fp8_e5m2
#pragma once

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "services/quant/kv_format.h"

namespace plumbline {

struct PlanParseOptions {
  // Allows asym.channel.step, which returns about 0 for a single token; the published code does it.
  bool paper_quirks = false;
  size_t max_text_bytes = 65536;
};

// InvalidArgument with the position, a caret line and the accepted alternatives. Never crashes on
// any bytes (fuzzed).
absl::StatusOr<Plan> ParsePlan(absl::string_view text, const PlanParseOptions& options = {});
absl::StatusOr<TensorFormat> ParseFormat(absl::string_view text,
                                         const PlanParseOptions& options = {});

}  // namespace plumbline
