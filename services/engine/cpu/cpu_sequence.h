// The cache of one sequence on the CPU: what attention reads (rotated keys, values), the keys
// before rotation where a format quantizes those, and the quantizers with their state.
//
// Storage is "simulated": dequantized values in the compute dtype.
#pragma once

#include <map>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "services/engine/batch/forward.h"
#include "services/engine/batch/shared_states.h"
#include "services/engine/cpu/aligned_buffer.h"
#include "services/engine/cpu/rope_table.h"
#include "services/quant/tensor_quantizer.h"

namespace plumbline {

// Rows of one run in one layer. Keys and values that attention will read.
template <typename T>
struct AttentionView {
  T* keys = nullptr;    // [tokens, kv_heads, head_dim], rotated
  T* values = nullptr;  // [tokens, kv_heads, head_dim]
};

template <typename T>
class CpuSequence : public SequenceState {
 public:
  // InvalidArgument: a format does not fit the model.
  static absl::StatusOr<std::unique_ptr<CpuSequence>> Create(const SequenceRequest& request,
                                                             const ModelShape& shape);

  int64_t kv_bytes() const override { return kv_values_ * static_cast<int64_t>(sizeof(T)); }
  const std::string& prefix_key() const override { return shared_.prefix_key; }
  int shared_layers() const override { return shared_.shared_layers; }
  const std::string& stem_key() const override { return shared_.stem_key; }
  int64_t stem_tokens() const override { return shared_.stem_tokens; }
  int64_t kv_elements() const override;
  int64_t kv_elements_quantized() const override;
  std::vector<CapturedLayer> TakeCaptures() override;
  std::vector<MeasuredLayer> TakeMeasures() override;

  // No sharing of prompt states, neither taking nor giving.
  void StopSharing() { shared_ = {}; }
  // Takes the cache memory; called before the first row.
  void Allocate();
  void CountTokens(int64_t tokens) { tokens_ += tokens; }
  // Rows [0, tokens) of a layer from a sequence of the same plan whose first tokens are the same.
  void AdoptRows(int layer, int64_t tokens, const T* keys, const T* values);

  // Raw keys and values of `rows` rows that start at position `first`, one every `stride` elements;
  // noise of a jitter replica is added to them in place.
  void AddJitter(int layer, int64_t first, int64_t rows, T* keys, T* values, int64_t stride) const;
  void Capture(int layer, int64_t rows, const T* queries, const T* keys, const T* values,
               int64_t stride);
  // Statistics of the prompt's rows where they were asked for; keys and values are independent of
  // each other.
  void MeasureKeys(int layer, int64_t rows, const T* keys, int64_t stride);
  void MeasureValues(int layer, int64_t rows, const T* values, int64_t stride);
  // Stores, quantizes and rotates; keys and values are independent of each other. A run with
  // `prompt` is the whole prompt.
  void WriteKeys(int layer, int64_t first, int64_t rows, bool prompt, const T* keys, int64_t stride,
                 const RopeTable& rope);
  void WriteValues(int layer, int64_t first, int64_t rows, bool prompt, const T* values,
                   int64_t stride);
  // What the rows of that run attend to.
  AttentionView<T> View(int layer, bool prompt);
  // Frees what only the prompt's own attention needed.
  void FinishPromptLayer(int layer);

  T* keys(int layer) { return caches_[layer].keys; }
  T* values(int layer) { return caches_[layer].values; }
  int64_t kv_dim() const { return kv_dim_; }

 private:
  struct LayerCache {
    T* keys = nullptr;            // [capacity, kv_dim], rotated
    T* values = nullptr;          // [capacity, kv_dim]
    T* unrotated_keys = nullptr;  // [capacity, kv_dim] where the format quantizes before RoPE
    std::unique_ptr<TensorQuantizer> key_quantizer, value_quantizer;  // null = fp
    bool keys_before_rope = false;
    bool exact_keys = false, exact_values = false;  // the prompt reads them unquantized
    AlignedBuffer<T> prompt_keys, prompt_values;    // those, during the prompt
  };

  CpuSequence() = default;
  absl::Status OpenLayer(int layer, const LayerFormat& format, const TensorShape& tensor,
                         const std::pair<const Calibration*, const Calibration*>& calibration);
  void Rotate(const T* from, T* to, RowRange range, const RopeTable& rope) const;

  ModelShape shape_;
  int64_t kv_dim_ = 0;
  int64_t capacity_ = 0;
  int64_t tokens_ = 0;
  int64_t kv_values_ = 0;
  uint64_t jitter_seed_ = 0;
  SharedStates shared_;
  std::vector<LayerCache> caches_;
  std::map<int, CapturedLayer> captures_;
  std::map<int, MeasuredLayer> measures_;
  AlignedBuffer<T> memory_;
};

}  // namespace plumbline
