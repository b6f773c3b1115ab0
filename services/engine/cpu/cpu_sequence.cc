#include "services/engine/cpu/cpu_sequence.h"

#include <algorithm>
#include <cstring>
#include <utility>

#include "absl/strings/str_cat.h"
#include "services/common/status_macros.h"
#include "services/engine/batch/measured_layer.h"
#include "services/engine/cpu/row_kernels.h"

namespace plumbline {
namespace {

template <typename T>
void CopyRows(const T* from, int64_t stride, int64_t rows, int64_t width, T* to) {
  for (int64_t i = 0; i < rows; ++i) {
    std::memcpy(to + i * width, from + i * stride, sizeof(T) * width);
  }
}

template <typename T>
void AppendAsFloat(const T* from, int64_t stride, int64_t rows, int64_t width,
                   std::vector<float>* to) {
  for (int64_t i = 0; i < rows; ++i) {
    for (int64_t c = 0; c < width; ++c) to->push_back(kernels::ToFloat(from[i * stride + c]));
  }
}

// One seed a tensor and token, so that noise does not depend on how tokens arrive.
uint64_t JitterKey(uint64_t seed, int layer, int64_t position, bool value) {
  uint64_t key = seed * 0x9e3779b97f4a7c15u;
  for (uint64_t part : {static_cast<uint64_t>(layer), static_cast<uint64_t>(position),
                        static_cast<uint64_t>(value)}) {
    key = (key ^ part) * 0xff51afd7ed558ccdu;
    key ^= key >> 32;
  }
  return key;
}

}  // namespace

template <typename T>
absl::StatusOr<std::unique_ptr<CpuSequence<T>>> CpuSequence<T>::Create(
    const SequenceRequest& request, const ModelShape& shape) {
  std::unique_ptr<CpuSequence> sequence(new CpuSequence);
  sequence->shape_ = shape;
  sequence->kv_dim_ = int64_t{shape.num_kv_heads} * shape.head_dim;
  sequence->capacity_ = static_cast<int64_t>(request.prompt_tokens.size()) + request.max_new_tokens;
  sequence->jitter_seed_ = request.jitter_seed;
  sequence->caches_.resize(shape.num_layers);
  const TensorShape tensor{shape.num_kv_heads, shape.head_dim, RowKernels<T>::kKvDtype};
  for (int layer = 0; layer < shape.num_layers; ++layer) {
    std::pair<const Calibration*, const Calibration*> calibration = {nullptr, nullptr};
    if (!request.calibrations.empty()) calibration = request.calibrations[layer];
    absl::Status status = sequence->OpenLayer(layer, request.layers[layer], tensor, calibration);
    if (!status.ok()) return Annotate(status, absl::StrCat("plan, layer ", layer));
  }
  for (LayerIndex layer : request.capture_layers) {
    sequence->captures_[layer.value()].layer = layer;
  }
  for (LayerIndex layer : request.measure_layers) {
    sequence->measures_[layer.value()].layer = layer;
  }
  sequence->shared_ = SharedStatesOf(request);
  return sequence;
}

template <typename T>
absl::Status CpuSequence<T>::OpenLayer(
    int layer, const LayerFormat& format, const TensorShape& tensor,
    const std::pair<const Calibration*, const Calibration*>& calibration) {
  LayerCache& cache = caches_[layer];
  int64_t tensors = 2;
  if (!format.key.is_fp()) {
    PLUMB_ASSIGN_OR_RETURN(cache.key_quantizer,
                           TensorQuantizer::Create(format.key, tensor, calibration.first));
    cache.keys_before_rope = format.key.place == RopePlace::kPreRope;
    cache.exact_keys = format.key.prefill == PrefillReads::kExact;
    if (cache.keys_before_rope) ++tensors;
  }
  if (!format.value.is_fp()) {
    PLUMB_ASSIGN_OR_RETURN(cache.value_quantizer,
                           TensorQuantizer::Create(format.value, tensor, calibration.second));
    cache.exact_values = format.value.prefill == PrefillReads::kExact;
  }
  kv_values_ += tensors * capacity_ * kv_dim_;
  return absl::OkStatus();
}

template <typename T>
void CpuSequence<T>::Allocate() {
  memory_ = AlignedBuffer<T>(kv_values_);
  T* next = memory_.data();
  const int64_t tensor = capacity_ * kv_dim_;
  for (LayerCache& cache : caches_) {
    cache.keys = next;
    cache.values = next + tensor;
    next += 2 * tensor;
    if (cache.keys_before_rope) {
      cache.unrotated_keys = next;
      next += tensor;
    }
  }
}

template <typename T>
void CpuSequence<T>::AdoptRows(int layer, int64_t tokens, const T* keys, const T* values) {
  LayerCache& cache = caches_[layer];
  std::copy(keys, keys + tokens * kv_dim_, cache.keys);
  std::copy(values, values + tokens * kv_dim_, cache.values);
  if (cache.key_quantizer) cache.key_quantizer->Adopt(tokens);
  if (cache.value_quantizer) cache.value_quantizer->Adopt(tokens);
}

template <typename T>
void CpuSequence<T>::AddJitter(int layer, int64_t first, int64_t rows, T* keys, T* values,
                               int64_t stride) const {
  if (jitter_seed_ == 0) return;
  for (int64_t i = 0; i < rows; ++i) {
    RowKernels<T>::Jitter(JitterKey(jitter_seed_, layer, first + i, false), kv_dim_,
                          keys + i * stride);
    RowKernels<T>::Jitter(JitterKey(jitter_seed_, layer, first + i, true), kv_dim_,
                          values + i * stride);
  }
}

template <typename T>
void CpuSequence<T>::Capture(int layer, int64_t rows, const T* queries, const T* keys,
                             const T* values, int64_t stride) {
  const auto it = captures_.find(layer);
  if (it == captures_.end()) return;
  CapturedLayer& captured = it->second;
  captured.tokens += rows;
  AppendAsFloat(queries, stride, rows, int64_t{shape_.num_heads} * shape_.head_dim,
                &captured.queries);
  AppendAsFloat(keys, stride, rows, kv_dim_, &captured.keys);
  AppendAsFloat(values, stride, rows, kv_dim_, &captured.values);
}

template <typename T>
void CpuSequence<T>::MeasureKeys(int layer, int64_t rows, const T* keys, int64_t stride) {
  const auto it = measures_.find(layer);
  if (it == measures_.end()) return;
  it->second.tokens = rows;
  it->second.keys = MeasureTensor(keys, rows, stride, shape_);
}

template <typename T>
void CpuSequence<T>::MeasureValues(int layer, int64_t rows, const T* values, int64_t stride) {
  const auto it = measures_.find(layer);
  if (it != measures_.end()) it->second.values = MeasureTensor(values, rows, stride, shape_);
}

// `from` and `to` are bases of whole tensors.
template <typename T>
void CpuSequence<T>::Rotate(const T* from, T* to, RowRange range, const RopeTable& rope) const {
  for (int64_t p = range.begin; p < range.end; ++p) {
    RowKernels<T>::Rotate(from + p * kv_dim_, shape_.num_kv_heads, shape_.head_dim, rope.cos(p),
                          rope.sin(p), to + p * kv_dim_);
  }
}

template <typename T>
void CpuSequence<T>::WriteKeys(int layer, int64_t first, int64_t rows, bool prompt, const T* keys,
                               int64_t stride, const RopeTable& rope) {
  LayerCache& cache = caches_[layer];
  const Phase phase = prompt ? Phase::kPromptLast : Phase::kDecode;
  const RowRange added = {first, first + rows};
  if (prompt && cache.exact_keys) {
    cache.prompt_keys = AlignedBuffer<T>(rows * kv_dim_);
    CopyRows(keys, stride, rows, kv_dim_, cache.prompt_keys.data());
    Rotate(cache.prompt_keys.data(), cache.prompt_keys.data(), added, rope);
  }
  if (cache.keys_before_rope) {
    CopyRows(keys, stride, rows, kv_dim_, cache.unrotated_keys + first * kv_dim_);
    const RowRange changed = cache.key_quantizer->Append(cache.unrotated_keys, first, rows, phase);
    Rotate(cache.unrotated_keys, cache.keys, added, rope);
    Rotate(cache.unrotated_keys, cache.keys, {changed.begin, std::min(changed.end, first)}, rope);
    return;
  }
  CopyRows(keys, stride, rows, kv_dim_, cache.keys + first * kv_dim_);
  Rotate(cache.keys, cache.keys, added, rope);
  if (cache.key_quantizer) cache.key_quantizer->Append(cache.keys, first, rows, phase);
}

template <typename T>
void CpuSequence<T>::WriteValues(int layer, int64_t first, int64_t rows, bool prompt,
                                 const T* values, int64_t stride) {
  LayerCache& cache = caches_[layer];
  if (prompt && cache.exact_values) {
    cache.prompt_values = AlignedBuffer<T>(rows * kv_dim_);
    CopyRows(values, stride, rows, kv_dim_, cache.prompt_values.data());
  }
  CopyRows(values, stride, rows, kv_dim_, cache.values + first * kv_dim_);
  if (cache.value_quantizer) {
    cache.value_quantizer->Append(cache.values, first, rows,
                                  prompt ? Phase::kPromptLast : Phase::kDecode);
  }
}

template <typename T>
AttentionView<T> CpuSequence<T>::View(int layer, bool prompt) {
  LayerCache& cache = caches_[layer];
  return {prompt && cache.exact_keys ? cache.prompt_keys.data() : cache.keys,
          prompt && cache.exact_values ? cache.prompt_values.data() : cache.values};
}

template <typename T>
void CpuSequence<T>::FinishPromptLayer(int layer) {
  caches_[layer].prompt_keys = {};
  caches_[layer].prompt_values = {};
}

template <typename T>
int64_t CpuSequence<T>::kv_elements() const {
  return 2 * static_cast<int64_t>(caches_.size()) * tokens_ * kv_dim_;
}

template <typename T>
int64_t CpuSequence<T>::kv_elements_quantized() const {
  int64_t quantized = 0;
  for (const LayerCache& cache : caches_) {
    if (cache.key_quantizer) quantized += cache.key_quantizer->elements_quantized();
    if (cache.value_quantizer) quantized += cache.value_quantizer->elements_quantized();
  }
  return quantized;
}

template <typename T>
std::vector<CapturedLayer> CpuSequence<T>::TakeCaptures() {
  std::vector<CapturedLayer> captures;
  for (auto& [layer, captured] : captures_) captures.push_back(std::move(captured));
  captures_.clear();
  return captures;
}

template <typename T>
std::vector<MeasuredLayer> CpuSequence<T>::TakeMeasures() {
  std::vector<MeasuredLayer> measures;
  for (auto& [layer, measured] : measures_) measures.push_back(std::move(measured));
  measures_.clear();
  return measures;
}

template class CpuSequence<float>;
template class CpuSequence<Bf16>;

}  // namespace plumbline
