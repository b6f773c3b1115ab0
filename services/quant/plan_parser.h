// Text -> Plan, by the closed grammar:
//
//   plan        = rule *("," rule)                  ; later rules win
//   rule        = layers ":" format ["|" format]    ; one format for both, or keys | values
//   layers      = "*" / range *("+" range)          ; range = N / N "-" N
//   format      = "fp" / type *("." option)
//
//   option      = sym asym affine / tensor token channel group<G>
//               / step prompt calibrated(<digest>) window<R>[x<G>] / joint perhead / pre post
//               / seen exact / f32 native / s32 s16 sb16 / heads(<list>) ch(<list>)
//               / sink<N> / hadamard / satur torchcast
//   list        = range *("+" range)                ; "," joins as well, the canonical text has "+"
//   digest      = 8 to 64 lower-case hexadecimal digits: the start of a capture's SHA-256
//
// Options come in any order, each kind at most once. Numbers have no sign and no leading zeros.
// Blanks around tokens are ignored.
//
// What may be combined:
//   - int types need a symmetry and a granularity; fp8 takes no symmetry, and a granularity
//   (tensor,
//     channel), perhead or a scale type only when calibrated: otherwise its scale is 1; fp takes
//     none.
//   - prompt and calibrated need tensor or channel: elsewhere statistics do not cross tokens.
//   - window<R>x<G>: R a multiple of G. tensor and channel need it, with G >= 2; window<R> alone
//   slides.
//   - asym.channel.step returns about 0 for a single token: refused unless paper_quirks.
//   - heads(...) or ch(...), not both; hadamard only with whole heads, uncalibrated, and a
//     head_dim that is a power of two.
//   - satur and torchcast are for fp8.
// perhead with channel, and post on values, are accepted and have no effect.
//
// Examples: "*:int4.asym.token", "*:fp,7:int3.sym.tensor",
// "*:int8.asym.token|fp_8"  -> error that points at the character (counted from 1):
//
//   plan: unknown type 'fp_8' at character 19
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
  // For what a user typed, his choice; true for canonical texts that one process sends another.
  bool paper_quirks = false;
  size_t max_text_bytes = 65536;
};

// InvalidArgument with the position, a caret line and the accepted alternatives. Never crashes on
// any bytes (fuzzed).
absl::StatusOr<Plan> ParsePlan(absl::string_view text, const PlanParseOptions& options = {});
absl::StatusOr<TensorFormat> ParseFormat(absl::string_view text,
                                         const PlanParseOptions& options = {});

}  // namespace plumbline
