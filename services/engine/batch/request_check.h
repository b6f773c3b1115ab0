// Checks of a request against the model, before it is accepted.
#pragma once

#include "absl/status/status.h"
#include "services/engine/engine.h"

namespace plumbline {

// InvalidArgument with the value and what would be right.
absl::Status CheckRequest(const SequenceRequest& request, const ModelShape& shape);

}  // namespace plumbline
