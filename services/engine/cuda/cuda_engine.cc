#include "services/engine/cuda/cuda_engine.h"

#include <cuda_runtime_api.h>

#include <exception>
#include <new>
#include <string>
#include <utility>

#include "absl/strings/str_cat.h"
#include "services/common/parallel.h"
#include "services/common/status_macros.h"
#include "services/engine/batch/batch_engine.h"
#include "services/engine/bundle/safetensors.h"
#include "services/engine/cuda/cuda_parts.h"

namespace plumbline {
namespace {

absl::Status FindGpu(int device) {
  int devices = 0;
  PLUMB_RETURN_IF_ERROR(Annotate(CudaStatus(cudaGetDeviceCount(&devices), "looking for a GPU"),
                                 "no GPU can be used here; mend its driver or use the device cpu"));
  if (device < 0 || device >= devices) {
    return absl::UnavailableError(absl::StrCat("there is no GPU ", device, ": this machine has ",
                                               devices, ", counted from 0"));
  }
  return absl::OkStatus();
}

absl::Status CheckOptions(const EngineOptions& options, const CudaOptions& cuda) {
  if (options.max_running < 1) {
    return absl::InvalidArgumentError(
        absl::StrCat("max_running must be at least 1, got ", options.max_running));
  }
  if (options.kv_pool_bytes < 0) {
    return absl::InvalidArgumentError(absl::StrCat(
        "kv_pool_bytes must be positive or 0 (most of what is free), got ", options.kv_pool_bytes));
  }
  if (cuda.max_positions < 1 || cuda.wave_rows < 1) {
    return absl::InvalidArgumentError(
        absl::StrCat("max_positions and wave_rows must be positive, got ", cuda.max_positions,
                     " and ", cuda.wave_rows));
  }
  return FindGpu(cuda.device);
}

absl::StatusOr<std::unique_ptr<Engine>> Load(const EngineOptions& options,
                                             const CudaOptions& cuda) {
  PLUMB_ASSIGN_OR_RETURN(const ModelFiles files,
                         OpenModelFiles(options.bundle_dir, options.verify_digests));
  SetThreads(options.threads);
  PLUMB_ASSIGN_OR_RETURN(
      auto forward, CreateCudaForward(files.config, options, cuda, [&](const CudaWeights& weights) {
        return FillWeights(files.config, *files.weights, weights, cuda.device);
      }));
  const SchedulerOptions scheduler = SchedulerOptionsOf(*forward, options, cuda);
  return CreateBatchEngine(std::move(forward), scheduler);
}

}  // namespace

absl::StatusOr<std::unique_ptr<Engine>> CreateCudaEngine(const EngineOptions& options,
                                                         const CudaOptions& cuda) {
  PLUMB_RETURN_IF_ERROR(CheckOptions(options, cuda));
  try {
    return Load(options, cuda);
  } catch (const std::bad_alloc&) {
    return absl::ResourceExhaustedError(
        absl::StrCat("not enough memory of the host to load model ", options.bundle_dir));
  } catch (const std::exception& error) {
    return absl::InternalError(
        absl::StrCat("cannot load model ", options.bundle_dir, ": ", error.what()));
  }
}

int CountGpus() {
  int devices = 0;
  return cudaGetDeviceCount(&devices) == cudaSuccess ? devices : 0;
}

absl::Status CheckGpu(int device) {
  const absl::Status found = FindGpu(device);
  if (found.ok()) return found;
  return absl::InvalidArgumentError(
      absl::StrCat("device \"cuda:", device, "\": ", found.message()));
}

}  // namespace plumbline
