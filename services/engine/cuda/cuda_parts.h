// Builds a CudaForward: sizes, weights, tables, products.
#pragma once

#include <functional>
#include <memory>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "services/engine/batch/scheduler.h"
#include "services/engine/cuda/cuda_engine.h"
#include "services/engine/cuda/cuda_forward.h"
#include "services/engine/model_bundle.h"

namespace plumbline {

// Writes the weights into their memory on the device.
using FillCudaWeights = std::function<absl::Status(const CudaWeights& weights)>;

absl::StatusOr<std::unique_ptr<CudaForward>> CreateCudaForward(const ModelConfig& config,
                                                               const EngineOptions& options,
                                                               const CudaOptions& cuda,
                                                               const FillCudaWeights& fill);

// The scheduler's limits for an engine over it.
SchedulerOptions SchedulerOptionsOf(const CudaForward& forward, const EngineOptions& options,
                                    const CudaOptions& cuda);

}  // namespace plumbline
