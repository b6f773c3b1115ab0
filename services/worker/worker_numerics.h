// The numerics class that a worker registers for all its models.
#pragma once

#include "absl/status/statusor.h"
#include "plumbline/v1/model.pb.h"
#include "services/worker/engine_runner.h"
#include "services/worker/model_catalog.h"

namespace plumbline {

// Loads the first model that can be loaded; those before it are left out of the catalog. That finds
// a bad device or broken weights before any work is taken. On the CPU no model's weights or sizes
// decide the class; on a GPU it names the product algorithms of one model's sizes, so there the
// catalog holds one model. InvalidArgument: it holds more; the message names them. Else what
// loading failed with.
absl::StatusOr<v1::NumericsClass> NumericsOf(EngineRunner& runner, ModelCatalog& catalog,
                                             ComputeDtype dtype, bool on_gpu);

}  // namespace plumbline
