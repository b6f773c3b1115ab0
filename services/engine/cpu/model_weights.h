// The weights of a Llama or Qwen2 model in the compute dtype, with maps that share an input fused:
// q, k and v into one, gate and up into one.
#pragma once

#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "services/engine/bundle/safetensors.h"
#include "services/engine/cpu/aligned_buffer.h"
#include "services/engine/cpu/linear.h"
#include "services/engine/engine.h"
#include "services/engine/model_bundle.h"

namespace plumbline {

template <typename T>
struct LayerWeights {
  AlignedBuffer<T> attention_norm;  // [hidden]
  Linear<T> qkv;                    // hidden -> q_dim + kv_dim + kv_dim
  Linear<T> attention_out;          // q_dim -> hidden
  AlignedBuffer<T> mlp_norm;        // [hidden]
  Linear<T> gate_up;                // hidden -> 2 * intermediate
  Linear<T> down;                   // intermediate -> hidden
};

template <typename T>
struct ModelWeights {
  ModelShape shape;
  float norm_eps = 0;
  AlignedBuffer<T> embedding;  // [vocab, hidden]
  std::vector<LayerWeights<T>> layers;
  AlignedBuffer<T> final_norm;  // [hidden]
  Linear<T> head;               // hidden -> vocab
};

ModelShape ShapeOf(const ModelConfig& config);

// NotFound, InvalidArgument: a tensor is missing or of another shape; the message names it.
template <typename T>
absl::StatusOr<ModelWeights<T>> LoadModelWeights(const ModelConfig& config,
                                                 const BundleWeights& weights);

}  // namespace plumbline
