// Keys and digests of cells and verdicts, and conversions between protos and plain types. No gRPC.
#pragma once

#include <string>

#include "absl/status/statusor.h"
#include "plumbline/v1/cell.pb.h"
#include "plumbline/v1/model.pb.h"
#include "plumbline/v1/plan.pb.h"
#include "services/quant/kv_format.h"

namespace plumbline {

// SHA-256 over every field of the spec that can change its tokens. Two specs have equal keys
// exactly when they are equal. `spec.plan` must be canonical (CanonicalizePlan).
std::string CellKey(const v1::CellSpec& spec);

// SHA-256 over what is promised to be reproducible: cell key, status code, token ids, text, finish
// reason, NLL bits, prompt digest, first tokens with the bits of their log probabilities, token and
// element counts; not worker, time or attempt.
std::string ResultDigest(const v1::CellResult& result);

// Key of a verdict: token digest + text digest + finish reason + judge + judge version.
std::string VerdictKey(const v1::CellResult& result, const std::string& judge,
                       const std::string& judge_version);

// "7:int3.sym.tensor" rules -> canonical text for the model. InvalidArgument carries the caret
// line.
absl::StatusOr<std::string> CanonicalizePlan(const std::string& text, const v1::ModelInfo& model,
                                             bool paper_quirks);

absl::StatusOr<Plan> PlanFromProto(const v1::Plan& proto);
v1::Plan PlanToProto(const Plan& plan);

}  // namespace plumbline
