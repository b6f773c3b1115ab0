#include "services/worker/capture_sender.h"

#include <cstring>
#include <future>
#include <map>
#include <utility>

#include "absl/strings/str_cat.h"
#include "services/common/logging.h"
#include "services/common/status_macros.h"
#include "services/engine/cpu/rope_table.h"
#include "services/worker/layer_stats_sum.h"
#include "services/worker/request_builder.h"

namespace plumbline {
namespace {

using PromptResult = absl::StatusOr<SequenceResult>;

std::string FloatBytes(const std::vector<float>& values) {
  static_assert(sizeof(float) == 4);
  std::string bytes(values.size() * sizeof(float), '\0');
  std::memcpy(bytes.data(), values.data(), bytes.size());
  return bytes;
}

absl::StatusOr<SequenceRequest> CaptureRequest(const CatalogEntry& entry,
                                               const v1::CaptureTask& task,
                                               const v1::Prompt& prompt) {
  SequenceRequest request;
  PLUMB_ASSIGN_OR_RETURN(
      request.prompt_tokens,
      EncodePrompt(*entry.text, {prompt.turns().begin(), prompt.turns().end()}, task.decoding()));
  PLUMB_ASSIGN_OR_RETURN(request.layers, ResolvePlan("*:fp", entry.info, false));
  request.max_new_tokens = 1;
  for (uint32_t layer : task.layers()) {
    request.capture_layers.push_back(LayerIndex(static_cast<int32_t>(layer)));
  }
  for (uint32_t layer : task.statistics_layers()) {
    request.measure_layers.push_back(LayerIndex(static_cast<int32_t>(layer)));
  }
  return request;
}

// Of the prompt, as any layer tells them.
uint64_t TokensOf(const SequenceResult& result) {
  if (!result.captured.empty()) return static_cast<uint64_t>(result.captured[0].tokens);
  return result.measured.empty() ? 0 : static_cast<uint64_t>(result.measured[0].tokens);
}

// What a task sends, prompt by prompt in their order.
class Upload {
 public:
  using Stream = grpc::ClientWriter<v1::RecordRequest>;
  Upload(Stream* stream, v1::CaptureHeader header) : stream_(stream) {
    v1::RecordRequest message;
    *message.mutable_header() = std::move(header);
    open_ = stream_->Write(message);
  }
  // False once the service has ended the stream; its status says why.
  bool open() const { return open_; }

  void AddPrompt(uint32_t prompt, const SequenceResult& result) {
    for (const CapturedLayer& layer : result.captured) {
      v1::RecordRequest message;
      v1::ActivationBlock* block = message.mutable_block();
      block->set_layer(static_cast<uint32_t>(layer.layer.value()));
      block->set_prompt_index(prompt);
      block->set_tokens(static_cast<uint32_t>(layer.tokens));
      block->set_keys(FloatBytes(layer.keys));
      block->set_values(FloatBytes(layer.values));
      block->set_queries(FloatBytes(layer.queries));
      open_ = open_ && stream_->Write(message);
    }
    for (const MeasuredLayer& layer : result.measured) sums_[layer.layer.value()].Add(layer);
  }
  void SendStatistics() {
    for (const auto& [layer, sum] : sums_) {
      v1::RecordRequest message;
      *message.mutable_statistics() = sum.Stats();
      open_ = open_ && stream_->Write(message);
    }
  }

 private:
  Stream* stream_;
  bool open_;
  std::map<int, LayerStatsSum> sums_;
};

}  // namespace

absl::StatusOr<v1::CaptureHeader> CaptureHeaderOf(const v1::CaptureTask& task,
                                                  const CatalogEntry& entry) {
  v1::CaptureHeader header;
  header.set_capture_id(task.capture_id());
  header.set_model_digest(task.model_digest());
  header.set_numerics_class_id(task.numerics_class_id());
  header.set_num_kv_heads(entry.info.num_kv_heads());
  header.set_num_heads(entry.info.num_heads());
  header.set_head_dim(entry.info.head_dim());
  *header.mutable_layers() = task.layers();
  *header.mutable_statistics_layers() = task.statistics_layers();
  header.set_prompts(static_cast<uint32_t>(task.prompts_size()));
  PLUMB_ASSIGN_OR_RETURN(const RopeTable rope,
                         RopeTable::Create(entry.text->config, /*bf16=*/false));
  for (const float frequency : rope.inverse_frequencies()) {
    header.add_rope_inverse_frequency(double{frequency});
  }
  return header;
}

EngineCaptureSender::EngineCaptureSender(const ModelCatalog* catalog, EngineRunner* runner,
                                         std::unique_ptr<RpcClient<v1::ActivationCapture>> client)
    : catalog_(catalog), runner_(runner), client_(std::move(client)) {
  thread_ = std::thread([this] { Run(); });
}

EngineCaptureSender::~EngineCaptureSender() {
  {
    std::lock_guard<std::mutex> lock(mutex_);
    stopping_ = true;
  }
  changed_.notify_all();
  thread_.join();
}

void EngineCaptureSender::Start(const v1::CaptureTask& task, Done done) {
  {
    std::lock_guard<std::mutex> lock(mutex_);
    waiting_.push_back({task, std::move(done)});
  }
  changed_.notify_all();
}

void EngineCaptureSender::Run() {
  std::unique_lock<std::mutex> lock(mutex_);
  while (true) {
    changed_.wait(lock, [this] { return stopping_ || !waiting_.empty(); });
    if (stopping_) return;
    Waiting next = std::move(waiting_.front());
    waiting_.erase(waiting_.begin());
    lock.unlock();
    absl::StatusOr<v1::CaptureResult> result = Execute(next.task);
    if (!result.ok()) {
      spdlog::warn("capture {}: {}", next.task.capture_id(), result.status().ToString());
      v1::CaptureResult failed;
      failed.set_capture_id(next.task.capture_id());
      failed.mutable_status()->set_code(static_cast<int>(result.status().code()));
      failed.mutable_status()->set_message(std::string(result.status().message()));
      result = failed;
    }
    next.done(*std::move(result));
    lock.lock();
  }
}

absl::StatusOr<v1::CaptureResult> EngineCaptureSender::Execute(const v1::CaptureTask& task) {
  if (client_ == nullptr) {
    return absl::FailedPreconditionError(
        "this worker has no capture endpoint: set `capture.address` in its config");
  }
  PLUMB_ASSIGN_OR_RETURN(const CatalogEntry* entry, catalog_->Find(task.model_digest()));
  PLUMB_ASSIGN_OR_RETURN(v1::CaptureHeader header, CaptureHeaderOf(task, *entry));
  std::vector<std::future<PromptResult>> results;
  for (const v1::Prompt& prompt : task.prompts()) {
    PLUMB_ASSIGN_OR_RETURN(SequenceRequest request, CaptureRequest(*entry, task, prompt));
    auto answer = std::make_shared<std::promise<PromptResult>>();
    results.push_back(answer->get_future());
    runner_->Submit(*entry, std::move(request),
                    [answer](PromptResult result) { answer->set_value(std::move(result)); });
  }
  grpc::ClientContext context;
  client_->Prepare(&context);
  v1::RecordResponse response;
  auto stream = client_->stub().Record(&context, &response);
  Upload upload(stream.get(), std::move(header));
  v1::CaptureResult capture;
  absl::Status failed;
  for (size_t p = 0; p < results.size(); ++p) {
    PromptResult result =
        results[p].get();  // every future is awaited: the engine holds its promise
    if (!result.ok()) failed = result.status();
    if (!failed.ok() || !upload.open()) continue;
    upload.AddPrompt(static_cast<uint32_t>(p), *result);
    capture.set_tokens(capture.tokens() + TokensOf(*result));
  }
  if (failed.ok()) upload.SendStatistics();
  if (!failed.ok()) {
    context.TryCancel();  // a stream that ends badly leaves nothing behind
    stream->Finish();
    return failed;
  }
  stream->WritesDone();
  const grpc::Status status = stream->Finish();
  if (!status.ok()) return Annotate(FromGrpcStatus(status), client_->address());
  capture.set_capture_id(task.capture_id());
  capture.set_capture_digest(response.capture_digest());
  return capture;
}

}  // namespace plumbline
