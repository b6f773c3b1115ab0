#include "services/engine/cuda/cuda_weights.h"

#include <algorithm>
#include <atomic>
#include <exception>
#include <mutex>
#include <new>
#include <thread>
#include <utility>

#include "absl/strings/str_cat.h"
#include "services/common/status_macros.h"
#include "services/engine/bundle/weight_values.h"

namespace plumbline {
namespace {

constexpr int64_t kSliceBytes = int64_t{8} << 20;  // of one page-locked buffer
constexpr int kLoadThreads = 8;

// Places tensors one behind the other.
class Planner {
 public:
  Planner(const ModelConfig& config, cuda::Dtype dtype) : config_(config) { layout_.dtype = dtype; }

  WeightLayout Make() {
    const int64_t hidden = config_.hidden_size;
    layout_.embedding = Stack({{"model.embed_tokens.weight", config_.vocab_size}}, hidden);
    for (int i = 0; i < config_.num_layers; ++i) layout_.layers.push_back(Layer(i));
    layout_.final_norm = Stack({{"model.norm.weight", hidden}}, 0);
    layout_.head = config_.tied_embeddings
                       ? layout_.embedding
                       : Stack({{"lm_head.weight", config_.vocab_size}}, hidden);
    layout_.bytes = carver_.total();
    return std::move(layout_);
  }

 private:
  using Parts = std::vector<std::pair<std::string, int64_t>>;  // name, rows

  // Tensors [rows, columns] one below the other; columns 0 = vectors [rows].
  int64_t Stack(const Parts& parts, int64_t columns) {
    const int64_t width = columns == 0 ? 1 : columns;
    const int64_t element = DtypeBytes(layout_.dtype);
    int64_t rows = 0;
    for (const auto& part : parts) rows += part.second;
    const int64_t begin = carver_.Take(rows * width * element);
    int64_t at = begin;
    for (const auto& [name, part_rows] : parts) {
      WeightLayout::Piece piece = {name, {part_rows}, at, part_rows * width};
      if (columns > 0) piece.shape.push_back(columns);
      at += piece.count * element;
      layout_.pieces.push_back(std::move(piece));
    }
    return begin;
  }

  WeightLayout::Layer Layer(int index) {
    const std::string prefix = absl::StrCat("model.layers.", index, ".");
    const std::string attention = prefix + "self_attn.", mlp = prefix + "mlp.";
    const int64_t hidden = config_.hidden_size, inner = config_.intermediate_size;
    const int64_t q_dim = int64_t{config_.num_heads} * config_.head_dim;
    const int64_t kv_dim = int64_t{config_.num_kv_heads} * config_.head_dim;
    const auto qkv = [&](const char* suffix) -> Parts {
      return {{absl::StrCat(attention, "q_proj.", suffix), q_dim},
              {absl::StrCat(attention, "k_proj.", suffix), kv_dim},
              {absl::StrCat(attention, "v_proj.", suffix), kv_dim}};
    };
    WeightLayout::Layer layer;
    layer.attention_norm = Stack({{prefix + "input_layernorm.weight", hidden}}, 0);
    layer.qkv = Stack(qkv("weight"), hidden);
    if (config_.qkv_bias) layer.qkv_bias = Stack(qkv("bias"), 0);
    layer.attention_out = Stack({{attention + "o_proj.weight", hidden}}, q_dim);
    layer.mlp_norm = Stack({{prefix + "post_attention_layernorm.weight", hidden}}, 0);
    layer.gate_up =
        Stack({{mlp + "gate_proj.weight", inner}, {mlp + "up_proj.weight", inner}}, hidden);
    layer.down = Stack({{mlp + "down_proj.weight", hidden}}, inner);
    return layer;
  }

  const ModelConfig& config_;
  WeightLayout layout_;
  Carver carver_;
};

// As the CPU engine: a bias where the family has none means another model than the config says.
absl::Status CheckNoBiases(const ModelConfig& config, const BundleWeights& files) {
  for (const std::string& name : files.Names()) {
    const bool bias = name.size() > 10 && name.compare(name.size() - 10, 10, "_proj.bias") == 0;
    const bool allowed = config.qkv_bias && (name.find(".q_proj.") != std::string::npos ||
                                             name.find(".k_proj.") != std::string::npos ||
                                             name.find(".v_proj.") != std::string::npos);
    if (bias && !allowed) {
      return absl::InvalidArgumentError(absl::StrCat(
          "weights hold ", name, ", which the model family '", config.family, "' does not use"));
    }
  }
  return absl::OkStatus();
}

struct Slice {
  const TensorView* view;
  int64_t first, count;  // values
  int64_t offset;        // bytes, on the device
};

// Threads that take slices until none is left; the first error stops them all.
class SliceCopier {
 public:
  SliceCopier(const CudaWeights& weights, std::vector<Slice> slices, int device)
      : weights_(weights), slices_(std::move(slices)), device_(device) {}

  absl::Status Run() {
    const int threads = static_cast<int>(std::min<size_t>(
        slices_.size(),
        std::min(kLoadThreads, static_cast<int>(std::thread::hardware_concurrency()) + 1)));
    std::vector<std::thread> workers;
    workers.reserve(threads);
    try {
      for (int i = 0; i < threads; ++i) workers.emplace_back([this] { Keep(CaughtWork()); });
    } catch (const std::exception& error) {
      // Those that could be started do it alone.
      if (workers.empty()) {
        Keep(absl::ResourceExhaustedError(
            absl::StrCat("no thread could be started to load weights: ", error.what())));
      }
    }
    for (std::thread& worker : workers) worker.join();
    return status_;
  }

 private:
  void Keep(const absl::Status& status) {
    if (status.ok()) return;
    failed_ = true;
    std::lock_guard<std::mutex> lock(mutex_);
    if (status_.ok()) status_ = status;
  }

  // What leaves a thread's function ends the process.
  absl::Status CaughtWork() {
    try {
      return Work();
    } catch (const std::bad_alloc&) {
      return absl::ResourceExhaustedError("not enough memory of the host to load weights");
    } catch (const std::exception& error) {
      return absl::InternalError(absl::StrCat("loading weights: ", error.what()));
    }
  }

  absl::Status Work() {
    PLUMB_RETURN_IF_ERROR(CudaStatus(cudaSetDevice(device_), "selecting the GPU"));
    PLUMB_ASSIGN_OR_RETURN(const Stream stream, Stream::Create());
    PinnedBuffer buffers[2];
    Event copied[2];
    for (int i = 0; i < 2; ++i) {
      PLUMB_ASSIGN_OR_RETURN(buffers[i], PinnedBuffer::Create(kSliceBytes, "loading weights"));
      PLUMB_ASSIGN_OR_RETURN(copied[i], Event::Create());
    }
    for (int turn = 0; !failed_; turn ^= 1) {
      const size_t index = next_.fetch_add(1);
      if (index >= slices_.size()) break;
      PLUMB_RETURN_IF_ERROR(
          CudaStatus(cudaEventSynchronize(copied[turn].get()), "loading weights"));
      PLUMB_RETURN_IF_ERROR(Send(slices_[index], buffers[turn], stream.get()));
      PLUMB_RETURN_IF_ERROR(
          CudaStatus(cudaEventRecord(copied[turn].get(), stream.get()), "loading weights"));
    }
    return CudaStatus(cudaStreamSynchronize(stream.get()), "loading weights");
  }

  absl::Status Send(const Slice& slice, const PinnedBuffer& buffer, cudaStream_t stream) const {
    if (weights_.layout.dtype == cuda::Dtype::kF32) {
      CopyWeights(*slice.view, slice.first, slice.count, buffer.as<float>());
    } else {
      CopyWeights(*slice.view, slice.first, slice.count, buffer.as<Bf16>());
    }
    const size_t bytes = static_cast<size_t>(slice.count * DtypeBytes(weights_.layout.dtype));
    return CudaStatus(cudaMemcpyAsync(weights_.memory.at(slice.offset), buffer.data(), bytes,
                                      cudaMemcpyHostToDevice, stream),
                      "loading weights");
  }

  const CudaWeights& weights_;
  const std::vector<Slice> slices_;
  const int device_;
  std::atomic<size_t> next_{0};
  std::atomic<bool> failed_{false};
  std::mutex mutex_;
  absl::Status status_;  // guarded by mutex_
};

}  // namespace

WeightLayout LayOutWeights(const ModelConfig& config, cuda::Dtype dtype) {
  return Planner(config, dtype).Make();
}

absl::Status FillWeights(const ModelConfig& config, const BundleWeights& files,
                         const CudaWeights& weights, int device) {
  PLUMB_RETURN_IF_ERROR(CheckNoBiases(config, files));
  const int64_t element = DtypeBytes(weights.layout.dtype);
  std::vector<TensorView> views;
  views.reserve(weights.layout.pieces.size());  // slices point into it
  std::vector<Slice> slices;
  for (const WeightLayout::Piece& piece : weights.layout.pieces) {
    PLUMB_ASSIGN_OR_RETURN(TensorView view, files.Get(piece.name, piece.shape));
    views.push_back(std::move(view));
    const int64_t step = kSliceBytes / element;
    for (int64_t first = 0; first < piece.count; first += step) {
      slices.push_back({&views.back(), first, std::min(step, piece.count - first),
                        piece.offset + first * element});
    }
  }
  return SliceCopier(weights, std::move(slices), device).Run();
}

cuda::ModelDims DimsOf(const ModelConfig& config) {
  cuda::ModelDims dims;
  dims.layers = config.num_layers;
  dims.heads = config.num_heads;
  dims.kv_heads = config.num_kv_heads;
  dims.head_dim = config.head_dim;
  dims.hidden = config.hidden_size;
  dims.inner = config.intermediate_size;
  dims.vocab = config.vocab_size;
  dims.norm_eps = static_cast<float>(config.rms_norm_eps);
  return dims;
}

}  // namespace plumbline
