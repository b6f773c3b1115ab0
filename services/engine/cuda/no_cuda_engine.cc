#include "absl/strings/str_cat.h"
#include "services/engine/cuda/cuda_engine.h"

namespace plumbline {

namespace {

constexpr char kNoGpuEngine[] =
    "this build has no GPU engine: configure it where nvcc is (PLUMB_WITH_CUDA=ON), or use the "
    "device cpu";

}  // namespace

absl::StatusOr<std::unique_ptr<Engine>> CreateCudaEngine(const EngineOptions&, const CudaOptions&) {
  return absl::UnimplementedError(kNoGpuEngine);
}

int CountGpus() { return 0; }

absl::Status CheckGpu(int device) {
  return absl::InvalidArgumentError(absl::StrCat("device \"cuda:", device, "\": ", kNoGpuEngine));
}

}  // namespace plumbline
