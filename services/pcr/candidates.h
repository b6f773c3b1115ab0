// The plans that compete to repair a target format, as plan texts (grammar:
// services/quant/plan_parser.h). Every plan is an edit of the target: equal bits elsewhere.
//
//   CandidateRequest request{.target_format = "int4.asym.token", .num_layers = 30,
//                            .ranked_layers = selection.ranked, .critical = selection.critical,
//                            .mode = FailureMode::kOutlierAsSafety};
//   std::vector<CandidatePlan> plans = *CandidatePlans(request);
//   // plans[0]: name "critical-fp", plan "*:int4.asym.token,19:fp", kind kMode
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "services/common/ids.h"
#include "services/pcr/policy.h"

namespace plumbline {

enum class CandidateKind {
  kMode,       // the plan that the failure mode asks for
  kNeighbour,  // plans of the other modes and variants near the mode's plan
  kBaseline,   // what one would try without a diagnosis: wider, random, first / last layers
  kGreedy,     // layers widened in the order of their measured flips
};
// "mode", "neighbour", "baseline", "greedy".
absl::string_view CandidateKindName(CandidateKind kind);

struct CandidatePlan {
  std::string name;    // unique in its list, stable across studies: "group-64", "top-4-fp"
  std::string plan;    // text
  std::string reason;  // one sentence
  CandidateKind kind = CandidateKind::kNeighbour;
};

struct CandidateRequest {
  std::string target_format;              // "int4.asym.token" or "KEYS|VALUES"
  int32_t num_layers = 0;                 // above 0
  std::vector<LayerIndex> ranked_layers;  // most sensitive first; each layer once
  std::vector<LayerIndex> critical;       // most flips first; may be empty
  FailureMode mode = FailureMode::kUndetermined;
  uint64_t seed = 0;         // of the random-layer baselines: the study's
  int32_t random_draws = 2;  // random-layer plans; 0 = none
};

// The mode's plan first (none for undetermined and no-collapse, nor when the target already is that
// plan), then the others, without two equal plans and without the target itself. InvalidArgument
// when the target is not a format that can be edited (its type is unknown or both sides are fp) or
// the layers do not fit num_layers.
//
// Editing a side of the target: group-64 becomes <bits>.sym.group64, per channel becomes
// <bits>.sym.channel.prompt, with the target's heads, place, prefill, arith, scale and sink options
// kept; fp8 counts as int8 there, because its scale is fixed and groups would change nothing. An
// fp side stays fp.
absl::StatusOr<std::vector<CandidatePlan>> CandidatePlans(const CandidateRequest& request);

// "0-2+19" for {0, 1, 2, 19}. Precondition: not empty.
std::string LayersText(std::vector<LayerIndex> layers);

}  // namespace plumbline
