#include "services/engine/cuda/cuda_engine.h"

namespace plumbline {

absl::StatusOr<std::unique_ptr<Engine>> CreateCudaEngine(const EngineOptions&, const CudaOptions&) {
  return absl::UnimplementedError(
      "this build has no GPU engine: configure it where nvcc is (PLUMB_WITH_CUDA=ON), or use the "
      "device cpu");
}

int CountGpus() { return 0; }

}  // namespace plumbline
