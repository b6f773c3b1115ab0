#include "services/engine/cuda/model_step.h"

#include <algorithm>
#include <cmath>

#include "absl/strings/str_cat.h"
#include "kernels/cuda/attention.h"
#include "kernels/cuda/channel_stats.h"
#include "kernels/cuda/cublaslt_loader.h"
#include "kernels/cuda/feed.h"
#include "kernels/cuda/kv_write.h"
#include "kernels/cuda/row_ops.h"
#include "kernels/cuda/sample.h"
#include "services/common/status_macros.h"
#include "services/engine/cuda/step_graph.h"

namespace plumbline {
namespace {

constexpr int64_t kProductWorkspace = int64_t{32} << 20;
// A workspace no larger than this holds counters; every product of a body then has its own.
constexpr int64_t kCounterBytes = 1024;
constexpr int kSmallestContext = 256;

// Contexts are bounded by powers of two, so that few graphs serve all.
int ContextBound(int64_t longest, int64_t max_positions) {
  int64_t bound = kSmallestContext;
  while (bound < longest) bound *= 2;
  return static_cast<int>(std::min(bound, std::max<int64_t>(longest, max_positions)));
}

int64_t CounterBytes(const ModelStepOptions& options) {
  return int64_t{ModelStep::kBodyProducts} * options.dims.layers * options.limits.max_chunks *
         kCounterBytes;
}

void Tell(const BodyHooks& hooks, StepPart part) {
  if (hooks.on_part) hooks.on_part(part);
}

}  // namespace

ModelStep::Places::Places(const ModelStepOptions& options) {
  const cuda::ModelDims& dims = options.dims;
  const int64_t element = DtypeBytes(options.dtype);
  const int64_t rows = options.limits.max_rows(), chunk = options.limits.chunk_rows;
  Carver carver;
  blob = carver.Take(StepLayout(options.limits, options.limits.max_chunks).bytes);
  tokens = carver.Take(rows * int64_t{sizeof(int32_t)});
  fed = carver.Take(options.slots * int64_t{sizeof(int32_t)});
  hidden = carver.Take(rows * dims.hidden * element);
  normed = carver.Take(rows * dims.hidden * element);
  qkv = carver.Take(rows * dims.qkv_dim() * element);
  attended = carver.Take(rows * dims.q_dim() * element);
  projected = carver.Take(rows * dims.hidden * element);
  exact_keys = carver.Take(rows * dims.kv_dim() * element);
  exact_values = carver.Take(rows * dims.kv_dim() * element);
  gate_up = carver.Take(chunk * 2 * dims.inner * element);
  activated = carver.Take(chunk * dims.inner * element);
  gathered = carver.Take(chunk * dims.hidden * element);
  head_normed = carver.Take(chunk * dims.hidden * element);
  logits = carver.Take(chunk * dims.vocab * element);
  outcomes = carver.Take(rows * int64_t{sizeof(cuda::SampleOutcome)});
  product_workspace = carver.Take(kProductWorkspace);
  product_counters = carver.Take(CounterBytes(options));
  attention_workspace = carver.Take(cuda::AttentionWorkspaceBytes(
      dims, static_cast<int>(rows), static_cast<int>(options.max_positions)));
  bytes = carver.total();
}

std::array<std::pair<int, int>, ModelStep::kProductCount> ModelStep::ProductShapes(
    const cuda::ModelDims& dims) {
  return {{{dims.hidden, dims.qkv_dim()},
           {dims.q_dim(), dims.hidden},
           {dims.hidden, 2 * dims.inner},
           {dims.inner, dims.hidden},
           {dims.hidden, dims.vocab}}};
}

int64_t ModelStep::BytesNeeded(const ModelStepOptions& options) {
  int64_t check = 0;
  for (const auto& [in, out] : ProductShapes(options.dims)) {
    check = std::max(check, cuda::Linear::CheckBytes(options.dtype, options.limits.chunk_rows, in,
                                                     out, kProductWorkspace));
  }
  return Places(options).bytes + check;
}

ModelStep::ModelStep(const ModelStepOptions& options, const CudaWeights* weights,
                     cudaStream_t stream)
    : options_(options), places_(options), weights_(weights), stream_(stream) {}

absl::StatusOr<std::unique_ptr<ModelStep>> ModelStep::Create(const ModelStepOptions& options,
                                                             const CudaWeights* weights,
                                                             cudaStream_t stream) {
  std::unique_ptr<ModelStep> step(new ModelStep(options, weights, stream));
  PLUMB_ASSIGN_OR_RETURN(step->memory_, DeviceBuffer::Create(step->places_.bytes, "a step"));
  PLUMB_RETURN_IF_ERROR(CudaStatus(
      cudaMemsetAsync(step->memory_.data(), 0, static_cast<size_t>(step->places_.bytes), stream),
      "a step's memory"));
  PLUMB_RETURN_IF_ERROR(step->CreateProducts());
  return step;
}

ModelStep::~ModelStep() {
  graphs_.Clear();
  if (cublas_ != nullptr) cublasLtDestroy(cublas_);
}

absl::Status ModelStep::CreateProducts() {
  if (const cublasStatus_t status = cublasLtCreate(&cublas_); status != CUBLAS_STATUS_SUCCESS) {
    const std::string problem = cuda::CublasLtProblem();
    return absl::UnavailableError(
        problem.empty()
            ? absl::StrCat("cublasLt cannot start: status ", status)
            : absl::StrCat("cublasLt is needed for the GPU and was not found (", problem,
                           "): install it, or name its folder in LD_LIBRARY_PATH"));
  }
  const auto shapes = ProductShapes(options_.dims);
  for (int i = 0; i < kProductCount; ++i) {
    cuda::LinearFailure failure;
    products_[i] =
        cuda::Linear::Create(cublas_, options_.dtype, options_.limits.chunk_rows, shapes[i].first,
                             shapes[i].second, kProductWorkspace, &failure);
    if (products_[i] != nullptr) continue;
    const std::string text =
        absl::StrCat("no product of ", options_.limits.chunk_rows, " rows from ", shapes[i].first,
                     " to ", shapes[i].second, " values: ", failure.text);
    if (failure.error == cudaSuccess) return absl::InvalidArgumentError(text);
    return CudaStatus(failure.error, text);
  }
  return absl::OkStatus();
}

std::string ModelStep::algorithms() const {
  static constexpr const char* kNames[kProductCount] = {"qkv", "out", "gate_up", "down", "head"};
  std::string text;
  for (int i = 0; i < kProductCount; ++i) {
    absl::StrAppend(&text, i == 0 ? "" : " ", kNames[i], "=[", products_[i]->algorithm(), "]");
  }
  return text;
}

cuda::StepTables ModelStep::Tables(int chunks) const {
  const StepLayout layout(options_.limits, chunks);
  const auto table = [&](int64_t offset) { return memory_.at(places_.blob + offset); };
  cuda::StepTables tables;
  tables.max_rows = layout.rows;
  tables.max_runs = layout.runs;
  tables.max_pages = sources_.max_pages;
  tables.row_run = reinterpret_cast<const int32_t*>(table(layout.row_run));
  tables.row_position = reinterpret_cast<const int32_t*>(table(layout.row_position));
  tables.runs = reinterpret_cast<const cuda::Run*>(table(layout.run_table));
  tables.measured = reinterpret_cast<const cuda::MeasuredRuns*>(table(layout.measured));
  tables.pages = sources_.pages;
  tables.raw_pages = sources_.raw_pages;
  tables.plan_rules = sources_.plan_rules;
  tables.rules = sources_.rules;
  tables.frozen = sources_.frozen;
  tables.max_groups = sources_.max_groups;
  return tables;
}

cudaError_t ModelStep::Multiply(Product product, int place, const void* x, int64_t weight,
                                void* y) const {
  const cuda::Linear& linear = *products_[product];
  void* workspace = memory_.at(places_.product_workspace);
  if (product < kBodyProducts && linear.workspace_bytes() <= kCounterBytes) {
    const int64_t products = int64_t{options_.dims.layers} * options_.limits.max_chunks;
    workspace = memory_.at(places_.product_counters + (product * products + place) * kCounterBytes);
  }
  return linear.Run(x, weights_->at(weight), y, workspace, stream_);
}

absl::Status ModelStep::StartBody(const void* blob, int chunks, int64_t longest,
                                  const BodyHooks& hooks) {
  const StepLayout layout(options_.limits, chunks);
  const int context = ContextBound(longest, options_.max_positions);
  PLUMB_RETURN_IF_ERROR(
      CudaStatus(cudaMemcpyAsync(memory_.at(places_.blob), blob, static_cast<size_t>(layout.bytes),
                                 cudaMemcpyHostToDevice, stream_),
                 "uploading a step"));
  if (hooks.any()) return LaunchBody(chunks, context, hooks);
  PLUMB_ASSIGN_OR_RETURN(const cudaGraphExec_t graph, Graph(chunks, context, hooks.measure_out));
  return CudaStatus(cudaGraphLaunch(graph, stream_), "replaying a step");
}

absl::StatusOr<cudaGraphExec_t> ModelStep::Graph(int chunks, int context, char* measure_out) {
  const auto key = std::make_tuple(chunks, context, measure_out != nullptr);
  if (const GraphExec* held = graphs_.Use(key); held != nullptr) return held->get();
  graphs_.MakeRoom();
  PLUMB_RETURN_IF_ERROR(CudaStatus(
      cudaStreamBeginCapture(stream_, cudaStreamCaptureModeThreadLocal), "recording a step"));
  BodyHooks hooks;
  hooks.measure_out = measure_out;
  const absl::Status launched = LaunchBody(chunks, context, hooks);
  cudaGraph_t graph = nullptr;
  const absl::Status ended = CudaStatus(cudaStreamEndCapture(stream_, &graph), "recording a step");
  cudaGraphExec_t replay = nullptr;
  absl::Status status = launched.ok() ? ended : launched;
  if (status.ok()) {
    status =
        ClearCountersFirst(graph, memory_.at(places_.product_counters), CounterBytes(options_));
  }
  if (status.ok()) {
    status = CudaStatus(cudaGraphInstantiate(&replay, graph, 0), "making a step's graph");
  }
  if (graph != nullptr) cudaGraphDestroy(graph);
  if (!status.ok()) return status;
  graphs_.Put(key, GraphExec(replay));
  return replay;
}

absl::Status ModelStep::LaunchBody(int chunks, int context, const BodyHooks& hooks) {
  const StepLayout layout(options_.limits, chunks);
  const cuda::ModelDims& dims = options_.dims;
  const auto* source = reinterpret_cast<const int32_t*>(memory_.at(places_.blob + layout.source));
  auto* tokens = reinterpret_cast<int32_t*>(memory_.at(places_.tokens));
  const auto* fed = reinterpret_cast<const int32_t*>(memory_.at(places_.fed));
  PLUMB_RETURN_IF_ERROR(CudaStatus(
      cuda::LaunchFeed(source, fed, layout.rows, dims.vocab, tokens, stream_), "tokens"));
  PLUMB_RETURN_IF_ERROR(
      CudaStatus(cuda::LaunchEmbed(options_.dtype, weights_->at(weights_->layout.embedding), tokens,
                                   layout.rows, dims.hidden, memory_.at(places_.hidden), stream_),
                 "embedding"));
  cuda::StepTables tables = Tables(chunks);
  const int64_t chunk = options_.limits.chunk_rows;
  int64_t before = 0;  // rows of the block before, in whole chunks
  for (int layer = 0; layer < dims.layers; ++layer) {
    int64_t rows = layout.rows;
    if (!hooks.rows_of_layer.empty()) {
      rows = (hooks.rows_of_layer[layer] + chunk - 1) / chunk * chunk;
    }
    PLUMB_RETURN_IF_ERROR(LaunchInputs(layer, before, rows, hooks));
    before = rows;
    if (rows == 0) continue;
    tables.max_rows = static_cast<int32_t>(rows);
    PLUMB_RETURN_IF_ERROR(LaunchBlock(layer, rows, context, tables, hooks));
  }
  if (before > 0) {
    PLUMB_RETURN_IF_ERROR(CudaStatus(
        cuda::LaunchAdd(options_.dtype, memory_.at(places_.projected), static_cast<int>(before),
                        dims.hidden, memory_.at(places_.hidden), stream_),
        "residual"));
  }
  Tell(hooks, StepPart::kRowOps);
  if (!hooks.on_inputs) return absl::OkStatus();
  return hooks.on_inputs(dims.layers, memory_.at(places_.hidden));
}

// The residual of the block before and this block's norm. Rows that join here come with inputs of
// their own, to which nothing is added: their norm is taken once they are filled in.
absl::Status ModelStep::LaunchInputs(int layer, int64_t before, int64_t rows,
                                     const BodyHooks& hooks) {
  const cuda::ModelDims& dims = options_.dims;
  const int64_t weight = weights_->layout.layers[layer].attention_norm;
  const auto norm = [&](const void* added, int64_t first, int64_t last) {
    if (first >= last) return cudaSuccess;
    return cuda::LaunchAddNorm(options_.dtype, added, Rows(places_.hidden, first, dims.hidden),
                               weights_->at(weight), dims.norm_eps, static_cast<int>(last - first),
                               dims.hidden, Rows(places_.normed, first, dims.hidden), stream_);
  };
  if (layer > 0) {
    PLUMB_RETURN_IF_ERROR(CudaStatus(norm(memory_.at(places_.projected), 0, before), "norm"));
  }
  if (hooks.on_inputs) {
    PLUMB_RETURN_IF_ERROR(hooks.on_inputs(layer, memory_.at(places_.hidden)));
  }
  // The joining rows may begin inside the last chunk of those before.
  int64_t first = layer == 0 ? 0 : before;
  if (layer > 0 && !hooks.rows_of_layer.empty()) first = hooks.rows_of_layer[layer - 1];
  PLUMB_RETURN_IF_ERROR(CudaStatus(norm(nullptr, first, rows), "norm"));
  Tell(hooks, StepPart::kRowOps);
  return absl::OkStatus();
}

absl::Status ModelStep::LaunchBlock(int layer, int64_t rows, int context,
                                    const cuda::StepTables& tables, const BodyHooks& hooks) {
  const cuda::ModelDims& dims = options_.dims;
  const WeightLayout::Layer& weights = weights_->layout.layers[layer];
  const int64_t chunk = options_.limits.chunk_rows;
  for (int64_t row = 0; row < rows; row += chunk) {
    PLUMB_RETURN_IF_ERROR(
        CudaStatus(Multiply(kQkv, Place(layer, row), Rows(places_.normed, row, dims.hidden),
                            weights.qkv, Rows(places_.qkv, row, dims.qkv_dim())),
                   "query, key and value products"));
  }
  Tell(hooks, StepPart::kProducts);
  if (weights.qkv_bias >= 0) {
    PLUMB_RETURN_IF_ERROR(CudaStatus(
        cuda::LaunchAddBias(options_.dtype, weights_->at(weights.qkv_bias), static_cast<int>(rows),
                            dims.qkv_dim(), memory_.at(places_.qkv), stream_),
        "bias"));
    Tell(hooks, StepPart::kRowOps);
  }
  cuda::KvWrite write;
  write.dtype = options_.dtype;
  write.dims = dims;
  write.layer = layer;
  write.step = tables;
  write.pool = sources_.pool;
  write.rope = sources_.rope;
  write.qkv = memory_.at(places_.qkv);
  write.exact_keys = memory_.at(places_.exact_keys);
  write.exact_values = memory_.at(places_.exact_values);
  PLUMB_RETURN_IF_ERROR(CudaStatus(cuda::LaunchKvWrite(write, stream_), "writing the cache"));
  Tell(hooks, StepPart::kKvWrite);
  if (hooks.measure_out != nullptr) {
    PLUMB_RETURN_IF_ERROR(
        CudaStatus(LaunchMeasure(layer, tables, hooks.measure_out), "measuring prompts"));
    Tell(hooks, StepPart::kMeasure);
  }
  if (hooks.on_written) PLUMB_RETURN_IF_ERROR(hooks.on_written(layer, write.qkv));
  PLUMB_RETURN_IF_ERROR(CudaStatus(LaunchAttentionPart(layer, context, tables), "attention"));
  Tell(hooks, StepPart::kAttention);
  for (int64_t row = 0; row < rows; row += chunk) {
    PLUMB_RETURN_IF_ERROR(CudaStatus(
        Multiply(kAttentionOut, Place(layer, row), Rows(places_.attended, row, dims.q_dim()),
                 weights.attention_out, Rows(places_.projected, row, dims.hidden)),
        "attention's output product"));
  }
  Tell(hooks, StepPart::kProducts);
  PLUMB_RETURN_IF_ERROR(CudaStatus(
      cuda::LaunchAddNorm(options_.dtype, memory_.at(places_.projected), memory_.at(places_.hidden),
                          weights_->at(weights.mlp_norm), dims.norm_eps, static_cast<int>(rows),
                          dims.hidden, memory_.at(places_.normed), stream_),
      "norm"));
  Tell(hooks, StepPart::kRowOps);
  return CudaStatus(LaunchMlp(layer, rows, hooks), "the feed-forward products");
}

cudaError_t ModelStep::LaunchMeasure(int layer, const cuda::StepTables& tables, char* out) {
  cuda::MeasureKv measure;
  measure.dtype = options_.dtype;
  measure.dims = options_.dims;
  measure.layer = layer;
  measure.step = tables;
  measure.qkv = memory_.at(places_.qkv);
  measure.out = out;
  return cuda::LaunchMeasureKv(measure, stream_);
}

cudaError_t ModelStep::LaunchAttentionPart(int layer, int context, const cuda::StepTables& tables) {
  cuda::Attention attention;
  attention.dtype = options_.dtype;
  attention.dims = options_.dims;
  attention.layer = layer;
  attention.scale = 1.0f / std::sqrt(static_cast<float>(options_.dims.head_dim));
  attention.step = tables;
  attention.pool = sources_.pool;
  attention.rope = sources_.rope;
  attention.qkv = memory_.at(places_.qkv);
  attention.exact_keys = memory_.at(places_.exact_keys);
  attention.exact_values = memory_.at(places_.exact_values);
  attention.out = memory_.at(places_.attended);
  attention.workspace = memory_.at(places_.attention_workspace);
  attention.max_context = context;
  return cuda::LaunchAttention(attention, stream_);
}

cudaError_t ModelStep::LaunchMlp(int layer, int64_t rows, const BodyHooks& hooks) {
  const WeightLayout::Layer& weights = weights_->layout.layers[layer];
  const cuda::ModelDims& dims = options_.dims;
  const int chunk = options_.limits.chunk_rows;
  void* gate_up = memory_.at(places_.gate_up);
  void* activated = memory_.at(places_.activated);
  for (int64_t row = 0; row < rows; row += chunk) {
    cudaError_t error = Multiply(kGateUp, Place(layer, row), Rows(places_.normed, row, dims.hidden),
                                 weights.gate_up, gate_up);
    if (error != cudaSuccess) return error;
    Tell(hooks, StepPart::kProducts);
    error = cuda::LaunchSiluMul(options_.dtype, gate_up, chunk, dims.inner, activated, stream_);
    if (error != cudaSuccess) return error;
    Tell(hooks, StepPart::kRowOps);
    error = Multiply(kDown, Place(layer, row), activated, weights.down,
                     Rows(places_.projected, row, dims.hidden));
    if (error != cudaSuccess) return error;
    Tell(hooks, StepPart::kProducts);
  }
  return cudaSuccess;
}

absl::Status ModelStep::StartHead(int chunks, int first, const BodyHooks& hooks) {
  const StepLayout layout(options_.limits, chunks);
  const cuda::ModelDims& dims = options_.dims;
  const int rows = options_.limits.chunk_rows;
  const auto* task_row =
      reinterpret_cast<const int32_t*>(memory_.at(places_.blob + layout.task_row)) + first;
  const auto* tasks =
      reinterpret_cast<const cuda::SampleTask*>(memory_.at(places_.blob + layout.tasks)) + first;
  PLUMB_RETURN_IF_ERROR(
      CudaStatus(cuda::LaunchGather(options_.dtype, memory_.at(places_.hidden), task_row, rows,
                                    dims.hidden, memory_.at(places_.gathered), stream_),
                 "gathering rows"));
  PLUMB_RETURN_IF_ERROR(
      CudaStatus(cuda::LaunchAddNorm(options_.dtype, nullptr, memory_.at(places_.gathered),
                                     weights_->at(weights_->layout.final_norm), dims.norm_eps, rows,
                                     dims.hidden, memory_.at(places_.head_normed), stream_),
                 "norm"));
  Tell(hooks, StepPart::kRowOps);
  PLUMB_RETURN_IF_ERROR(CudaStatus(Multiply(kHead, 0, memory_.at(places_.head_normed),
                                            weights_->layout.head, memory_.at(places_.logits)),
                                   "the head's product"));
  Tell(hooks, StepPart::kProducts);
  auto* outcomes = reinterpret_cast<cuda::SampleOutcome*>(memory_.at(places_.outcomes)) + first;
  PLUMB_RETURN_IF_ERROR(
      CudaStatus(cuda::LaunchSample(options_.dtype, logits(), rows, dims.vocab, tasks, outcomes,
                                    reinterpret_cast<int32_t*>(memory_.at(places_.fed)), stream_),
                 "sampling"));
  Tell(hooks, StepPart::kSampling);
  return absl::OkStatus();
}

}  // namespace plumbline
