#include "services/worker/worker.h"

#include <unistd.h>

#include <memory>
#include <random>
#include <utility>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/strings/strip.h"
#include "services/common/logging.h"
#include "services/common/machine.h"
#include "services/common/status_macros.h"
#include "services/engine/cuda/cuda_engine.h"
#include "services/worker/generation_service.h"
#include "services/worker/step_metrics.h"
#include "services/worker/sync_loop.h"
#include "services/worker/worker_numerics.h"

namespace plumbline {
namespace {

constexpr uint32_t kDefaultDrainSeconds = 20;
constexpr uint32_t kDefaultMaxRunning = 256;
// A GPU's: a diagnosis of an 8B model takes 0.88 of the time that it takes with 256 of both
// (docs/gpu.md).
constexpr uint32_t kGpuMaxRunning = 512;
constexpr uint32_t kGpuChunkRows = 512;
constexpr uint32_t kDefaultKvPoolMib = 4096;
constexpr uint32_t kMaxGpus = 1024;
// Holds the states of about 80 prompts of 64 tokens of a model of 8 billion parameters.
constexpr int64_t kGpuPrefixBytes = int64_t{2} << 30;

std::string RandomHex() {
  std::random_device random;
  return absl::StrFormat("%08x%08x", random(), random());
}

std::string DefaultWorkerId() {
  char host[256] = "worker";
  gethostname(host, sizeof(host) - 1);
  return absl::StrCat(host, "-", RandomHex().substr(0, 6));
}

// What runs the models: the processor's cores or one GPU.
struct Device {
  bool gpu = false;
  CudaOptions cuda;

  EngineFactory factory() const {
    if (!gpu) return CreateCpuEngine;
    return [cuda = cuda](const EngineOptions& options) { return CreateCudaEngine(options, cuda); };
  }
  // A GPU's memory belongs to one model and its cache.
  size_t max_loaded_models() const { return gpu ? 1 : 2; }
};

absl::StatusOr<Device> DeviceOf(const v1::WorkerConfig& config) {
  Device device;
  absl::string_view text = config.device();
  if (text.empty() || text == "cpu") return device;
  uint32_t number = 0;
  device.gpu = absl::ConsumePrefix(&text, "cuda");
  const bool numbered = absl::ConsumePrefix(&text, ":");
  const bool valid = device.gpu && (numbered ? absl::SimpleAtoi(text, &number) : text.empty());
  if (!valid || number >= kMaxGpus) {
    return absl::InvalidArgumentError(absl::StrCat(
        "device must be \"cpu\", \"cuda\" or \"cuda:N\", got \"", config.device(), "\""));
  }
  device.cuda.device = static_cast<int>(number);
  PLUMB_RETURN_IF_ERROR(CheckGpu(device.cuda.device));
  if (config.chunk_rows() > 512) {
    return absl::InvalidArgumentError(
        absl::StrCat("chunk_rows must be 64, 128, 256 or 512, got ", config.chunk_rows()));
  }
  device.cuda.chunk_rows =
      static_cast<int>(config.chunk_rows() == 0 ? kGpuChunkRows : config.chunk_rows());
  if (config.max_positions() != 0) device.cuda.max_positions = config.max_positions();
  return device;
}

absl::StatusOr<EngineOptions> EngineOptionsOf(const v1::WorkerConfig& config, bool on_gpu) {
  EngineOptions options;
  if (config.dtype() == "bf16") {
    options.dtype = ComputeDtype::kBf16;
  } else if (!config.dtype().empty() && config.dtype() != "fp32") {
    return absl::InvalidArgumentError(
        absl::StrCat("dtype must be \"fp32\" or \"bf16\", got \"", config.dtype(), "\""));
  }
  if (config.threads() > 1024) {
    return absl::InvalidArgumentError(
        absl::StrCat("threads must be 0..1024 (0 = all cores), got ", config.threads()));
  }
  options.threads = static_cast<int>(config.threads());
  const uint32_t default_running = on_gpu ? kGpuMaxRunning : kDefaultMaxRunning;
  options.max_running =
      static_cast<int>(config.max_running() == 0 ? default_running : config.max_running());
  const uint32_t default_pool = on_gpu ? 0 : kDefaultKvPoolMib;
  options.kv_pool_bytes = int64_t{config.kv_pool_mib() == 0 ? default_pool : config.kv_pool_mib()}
                          << 20;
  if (on_gpu) options.prefix_cache_bytes = kGpuPrefixBytes;
  return options;
}

template <typename Service>
absl::StatusOr<std::unique_ptr<RpcClient<Service>>> ClientOrNull(const v1::Endpoint& endpoint) {
  if (endpoint.address().empty()) return std::unique_ptr<RpcClient<Service>>();
  return RpcClient<Service>::Create(endpoint);
}

// Everything of a worker, in the order in which it must be taken down (last first).
struct WorkerParts {
  WorkerParts() = default;
  WorkerParts(const WorkerParts&) = delete;
  WorkerParts& operator=(const WorkerParts&) = delete;
  // A sequence that outlasts the drain answers to parts that go before the runner. The loop first,
  // so that no cell is reported as failed because this worker ends.
  ~WorkerParts() {
    if (sync != nullptr) sync->Stop();
    if (runner != nullptr) runner->Stop();
  }

  std::unique_ptr<ModelCatalog> catalog;
  std::unique_ptr<EngineRunner> runner;
  std::unique_ptr<RpcClient<v1::ActivationCapture>> capture_client;
  std::unique_ptr<CaptureCalibrationSource> calibrations;
  std::unique_ptr<EngineCellExecutor> executor;
  std::unique_ptr<EngineCaptureSender> captures;
  std::unique_ptr<GenerationService> generation;
  std::unique_ptr<SyncLoop> sync;
  v1::NumericsClass numerics;
};

absl::Status AddSyncLoop(const v1::WorkerConfig& config, const EngineOptions& options,
                         Process& process, WorkerParts* parts) {
  SyncLoopOptions sync;
  sync.worker_id = config.worker_id().empty() ? DefaultWorkerId() : config.worker_id();
  sync.incarnation_id = RandomHex();
  sync.max_cells = options.max_running * 2;
  for (const CatalogEntry& entry : parts->catalog->entries()) {
    *sync.capabilities.add_models() = entry.info;
  }
  *sync.capabilities.mutable_numerics() = parts->numerics;
  sync.capabilities.set_max_cells(static_cast<uint32_t>(sync.max_cells));
  sync.capabilities.set_version(std::string(BuildVersion()));
  sync.capabilities.set_machine(DescribeMachine());
  sync.capabilities.set_tokens_per_second(
      parts->runner->ProbeRate(parts->catalog->entries().front()));
  PLUMB_ASSIGN_OR_RETURN(auto client, RpcClient<v1::Work>::Create(config.coordinator()));
  EngineRunner* runner = parts->runner.get();
  parts->sync = std::make_unique<SyncLoop>(
      std::move(sync), std::make_unique<GrpcCoordinatorLink>(std::move(client)),
      parts->executor.get(), parts->captures.get(), process.metrics, process.clock,
      [runner] { return runner->tokens_computed(); });
  return absl::OkStatus();
}

absl::StatusOr<std::unique_ptr<WorkerParts>> BuildParts(const v1::WorkerConfig& config,
                                                        Process& process) {
  if (config.model_roots().empty()) {
    return absl::InvalidArgumentError(
        "model_roots is empty: name at least one folder with model bundles");
  }
  PLUMB_ASSIGN_OR_RETURN(const Device device, DeviceOf(config));
  PLUMB_ASSIGN_OR_RETURN(const EngineOptions options, EngineOptionsOf(config, device.gpu));
  auto parts = std::make_unique<WorkerParts>();
  PLUMB_ASSIGN_OR_RETURN(parts->catalog, ModelCatalog::Create({config.model_roots().begin(),
                                                               config.model_roots().end()}));
  parts->runner = std::make_unique<EngineRunner>(
      device.factory(), options, device.max_loaded_models(),
      [metrics = process.metrics](const EngineStats& added, double seconds) {
        CountStep(added, seconds, metrics);
      },
      [metrics = process.metrics](int active) { metrics->Set(metric::kWorkerActive, {}, active); });
  PLUMB_ASSIGN_OR_RETURN(parts->numerics,
                         NumericsOf(*parts->runner, *parts->catalog, options.dtype, device.gpu));
  PLUMB_ASSIGN_OR_RETURN(auto capture, ClientOrNull<v1::ActivationCapture>(config.capture()));
  PLUMB_ASSIGN_OR_RETURN(parts->capture_client,
                         ClientOrNull<v1::ActivationCapture>(config.capture()));
  parts->calibrations = std::make_unique<CaptureCalibrationSource>(parts->capture_client.get());
  parts->executor = std::make_unique<EngineCellExecutor>(parts->catalog.get(), parts->runner.get(),
                                                         parts->calibrations.get());
  parts->captures = std::make_unique<EngineCaptureSender>(parts->catalog.get(), parts->runner.get(),
                                                          std::move(capture));
  parts->generation = std::make_unique<GenerationService>(
      parts->catalog.get(), parts->runner.get(), parts->calibrations.get(), parts->numerics,
      options.max_running * 16);
  if (!config.coordinator().address().empty()) {
    PLUMB_RETURN_IF_ERROR(AddSyncLoop(config, options, process, parts.get()));
  }
  return parts;
}

}  // namespace

absl::Status RunWorker(const v1::WorkerConfig& config, Process& process) {
  PLUMB_ASSIGN_OR_RETURN(const std::unique_ptr<WorkerParts> parts, BuildParts(config, process));
  spdlog::info("{} models, numerics class {}: {}", parts->catalog->entries().size(),
               parts->numerics.id().substr(0, 12), parts->numerics.text());
  if (parts->sync != nullptr) parts->sync->Start();
  const uint32_t drain =
      config.server().drain_seconds() == 0 ? kDefaultDrainSeconds : config.server().drain_seconds();
  RpcServerOptions server;
  server.default_listen = kWorkerListen;
  server.config = config.server();
  server.services = {Hosted<v1::Generation>(parts->generation.get())};
  server.metrics = process.metrics;
  return ServeUntilShutdown(std::move(server), process, [&parts, drain] {
    if (parts->sync != nullptr) parts->sync->Drain(absl::Seconds(drain));
  });
}

}  // namespace plumbline
