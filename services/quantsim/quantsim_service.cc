#include "services/quantsim/quantsim_service.h"

#include <algorithm>
#include <set>

#include "absl/strings/str_cat.h"
#include "services/capture/activation_block.h"
#include "services/common/parallel.h"
#include "services/common/status_macros.h"
#include "services/rpc/server.h"
#include "services/rpc/status.h"

namespace plumbline {
namespace {

constexpr int kMaxFormats = 512;

Calibration CalibrationFrom(const v1::ChannelStats& stats) {
  return {{stats.absmax().begin(), stats.absmax().end()},
          {stats.min().begin(), stats.min().end()},
          {stats.max().begin(), stats.max().end()}};
}

absl::Status CheckHeader(const v1::CaptureHeader& header, const v1::SimulateRequest& request) {
  PLUMB_RETURN_IF_ERROR(CheckCaptureHeader(header));
  if (header.layers().empty()) {
    return absl::InvalidArgumentError(
        "the activations are statistics alone: record raw blocks of the layers to simulate");
  }
  for (uint32_t channel : request.outlier_channels()) {
    const uint32_t channels = header.num_kv_heads() * header.head_dim();
    if (channel >= channels) {
      return absl::InvalidArgumentError(absl::StrCat("outlier_channels must be below ", channels,
                                                     " (kv heads x head_dim), got ", channel));
    }
  }
  for (uint32_t layer : request.layers()) {
    if (std::find(header.layers().begin(), header.layers().end(), layer) == header.layers().end()) {
      return absl::InvalidArgumentError(
          absl::StrCat("layers: layer ", layer, " is not among the activations"));
    }
  }
  return absl::OkStatus();
}

}  // namespace

absl::StatusOr<std::unique_ptr<QuantsimService>> QuantsimService::Create(
    const v1::QuantsimConfig& config, Metrics* metrics) {
  std::unique_ptr<RpcClient<v1::ActivationCapture>> capture;
  if (!config.capture().address().empty()) {
    auto client = RpcClient<v1::ActivationCapture>::Create(config.capture());
    if (!client.ok()) return Annotate(client.status(), "capture");
    capture = *std::move(client);
  }
  return std::unique_ptr<QuantsimService>(new QuantsimService(std::move(capture), metrics));
}

absl::StatusOr<QuantsimService::Task> QuantsimService::Plan(grpc::ServerContext* context,
                                                            const v1::SimulateRequest& request) {
  if (request.formats().empty() || request.formats_size() > kMaxFormats) {
    return absl::InvalidArgumentError(absl::StrCat("formats must have 1..", kMaxFormats,
                                                   " entries, got ", request.formats_size()));
  }
  Task task;
  for (int i = 0; i < request.formats_size(); ++i) {
    auto format = ParseFormatPair(request.formats(i), request.paper_quirks());
    if (!format.ok()) return Annotate(format.status(), absl::StrCat("formats[", i, "]"));
    task.texts.push_back(request.formats(i));
    task.formats.push_back(*std::move(format));
  }
  task.options.outlier_channels.assign(request.outlier_channels().begin(),
                                       request.outlier_channels().end());
  task.options.per_channel = request.per_channel();
  task.options.cancelled = [context] { return context->IsCancelled(); };
  PLUMB_RETURN_IF_ERROR(Calibrate(context, &task));
  return task;
}

absl::Status QuantsimService::Calibrate(grpc::ServerContext* context, Task* task) {
  std::set<std::string> digests;
  for (const LayerFormat& format : task->formats) {
    for (const TensorFormat* side : {&format.key, &format.value}) {
      if (side->scope == Scope::kCalibrated) digests.insert(side->calibration_digest);
    }
  }
  for (const std::string& digest : digests) {
    if (capture_ == nullptr) {
      return absl::FailedPreconditionError(absl::StrCat(
          "a format is calibrated by capture ", digest, " but no capture service is configured"));
    }
    v1::GetStatsRequest request;
    request.set_capture(digest);
    PLUMB_ASSIGN_OR_RETURN(
        v1::GetStatsResponse stats,
        capture_->CallFrom(*context, &v1::ActivationCapture::Stub::GetStats, request));
    for (const v1::LayerStats& layer : stats.layers()) {
      task->options.calibrations[{digest, layer.layer()}] = {CalibrationFrom(layer.keys()),
                                                             CalibrationFrom(layer.values())};
    }
  }
  return absl::OkStatus();
}

absl::Status QuantsimService::RunLayer(uint32_t layer,
                                       const std::vector<v1::ActivationBlock>& blocks, Task* task) {
  PLUMB_ASSIGN_OR_RETURN(std::vector<v1::FormatError> errors,
                         SimulateFormats(task->options, task->texts, task->formats, layer, blocks));
  if (metrics_ != nullptr) {
    double elements = 0;
    for (const auto& block : blocks) elements += static_cast<double>(block.keys().size()) / 2;
    metrics_->Increment(metric::kSimulatedElements, {},
                        elements * static_cast<double>(task->formats.size()));
  }
  task->by_layer.push_back(std::move(errors));
  return absl::OkStatus();
}

// Blocks come in (layer, prompt) order, so that a call has one layer at a time in memory.
absl::Status QuantsimService::FromCapture(grpc::ServerContext* context,
                                          const v1::SimulateRequest& request, Task* task,
                                          std::string* digest) {
  if (capture_ == nullptr) {
    return absl::FailedPreconditionError(
        "no capture service is configured here (capture.address): send the activations along");
  }
  v1::ReadRequest read;
  read.set_capture(request.capture());
  *read.mutable_layers() = request.layers();
  const auto call = capture_->ContextFrom(*context);
  const auto stream = capture_->stub().Read(call.get(), read);
  v1::ReadResponse message;
  absl::Status status;
  std::vector<v1::ActivationBlock> blocks;
  std::unique_ptr<BlockChecker> checker;
  while (status.ok() && stream->Read(&message)) {
    if (message.has_header()) {
      *digest = message.capture_digest();
      task->options.header = message.header();
      status = CheckHeader(message.header(), request);
      checker = std::make_unique<BlockChecker>(message.header());
      continue;
    }
    status = checker == nullptr ? absl::InternalError("the capture service sent no header")
                                : checker->Check(message.block());
    if (!status.ok()) break;
    if (!blocks.empty() && blocks.back().layer() != message.block().layer()) {
      status = RunLayer(blocks.back().layer(), blocks, task);
      blocks.clear();
    }
    blocks.push_back(std::move(*message.mutable_block()));
  }
  if (!status.ok()) {
    call->TryCancel();
    (void)stream->Finish();
    return status;
  }
  PLUMB_RETURN_IF_ERROR(Annotate(FromGrpcStatus(stream->Finish()),
                                 absl::StrCat("capture service at ", capture_->address())));
  if (blocks.empty()) return absl::InternalError("the capture service sent no block");
  return RunLayer(blocks.back().layer(), blocks, task);
}

absl::Status QuantsimService::FromInline(const v1::SimulateRequest& request, Task* task) {
  const v1::InlineActivations& activations = request.inline_activations();
  task->options.header = activations.header();
  // An id is for keeping; activations sent along are not kept.
  if (task->options.header.capture_id().empty()) task->options.header.set_capture_id("inline");
  PLUMB_RETURN_IF_ERROR(CheckHeader(task->options.header, request));
  BlockChecker checker(task->options.header);
  std::map<uint32_t, std::map<uint32_t, v1::ActivationBlock>> sorted;
  for (int i = 0; i < activations.blocks_size(); ++i) {
    const v1::ActivationBlock& block = activations.blocks(i);
    PLUMB_RETURN_IF_ERROR(Annotate(checker.Check(block), absl::StrCat("blocks[", i, "]")));
    sorted[block.layer()][block.prompt_index()] = block;
  }
  PLUMB_RETURN_IF_ERROR(checker.CheckComplete());
  for (const auto& [layer, by_prompt] : sorted) {
    const auto& wanted = request.layers();
    if (!wanted.empty() && std::find(wanted.begin(), wanted.end(), layer) == wanted.end()) continue;
    std::vector<v1::ActivationBlock> blocks;
    for (const auto& [prompt, block] : by_prompt) blocks.push_back(block);
    PLUMB_RETURN_IF_ERROR(RunLayer(layer, blocks, task));
  }
  return absl::OkStatus();
}

absl::Status QuantsimService::Run(grpc::ServerContext* context, const v1::SimulateRequest& request,
                                  v1::SimulateResponse* response) {
  if (request.source_case() == v1::SimulateRequest::SOURCE_NOT_SET) {
    return absl::InvalidArgumentError(
        "source is not set: name a capture or send activations along");
  }
  PLUMB_ASSIGN_OR_RETURN(Task task, Plan(context, request));
  std::string digest;
  PLUMB_RETURN_IF_ERROR(request.has_inline_activations()
                            ? FromInline(request, &task)
                            : FromCapture(context, request, &task, &digest));
  response->set_capture_digest(digest);
  for (size_t format = 0; format < task.formats.size(); ++format) {
    for (std::vector<v1::FormatError>& layer : task.by_layer) {
      *response->add_errors() = std::move(layer[format]);
    }
  }
  return absl::OkStatus();
}

grpc::Status QuantsimService::Simulate(grpc::ServerContext* context,
                                       const v1::SimulateRequest* request,
                                       v1::SimulateResponse* response) {
  return ToGrpcStatus(Run(context, *request, response));
}

grpc::Status QuantsimService::QuantizeTensor(grpc::ServerContext*,
                                             const v1::QuantizeTensorRequest* request,
                                             v1::QuantizeTensorResponse* response) {
  absl::StatusOr<v1::QuantizeTensorResponse> result = QuantizeOneTensor(*request);
  if (!result.ok()) return ToGrpcStatus(result.status());
  if (metrics_ != nullptr) {
    metrics_->Increment(metric::kSimulatedElements, {},
                        static_cast<double>(request->values().size()) / 4);
  }
  *response = *std::move(result);
  return grpc::Status::OK;
}

absl::Status RunQuantsim(const v1::QuantsimConfig& config, Process& process) {
  SetThreads(0);
  PLUMB_ASSIGN_OR_RETURN(auto service, QuantsimService::Create(config, process.metrics));
  return ServeUntilShutdown({.default_listen = kQuantsimListen,
                             .config = config.server(),
                             .services = {Hosted<v1::QuantizationSimulation>(service.get())},
                             .metrics = process.metrics},
                            process);
}

}  // namespace plumbline
