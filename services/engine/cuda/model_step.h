// The launches of one step: embedding and blocks of all its rows ("body"), and the logits of up to
// one chunk of gathered rows ("head"). The body is a recorded graph for each number of chunks and
// bound of the context, those used last held; everything else that changes is read from the step's
// tables.
#pragma once

#include <cublasLt.h>

#include <array>
#include <functional>
#include <memory>
#include <string>
#include <tuple>
#include <type_traits>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "kernels/cuda/linear.h"
#include "kernels/cuda/step.h"
#include "services/engine/cuda/cuda_weights.h"
#include "services/engine/cuda/device_memory.h"
#include "services/engine/cuda/recent_map.h"
#include "services/engine/cuda/step_blob.h"

namespace plumbline {

// What the time of a step goes to.
enum class StepPart { kProducts, kAttention, kKvWrite, kRowOps, kSampling, kMeasure, kParts };

struct ModelStepOptions {
  cuda::ModelDims dims;
  cuda::Dtype dtype = cuda::Dtype::kBf16;
  StepLimits limits;
  int slots = 0;              // of sequences
  int64_t max_positions = 0;  // of one sequence
};

// Tables that the step reads and others own.
struct StepSources {
  cuda::KvPool pool;
  const int32_t* pages = nullptr;
  const int32_t* raw_pages = nullptr;
  int max_pages = 0;
  const int32_t* plan_rules = nullptr;
  const cuda::TensorRule* rules = nullptr;
  float* frozen = nullptr;
  int max_groups = 0;
  cuda::RopeTables rope;
};

// How a body departs from the recorded one; where any() holds its launches are not recorded.
struct BodyHooks {
  // Between the parts of a step.
  std::function<void(StepPart finished)> on_part;
  // After a block's keys and values are written: [rows, qkv_dim] with queries and keys before the
  // rotation.
  std::function<absl::Status(int layer, const void* qkv)> on_written;
  // When hidden, [rows, hidden], holds the inputs of block `layer` (of the number of layers: the
  // outputs of the last) of the rows that took part so far; those that join here are to be filled.
  std::function<absl::Status(int layer, void* hidden)> on_inputs;
  // Where runs that the step's block lists are measured to, the same in every step; null: none are.
  // Recorded apart, so that other steps do not pay for it.
  char* measure_out = nullptr;
  // [layers + 1]: how many of the first rows take part in each block, and in the head; empty = all.
  std::vector<int64_t> rows_of_layer;

  bool any() const { return on_part || on_written || on_inputs || !rows_of_layer.empty(); }
};

class ModelStep {
 public:
  static constexpr int kBodyProducts = 4;  // of a block; the head's is apart

  // Bytes of GPU memory that Create takes at its peak: those of a step, and of the largest check of
  // a product, which are given back.
  static int64_t BytesNeeded(const ModelStepOptions& options);
  // `weights` outlives it. InvalidArgument: no product of these sizes. ResourceExhausted: out of
  // memory.
  static absl::StatusOr<std::unique_ptr<ModelStep>> Create(const ModelStepOptions& options,
                                                           const CudaWeights* weights,
                                                           cudaStream_t stream);
  ~ModelStep();

  // Sources are fixed before the first step.
  void set_sources(const StepSources& sources) { sources_ = sources; }

  // Starts the upload of a filled block and the blocks of the model over its rows. longest: highest
  // number of positions that a row attends to.
  absl::Status StartBody(const void* blob, int chunks, int64_t longest, const BodyHooks& hooks);
  // The head over tasks [first, first + chunk_rows) of the step's block, into logits() and
  // outcomes() from the same index on.
  absl::Status StartHead(int chunks, int first, const BodyHooks& hooks);

  const void* logits() const { return memory_.at(places_.logits); }  // [chunk_rows, vocab]
  const cuda::SampleOutcome* outcomes() const {
    return reinterpret_cast<const cuda::SampleOutcome*>(memory_.at(places_.outcomes));
  }
  // The algorithms of the products, for the numerics class.
  std::string algorithms() const;

 private:
  // Offsets of the working memory.
  struct Places {
    explicit Places(const ModelStepOptions& options);
    int64_t blob, tokens, fed, hidden, normed, qkv, attended, projected, exact_keys, exact_values;
    int64_t gate_up, activated, gathered, head_normed, logits, outcomes;
    int64_t product_workspace, product_counters, attention_workspace;
    int64_t bytes;
  };
  struct DestroyGraph {
    void operator()(cudaGraphExec_t graph) const { cudaGraphExecDestroy(graph); }
  };
  using GraphExec = std::unique_ptr<std::remove_pointer_t<cudaGraphExec_t>, DestroyGraph>;
  enum Product { kQkv, kAttentionOut, kGateUp, kDown, kHead, kProductCount };

  ModelStep(const ModelStepOptions& options, const CudaWeights* weights, cudaStream_t stream);
  // (in, out) of each product.
  static std::array<std::pair<int, int>, kProductCount> ProductShapes(const cuda::ModelDims& dims);
  absl::Status CreateProducts();
  absl::Status LaunchBody(int chunks, int context, const BodyHooks& hooks);
  absl::Status LaunchInputs(int layer, int64_t before, int64_t rows, const BodyHooks& hooks);
  absl::Status LaunchBlock(int layer, int64_t rows, int context, const cuda::StepTables& tables,
                           const BodyHooks& hooks);
  cudaError_t LaunchMeasure(int layer, const cuda::StepTables& tables, char* out);
  cudaError_t LaunchAttentionPart(int layer, int context, const cuda::StepTables& tables);
  cudaError_t LaunchMlp(int layer, int64_t rows, const BodyHooks& hooks);
  // place: a number of its own for each product of a kind in a body, see Place.
  cudaError_t Multiply(Product product, int place, const void* x, int64_t weight, void* y) const;
  int Place(int layer, int64_t row) const {
    return static_cast<int>(layer * options_.limits.max_chunks + row / options_.limits.chunk_rows);
  }
  absl::StatusOr<cudaGraphExec_t> Graph(int chunks, int context, char* measure_out);
  cuda::StepTables Tables(int chunks) const;
  char* Rows(int64_t place, int64_t row, int64_t width) const {
    return memory_.at(place + row * width * DtypeBytes(options_.dtype));
  }

  const ModelStepOptions options_;
  const Places places_;
  const CudaWeights* const weights_;
  const cudaStream_t stream_;
  StepSources sources_;
  DeviceBuffer memory_;
  cublasLtHandle_t cublas_ = nullptr;
  std::array<std::unique_ptr<cuda::Linear>, kProductCount> products_;
  // By chunks, context, measured; bounded, since each keeps memory of the device. CUDA frees one
  // that still runs when it has ended.
  static constexpr size_t kMostGraphs = 64;
  RecentMap<std::tuple<int, int, bool>, GraphExec> graphs_{kMostGraphs};
};

}  // namespace plumbline
