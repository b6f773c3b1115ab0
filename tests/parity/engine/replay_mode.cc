#include <cstring>
#include <nlohmann/json.hpp>
#include <string>
#include <utility>

#include "absl/strings/str_cat.h"
#include "services/common/status_macros.h"
#include "services/engine/cpu/cpu_model.h"
#include "tests/parity/engine/dump_modes.h"

namespace plumbline::parity {
namespace {

using nlohmann::json;

void Assign(float value, float* out) { *out = value; }
void Assign(float value, Bf16* out) { *out = kernels::ToBf16(value); }

template <typename T>
void ToElements(const float* from, int64_t count, T* to) {
  for (int64_t i = 0; i < count; ++i) Assign(from[i], to + i);
}
template <typename T>
void AppendFloats(const T* from, int64_t count, std::vector<float>* to) {
  for (int64_t i = 0; i < count; ++i) to->push_back(kernels::ToFloat(from[i]));
}

struct ReplayRequest {
  int layer;
  int64_t rows, prompt_rows;
  std::vector<LayerFormat> layers;
  std::vector<float> hidden, force_k, force_v;  // force_*: empty = none
  std::string out;
};

absl::StatusOr<ReplayRequest> ToRequest(const json& line, const ModelShape& shape) {
  ReplayRequest request;
  request.layer = line.at("layer");
  request.rows = line.at("rows");
  request.prompt_rows = line.at("prompt_rows");
  request.out = line.at("out");
  if (request.layer < 0 || request.layer >= shape.num_layers || request.prompt_rows < 1 ||
      request.prompt_rows > request.rows) {
    return absl::InvalidArgumentError(absl::StrCat("bad replay request: ", line.dump()));
  }
  PLUMB_ASSIGN_OR_RETURN(request.layers, ParseLayers(line.at("kv"), shape));
  PLUMB_ASSIGN_OR_RETURN(request.hidden,
                         ReadFloats(line.at("hidden"), request.rows * shape.hidden_size));
  int64_t seen_rows = 0;
  for (int64_t end = request.prompt_rows; end <= request.rows; ++end) seen_rows += end;
  const int64_t seen = seen_rows * shape.num_kv_heads * shape.head_dim;
  if (line.contains("force_k")) {
    PLUMB_ASSIGN_OR_RETURN(request.force_k, ReadFloats(line.at("force_k"), seen));
  }
  if (line.contains("force_v")) {
    PLUMB_ASSIGN_OR_RETURN(request.force_v, ReadFloats(line.at("force_v"), seen));
  }
  return request;
}

template <typename T>
class Replayer {
 public:
  explicit Replayer(CpuForward<T>* model) : model_(model) {}

  absl::Status Run(const ReplayRequest& request) {
    const ModelShape& shape = model_->shape();
    SequenceRequest sequence_request;
    sequence_request.prompt_tokens.assign(request.prompt_rows, 0);
    sequence_request.layers = request.layers;
    sequence_request.max_new_tokens = static_cast<int>(request.rows - request.prompt_rows);
    PLUMB_ASSIGN_OR_RETURN(auto sequence, CpuSequence<T>::Create(sequence_request, shape));
    sequence->Allocate();
    seen_keys_.clear();
    seen_values_.clear();
    Watch(request, sequence->kv_dim());
    std::vector<float> output;
    RunRows(request, sequence.get(), 0, request.prompt_rows, &output);
    for (int64_t row = request.prompt_rows; row < request.rows; ++row) {
      RunRows(request, sequence.get(), row, 1, &output);
    }
    model_->layer_runner().set_probe(nullptr);
    PLUMB_RETURN_IF_ERROR(WriteFloats(request.out + ".y", output));
    PLUMB_RETURN_IF_ERROR(WriteFloats(request.out + ".k", seen_keys_));
    return WriteFloats(request.out + ".v", seen_values_);
  }

 private:
  // Records what attention is about to read, and replaces it where the request says so.
  void Watch(const ReplayRequest& request, int64_t kv_dim) {
    model_->layer_runner().set_probe(
        [this, &request, kv_dim](int, const LayerRun<T>& run, AttentionView<T> view) {
          const int64_t count = (run.first + run.rows) * kv_dim;
          const size_t offset = seen_keys_.size();
          AppendFloats(view.keys, count, &seen_keys_);
          AppendFloats(view.values, count, &seen_values_);
          if (!request.force_k.empty()) {
            ToElements(request.force_k.data() + offset, count, view.keys);
          }
          if (!request.force_v.empty()) {
            ToElements(request.force_v.data() + offset, count, view.values);
          }
        });
  }

  void RunRows(const ReplayRequest& request, CpuSequence<T>* sequence, int64_t first, int64_t rows,
               std::vector<float>* output) {
    const int64_t width = model_->shape().hidden_size;
    AlignedBuffer<T> hidden;
    hidden.ReserveZeroed(rows * width);
    ToElements(request.hidden.data() + first * width, rows * width, hidden.data());
    model_->layer_runner().ExtendPositions(first + rows);
    EngineStats stats;
    model_->layer_runner().Run(request.layer, {{sequence, 0, rows, first, first == 0}},
                               hidden.data(), &stats);
    AppendFloats(hidden.data(), rows * width, output);
  }

  CpuForward<T>* model_;
  std::vector<float> seen_keys_, seen_values_;
};

template <typename T>
absl::Status ReplayAll(const EngineOptions& options, std::istream& in, std::ostream& out) {
  PLUMB_ASSIGN_OR_RETURN(const auto model, CreateCpuForward<T>(options));
  Replayer<T> replayer(model.get());
  for (std::string text; std::getline(in, text);) {
    if (text.empty()) continue;
    PLUMB_ASSIGN_OR_RETURN(const ReplayRequest request,
                           ToRequest(json::parse(text), model->shape()));
    PLUMB_RETURN_IF_ERROR(replayer.Run(request));
    out << json{{"layer", request.layer}, {"ok", true}}.dump() << "\n";
  }
  return absl::OkStatus();
}

}  // namespace

absl::Status Replay(const EngineOptions& options, std::istream& in, std::ostream& out) try {
  return options.dtype == ComputeDtype::kF32 ? ReplayAll<float>(options, in, out)
                                             : ReplayAll<Bf16>(options, in, out);
} catch (const json::exception& error) {
  return absl::InvalidArgumentError(error.what());
}

}  // namespace plumbline::parity
