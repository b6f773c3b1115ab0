#include "services/engine/batch/request_check.h"

#include <cmath>

#include "absl/strings/str_cat.h"
#include "services/common/status_macros.h"

namespace plumbline {
namespace {

absl::Status CheckTokens(const std::vector<int32_t>& tokens, absl::string_view what,
                         const ModelShape& shape) {
  for (size_t i = 0; i < tokens.size(); ++i) {
    if (tokens[i] < 0 || tokens[i] >= shape.vocab_size) {
      return absl::InvalidArgumentError(absl::StrCat(what, "[", i, "] = ", tokens[i],
                                                     " is outside the vocabulary [0, ",
                                                     shape.vocab_size, ")"));
    }
  }
  return absl::OkStatus();
}

absl::Status CheckLengths(const SequenceRequest& request, const ModelShape& shape) {
  if (request.prompt_tokens.empty()) {
    return absl::InvalidArgumentError("prompt_tokens is empty: a sequence needs a first token");
  }
  if (request.max_new_tokens < 0 || (request.max_new_tokens == 0 && request.score_from < 0)) {
    return absl::InvalidArgumentError(
        absl::StrCat("max_new_tokens must be at least 1 (0 only with score_from), got ",
                     request.max_new_tokens));
  }
  const int64_t prompt = static_cast<int64_t>(request.prompt_tokens.size());
  if (prompt + request.max_new_tokens > shape.max_context) {
    return absl::InvalidArgumentError(
        absl::StrCat("prompt of ", prompt, " tokens plus max_new_tokens ", request.max_new_tokens,
                     " exceeds the model's context of ", shape.max_context));
  }
  if (static_cast<int64_t>(request.forced_tokens.size()) > request.max_new_tokens) {
    return absl::InvalidArgumentError(
        absl::StrCat("forced_tokens has ", request.forced_tokens.size(),
                     " tokens, more than max_new_tokens ", request.max_new_tokens));
  }
  if (request.score_from >= prompt) {
    return absl::InvalidArgumentError(absl::StrCat("score_from ", request.score_from,
                                                   " leaves nothing to score of a prompt of ",
                                                   prompt, " tokens"));
  }
  if (request.stem_tokens < 0 || request.stem_tokens >= prompt) {
    return absl::InvalidArgumentError(absl::StrCat("stem_tokens ", request.stem_tokens,
                                                   " is outside [0, ", prompt,
                                                   "): a row of the prompt itself must follow"));
  }
  return absl::OkStatus();
}

absl::Status CheckSampling(const Sampling& sampling) {
  if (!(sampling.temperature >= 0) || std::isinf(sampling.temperature)) {
    return absl::InvalidArgumentError(
        absl::StrCat("temperature must be 0 (greedy) or positive, got ", sampling.temperature));
  }
  if (!(sampling.top_p > 0 && sampling.top_p <= 1)) {
    return absl::InvalidArgumentError(
        absl::StrCat("top_p must be in (0, 1], got ", sampling.top_p));
  }
  return absl::OkStatus();
}

absl::Status CheckLayers(const SequenceRequest& request, const ModelShape& shape) {
  if (static_cast<int>(request.layers.size()) != shape.num_layers) {
    return absl::InvalidArgumentError(absl::StrCat("the plan has ", request.layers.size(),
                                                   " layers, the model ", shape.num_layers));
  }
  if (!request.calibrations.empty() && request.calibrations.size() != request.layers.size()) {
    return absl::InvalidArgumentError(absl::StrCat("calibrations has ", request.calibrations.size(),
                                                   " entries, the model ", shape.num_layers,
                                                   " layers (or leave it empty)"));
  }
  for (const auto* layers : {&request.capture_layers, &request.measure_layers}) {
    for (LayerIndex layer : *layers) {
      if (layer.value() >= 0 && layer.value() < shape.num_layers) continue;
      return absl::InvalidArgumentError(
          absl::StrCat(layers == &request.capture_layers ? "capture" : "measure", " layer ",
                       layer.value(), " is outside [0, ", shape.num_layers, ")"));
    }
  }
  return absl::OkStatus();
}

}  // namespace

absl::Status CheckRequest(const SequenceRequest& request, const ModelShape& shape) {
  PLUMB_RETURN_IF_ERROR(CheckLengths(request, shape));
  PLUMB_RETURN_IF_ERROR(CheckTokens(request.prompt_tokens, "prompt_tokens", shape));
  PLUMB_RETURN_IF_ERROR(CheckTokens(request.forced_tokens, "forced_tokens", shape));
  PLUMB_RETURN_IF_ERROR(CheckSampling(request.sampling));
  return CheckLayers(request, shape);
}

}  // namespace plumbline
