#include <exception>
#include <new>
#include <string>
#include <utility>

#include "absl/strings/str_cat.h"
#include "services/common/parallel.h"
#include "services/common/status_macros.h"
#include "services/engine/batch/batch_engine.h"
#include "services/engine/bundle/safetensors.h"
#include "services/engine/cpu/cpu_forward.h"
#include "services/engine/cpu/cpu_model.h"
#include "services/engine/cpu/numerics_class.h"
#include "services/engine/engine.h"
#include "services/engine/model_bundle.h"

namespace plumbline {

template <typename T>
absl::StatusOr<std::unique_ptr<CpuForward<T>>> CreateCpuForward(const EngineOptions& options) {
  try {
    PLUMB_ASSIGN_OR_RETURN(const ModelFiles files,
                           OpenModelFiles(options.bundle_dir, options.verify_digests));
    SetThreads(options.threads);
    PLUMB_ASSIGN_OR_RETURN(ModelWeights<T> weights,
                           LoadModelWeights<T>(files.config, *files.weights));
    PLUMB_ASSIGN_OR_RETURN(RopeTable rope,
                           RopeTable::Create(files.config, options.dtype == ComputeDtype::kBf16));
    return std::make_unique<CpuForward<T>>(std::move(weights), std::move(rope),
                                           CpuNumericsClass(options.dtype),
                                           options.prefix_cache_bytes);
  } catch (const std::bad_alloc&) {
    return absl::ResourceExhaustedError(
        absl::StrCat("not enough memory to load model ", options.bundle_dir));
  } catch (const std::exception& error) {
    return absl::InternalError(
        absl::StrCat("cannot load model ", options.bundle_dir, ": ", error.what()));
  }
}

template absl::StatusOr<std::unique_ptr<CpuForward<float>>> CreateCpuForward(const EngineOptions&);
template absl::StatusOr<std::unique_ptr<CpuForward<Bf16>>> CreateCpuForward(const EngineOptions&);

namespace {

absl::Status CheckOptions(const EngineOptions& options) {
  if (options.max_running < 1) {
    return absl::InvalidArgumentError(
        absl::StrCat("max_running must be at least 1, got ", options.max_running));
  }
  if (options.kv_pool_bytes < 1) {
    return absl::InvalidArgumentError(
        absl::StrCat("kv_pool_bytes must be positive, got ", options.kv_pool_bytes));
  }
  if (options.threads < 0) {
    return absl::InvalidArgumentError(
        absl::StrCat("threads must be at least 0 (0 = all cores), got ", options.threads));
  }
  return absl::OkStatus();
}

template <typename T>
absl::StatusOr<std::unique_ptr<Engine>> CreateOf(const EngineOptions& options) {
  PLUMB_ASSIGN_OR_RETURN(auto forward, CreateCpuForward<T>(options));
  SchedulerOptions scheduler;
  scheduler.max_running = options.max_running;
  scheduler.kv_pool_bytes = options.kv_pool_bytes;
  return CreateBatchEngine(std::move(forward), scheduler);
}

}  // namespace

absl::StatusOr<std::unique_ptr<Engine>> CreateCpuEngine(const EngineOptions& options) {
  PLUMB_RETURN_IF_ERROR(CheckOptions(options));
  return options.dtype == ComputeDtype::kF32 ? CreateOf<float>(options) : CreateOf<Bf16>(options);
}

}  // namespace plumbline
