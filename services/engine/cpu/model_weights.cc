#include "services/engine/cpu/model_weights.h"

#include <utility>

#include "absl/strings/str_cat.h"
#include "services/common/status_macros.h"
#include "services/engine/bundle/weight_values.h"

namespace plumbline {
namespace {

struct Part {
  std::string name;
  int64_t rows;
};

template <typename T>
class Loader {
 public:
  Loader(const ModelConfig& config, const BundleWeights& weights)
      : config_(config), weights_(weights) {}

  absl::StatusOr<AlignedBuffer<T>> Vector(const std::string& name, int64_t size) {
    return Stack({{name, size}}, 0);
  }

  // Tensors [rows, columns] one below the other; columns 0 = vectors [rows].
  absl::StatusOr<AlignedBuffer<T>> Stack(const std::vector<Part>& parts, int64_t columns) {
    const int64_t width = columns == 0 ? 1 : columns;
    int64_t rows = 0;
    for (const Part& part : parts) rows += part.rows;
    AlignedBuffer<T> stacked(rows * width);
    T* out = stacked.data();
    for (const Part& part : parts) {
      std::vector<int64_t> shape = {part.rows};
      if (columns > 0) shape.push_back(columns);
      PLUMB_ASSIGN_OR_RETURN(const TensorView view, weights_.Get(part.name, shape));
      CopyWeights(view, 0, part.rows * width, out);
      DropPages(view);
      out += part.rows * width;
    }
    return stacked;
  }

  // `names` are modules; each has a weight and, where `bias`, a bias.
  absl::StatusOr<Linear<T>> Map(const std::vector<Part>& modules, int64_t in, bool bias) {
    std::vector<Part> matrices, vectors;
    int64_t out = 0;
    for (const Part& module : modules) {
      matrices.push_back({module.name + ".weight", module.rows});
      vectors.push_back({module.name + ".bias", module.rows});
      out += module.rows;
      if (!bias && weights_.Has(vectors.back().name)) {
        return absl::InvalidArgumentError(absl::StrCat("weights hold ", vectors.back().name,
                                                       ", which the model family '", config_.family,
                                                       "' does not use"));
      }
    }
    PLUMB_ASSIGN_OR_RETURN(AlignedBuffer<T> weight, Stack(matrices, in));
    AlignedBuffer<T> biases;
    if (bias) {
      PLUMB_ASSIGN_OR_RETURN(biases, Stack(vectors, 0));
    }
    return Linear<T>(weight, out, in, std::move(biases));
  }

  absl::StatusOr<LayerWeights<T>> Layer(int index) {
    const std::string prefix = absl::StrCat("model.layers.", index, ".");
    const std::string attention = prefix + "self_attn.";
    const std::string mlp = prefix + "mlp.";
    const int64_t hidden = config_.hidden_size;
    const int64_t q_dim = int64_t{config_.num_heads} * config_.head_dim;
    const int64_t kv_dim = int64_t{config_.num_kv_heads} * config_.head_dim;
    const int64_t inner = config_.intermediate_size;
    LayerWeights<T> layer;
    PLUMB_ASSIGN_OR_RETURN(layer.attention_norm, Vector(prefix + "input_layernorm.weight", hidden));
    PLUMB_ASSIGN_OR_RETURN(layer.mlp_norm,
                           Vector(prefix + "post_attention_layernorm.weight", hidden));
    PLUMB_ASSIGN_OR_RETURN(layer.qkv, Map({{attention + "q_proj", q_dim},
                                           {attention + "k_proj", kv_dim},
                                           {attention + "v_proj", kv_dim}},
                                          hidden, config_.qkv_bias));
    PLUMB_ASSIGN_OR_RETURN(layer.attention_out,
                           Map({{attention + "o_proj", hidden}}, q_dim, false));
    PLUMB_ASSIGN_OR_RETURN(
        layer.gate_up, Map({{mlp + "gate_proj", inner}, {mlp + "up_proj", inner}}, hidden, false));
    PLUMB_ASSIGN_OR_RETURN(layer.down, Map({{mlp + "down_proj", hidden}}, inner, false));
    return layer;
  }

  absl::StatusOr<Linear<T>> Head() {
    const std::string name = config_.tied_embeddings ? "model.embed_tokens" : "lm_head";
    return Map({{name, config_.vocab_size}}, config_.hidden_size, false);
  }

 private:
  const ModelConfig& config_;
  const BundleWeights& weights_;
};

}  // namespace

ModelShape ShapeOf(const ModelConfig& config) {
  ModelShape shape;
  shape.family = config.family;
  shape.num_layers = config.num_layers;
  shape.num_heads = config.num_heads;
  shape.num_kv_heads = config.num_kv_heads;
  shape.head_dim = config.head_dim;
  shape.hidden_size = config.hidden_size;
  shape.intermediate_size = config.intermediate_size;
  shape.vocab_size = config.vocab_size;
  shape.max_context = config.max_context;
  return shape;
}

template <typename T>
absl::StatusOr<ModelWeights<T>> LoadModelWeights(const ModelConfig& config,
                                                 const BundleWeights& weights) {
  Loader<T> loader(config, weights);
  ModelWeights<T> model;
  model.shape = ShapeOf(config);
  model.norm_eps = static_cast<float>(config.rms_norm_eps);
  PLUMB_ASSIGN_OR_RETURN(
      model.embedding,
      loader.Stack({{"model.embed_tokens.weight", config.vocab_size}}, config.hidden_size));
  for (int i = 0; i < config.num_layers; ++i) {
    PLUMB_ASSIGN_OR_RETURN(LayerWeights<T> layer, loader.Layer(i));
    model.layers.push_back(std::move(layer));
  }
  PLUMB_ASSIGN_OR_RETURN(model.final_norm, loader.Vector("model.norm.weight", config.hidden_size));
  PLUMB_ASSIGN_OR_RETURN(model.head, loader.Head());
  return model;
}

template absl::StatusOr<ModelWeights<float>> LoadModelWeights(const ModelConfig&,
                                                              const BundleWeights&);
template absl::StatusOr<ModelWeights<Bf16>> LoadModelWeights(const ModelConfig&,
                                                             const BundleWeights&);

}  // namespace plumbline
