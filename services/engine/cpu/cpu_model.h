// The CPU model below the Engine interface, for tests that replay single layers.
#pragma once

#include <memory>

#include "absl/status/statusor.h"
#include "services/engine/cpu/cpu_forward.h"
#include "services/engine/engine.h"

namespace plumbline {

// T is float or Bf16 and agrees with options.dtype.
template <typename T>
absl::StatusOr<std::unique_ptr<CpuForward<T>>> CreateCpuForward(const EngineOptions& options);

}  // namespace plumbline
