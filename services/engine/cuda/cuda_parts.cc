#include "services/engine/cuda/cuda_parts.h"

#include <cublasLt.h>

#include <algorithm>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "kernels/cuda/kv_write.h"
#include "services/common/logging.h"
#include "services/common/status_macros.h"
#include "services/engine/cpu/model_weights.h"
#include "services/engine/cpu/rope_table.h"
#include "services/engine/cuda/cuda_numerics.h"

namespace plumbline {
namespace {

// Left to graphs, code and what the driver keeps.
constexpr int64_t kSpareBytes = int64_t{1} << 30;

// The share of the KV pool's pages that shared first tokens may hold: 1 / kStemShare.
constexpr int64_t kStemShare = 4;

absl::Status CheckModel(const ModelConfig& config, const CudaOptions& cuda) {
  const int group = config.num_heads / std::max(1, config.num_kv_heads);
  constexpr int kHeadDims[] = {64, 80, 96, 128, 256};
  if (std::find(std::begin(kHeadDims), std::end(kHeadDims), config.head_dim) ==
      std::end(kHeadDims)) {
    return absl::InvalidArgumentError(
        absl::StrCat("the GPU engine has head_dim 64, 80, 96, 128 and 256; the model's is ",
                     config.head_dim, ": use the device cpu"));
  }
  if (config.num_heads % config.num_kv_heads != 0 || group > 8) {
    return absl::InvalidArgumentError(
        absl::StrCat("the GPU engine has 1 to 8 query heads a key/value head; the model has ",
                     config.num_heads, " for ", config.num_kv_heads, ": use the device cpu"));
  }
  const int64_t kv_dim = int64_t{config.num_kv_heads} * config.head_dim;
  if (kv_dim > cuda::MostKvDim()) {
    return absl::InvalidArgumentError(
        absl::StrCat("the GPU engine has keys of at most ", cuda::MostKvDim(),
                     " values a layer; the model's ", config.num_kv_heads, " heads of ",
                     config.head_dim, " are ", kv_dim, ": use the device cpu"));
  }
  constexpr int kChunks[] = {64, 128, 256, 512};
  if (std::find(std::begin(kChunks), std::end(kChunks), cuda.chunk_rows) == std::end(kChunks)) {
    return absl::InvalidArgumentError(
        absl::StrCat("chunk_rows must be 64, 128, 256 or 512, got ", cuda.chunk_rows));
  }
  return absl::OkStatus();
}

ModelStepOptions StepOptionsOf(const ModelConfig& config, const EngineOptions& options,
                               const CudaOptions& cuda) {
  ModelStepOptions step;
  step.dims = DimsOf(config);
  step.dtype = options.dtype == ComputeDtype::kF32 ? cuda::Dtype::kF32 : cuda::Dtype::kBf16;
  step.slots = options.max_running;
  step.max_positions = std::min(config.max_context, cuda.max_positions);
  const int64_t rows = std::max(step.max_positions, cuda.wave_rows) + options.max_running;
  step.limits.chunk_rows = cuda.chunk_rows;
  step.limits.max_chunks = static_cast<int>((rows + cuda.chunk_rows - 1) / cuda.chunk_rows);
  step.limits.max_runs = options.max_running;
  return step;
}

// Rows of a step are blocks of a launch's second dimension.
absl::Status CheckRows(const ModelStepOptions& step) {
  constexpr int64_t kMostRows = 65535;
  if (step.limits.max_rows() <= kMostRows) return absl::OkStatus();
  return absl::InvalidArgumentError(absl::StrCat(
      "max_positions ", step.max_positions, " makes steps of ", step.limits.max_rows(),
      " rows; the GPU engine has at most ", kMostRows, ": give a smaller max_positions"));
}

// Before anything is allocated: the weights and one step must fit, and some pages.
absl::Status CheckFits(const WeightLayout& layout, const ModelStepOptions& step, int device) {
  size_t free_bytes = 0, all_bytes = 0;
  PLUMB_RETURN_IF_ERROR(CudaStatus(cudaMemGetInfo(&free_bytes, &all_bytes), "free GPU memory"));
  const int64_t needed = layout.bytes + ModelStep::BytesNeeded(step) + kSpareBytes / 4;
  if (needed <= static_cast<int64_t>(free_bytes)) return absl::OkStatus();
  return absl::ResourceExhaustedError(
      absl::StrCat("the model needs ", needed, " bytes (weights ", layout.bytes,
                   ") without its cache; GPU ", device, " has ", free_bytes, " of ", all_bytes,
                   " bytes free: use bf16, a larger GPU or a smaller model"));
}

absl::StatusOr<DeviceBuffer> UploadRope(const ModelConfig& config, const ModelStepOptions& step) {
  PLUMB_ASSIGN_OR_RETURN(RopeTable rope,
                         RopeTable::Create(config, step.dtype == cuda::Dtype::kBf16));
  rope.Extend(step.max_positions);
  const int64_t bytes = step.max_positions * (config.head_dim / 2) * int64_t{sizeof(float)};
  PLUMB_ASSIGN_OR_RETURN(DeviceBuffer table, DeviceBuffer::Create(2 * bytes, "rotary angles"));
  PLUMB_RETURN_IF_ERROR(CudaStatus(
      cudaMemcpy(table.data(), rope.cos(0), static_cast<size_t>(bytes), cudaMemcpyHostToDevice),
      "rotary angles"));
  PLUMB_RETURN_IF_ERROR(CudaStatus(
      cudaMemcpy(table.at(bytes), rope.sin(0), static_cast<size_t>(bytes), cudaMemcpyHostToDevice),
      "rotary angles"));
  return table;
}

absl::StatusOr<std::string> NumericsText(const CudaForward::Parts& parts) {
  cudaDeviceProp properties;
  PLUMB_RETURN_IF_ERROR(CudaStatus(cudaGetDeviceProperties(&properties, parts.options.device),
                                   "properties of the GPU"));
  CudaNumerics numerics;
  PLUMB_RETURN_IF_ERROR(CudaStatus(cudaRuntimeGetVersion(&numerics.runtime), "version of CUDA"));
  PLUMB_RETURN_IF_ERROR(
      CudaStatus(cudaDriverGetVersion(&numerics.driver), "version of the driver"));
  numerics.dtype = parts.step_options.dtype;
  numerics.device = properties.name;
  numerics.multiprocessors = properties.multiProcessorCount;
  numerics.compute_major = properties.major;
  numerics.compute_minor = properties.minor;
  numerics.cublaslt = cublasLtGetVersion();
  numerics.chunk_rows = parts.options.chunk_rows;
  numerics.algorithms = parts.step->algorithms();
  return CudaNumericsClass(numerics);
}

}  // namespace

absl::StatusOr<std::unique_ptr<CudaForward>> CreateCudaForward(const ModelConfig& config,
                                                               const EngineOptions& options,
                                                               const CudaOptions& cuda,
                                                               const FillCudaWeights& fill) {
  PLUMB_RETURN_IF_ERROR(CheckModel(config, cuda));
  PLUMB_RETURN_IF_ERROR(CudaStatus(cudaSetDevice(cuda.device), absl::StrCat("GPU ", cuda.device)));
  auto parts = std::make_unique<CudaForward::Parts>();
  parts->options = cuda;
  parts->shape = ShapeOf(config);
  parts->step_options = StepOptionsOf(config, options, cuda);
  const ModelStepOptions& step = parts->step_options;
  parts->weights.layout = LayOutWeights(config, step.dtype);
  PLUMB_RETURN_IF_ERROR(CheckRows(step));
  PLUMB_RETURN_IF_ERROR(CheckFits(parts->weights.layout, step, cuda.device));
  PLUMB_ASSIGN_OR_RETURN(parts->stream, Stream::Create());
  const cudaStream_t stream = parts->stream.get();
  PLUMB_ASSIGN_OR_RETURN(parts->weights.memory,
                         DeviceBuffer::Create(parts->weights.layout.bytes, "the weights"));
  PLUMB_RETURN_IF_ERROR(fill(parts->weights));
  PLUMB_ASSIGN_OR_RETURN(parts->rope, UploadRope(config, step));
  PLUMB_ASSIGN_OR_RETURN(parts->plans, PlanTables::Create(step.dims, step.dtype, stream));
  PLUMB_ASSIGN_OR_RETURN(parts->step, ModelStep::Create(step, &parts->weights, stream));
  PLUMB_ASSIGN_OR_RETURN(parts->prefixes, PrefixStore::Create(options.prefix_cache_bytes, step.dims,
                                                              step.dtype, stream));
  CacheSpaceOptions space;
  space.dims = step.dims;
  space.dtype = step.dtype;
  space.slots = step.slots;
  space.max_positions = step.max_positions;
  space.pool_bytes = options.kv_pool_bytes;
  space.spare_bytes = kSpareBytes;
  PLUMB_ASSIGN_OR_RETURN(parts->space, CacheSpace::Create(space, stream));
  parts->stems = std::make_unique<StemStore>(parts->space->pool_bytes() /
                                             parts->space->page_bytes() / kStemShare);
  PLUMB_ASSIGN_OR_RETURN(parts->numerics_class, NumericsText(*parts));
  return CudaForward::Create(std::move(parts));
}

SchedulerOptions SchedulerOptionsOf(const CudaForward& forward, const EngineOptions& options,
                                    const CudaOptions& cuda) {
  SchedulerOptions scheduler;
  scheduler.max_running = options.max_running;
  scheduler.kv_pool_bytes = forward.pool_bytes();
  scheduler.wave_rows = cuda.wave_rows;
  scheduler.chunk_rows = cuda.chunk_rows;
  return scheduler;
}

}  // namespace plumbline
