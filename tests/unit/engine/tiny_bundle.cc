#include "tests/unit/engine/tiny_bundle.h"

#include <cmath>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <random>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "services/common/digest.h"

namespace plumbline::testing {
namespace {

std::string ConfigJson(const TinyModel& m) {
  const bool qwen = m.family == "qwen2";
  const std::string scaling = m.llama3_rope
                                  ? R"(, "rope_scaling": {"rope_type": "llama3", "factor": 8.0,
                          "low_freq_factor": 1.0, "high_freq_factor": 4.0,
                          "original_max_position_embeddings": 64})"
                                  : "";
  return absl::StrCat(
      R"({"model_type": ")", m.family, R"(", "architectures": [")",
      qwen ? "Qwen2ForCausalLM" : "LlamaForCausalLM", R"("], "hidden_act": "silu",
      "vocab_size": )",
      m.vocab, R"(, "hidden_size": )", m.hidden, R"(, "intermediate_size": )", m.inner,
      R"(, "num_hidden_layers": )", m.layers, R"(, "num_attention_heads": )", m.heads,
      R"(, "num_key_value_heads": )", m.kv_heads, R"(, "head_dim": )", m.head_dim,
      R"(, "max_position_embeddings": )", m.max_context,
      R"(, "rms_norm_eps": 1e-5, "rope_theta": 10000.0, "bos_token_id": 1, "eos_token_id": 2,
      "tie_word_embeddings": )",
      m.tied ? "true" : "false", scaling, "}");
}

class Generator {
 public:
  explicit Generator(const TinyModel& model) : model_(model), random_(model.seed) {}

  TinyBundle::Weights All() {
    Add("model.embed_tokens.weight", {model_.vocab, model_.hidden}, 0, 0.5f);
    Add("model.norm.weight", {model_.hidden}, 1, 0.2f);
    if (!model_.tied) Add("lm_head.weight", {model_.vocab, model_.hidden}, 0, 0.5f);
    for (int i = 0; i < model_.layers; ++i) Layer(absl::StrCat("model.layers.", i, "."));
    return std::move(weights_);
  }

 private:
  void Layer(const std::string& p) {
    const int q = model_.heads * model_.head_dim, kv = model_.kv_heads * model_.head_dim;
    Add(p + "input_layernorm.weight", {model_.hidden}, 1, 0.2f);
    Add(p + "post_attention_layernorm.weight", {model_.hidden}, 1, 0.2f);
    for (const auto& [name, rows] : {std::pair("q", q), std::pair("k", kv), std::pair("v", kv)}) {
      const std::string module = absl::StrCat(p, "self_attn.", name, "_proj.");
      Matrix(module + "weight", rows, model_.hidden);
      if (model_.family == "qwen2") Add(module + "bias", {rows}, 0, 0.5f);
    }
    Matrix(p + "self_attn.o_proj.weight", model_.hidden, q);
    Matrix(p + "mlp.gate_proj.weight", model_.inner, model_.hidden);
    Matrix(p + "mlp.up_proj.weight", model_.inner, model_.hidden);
    Matrix(p + "mlp.down_proj.weight", model_.hidden, model_.inner);
  }
  void Matrix(const std::string& name, int64_t rows, int64_t columns) {
    Add(name, {rows, columns}, 0, 1.5f / std::sqrt(static_cast<float>(columns)));
  }
  void Add(const std::string& name, std::vector<int64_t> shape, float mean, float deviation) {
    int64_t count = 1;
    for (int64_t n : shape) count *= n;
    std::normal_distribution<float> normal(mean, deviation);
    std::vector<float> values(count);
    for (float& v : values) v = normal(random_);
    weights_[name] = {std::move(shape), std::move(values)};
  }

  const TinyModel& model_;
  std::mt19937 random_;
  TinyBundle::Weights weights_;
};

std::string Safetensors(const TinyBundle::Weights& weights) {
  std::vector<std::string> entries;
  std::string data;
  for (const auto& [name, tensor] : weights) {
    const size_t begin = data.size();
    data.append(reinterpret_cast<const char*>(tensor.second.data()),
                tensor.second.size() * sizeof(float));
    entries.push_back(absl::StrCat("\"", name, "\":{\"dtype\":\"F32\",\"shape\":[",
                                   absl::StrJoin(tensor.first, ","), "],\"data_offsets\":[", begin,
                                   ",", data.size(), "]}"));
  }
  std::string header = absl::StrCat("{", absl::StrJoin(entries, ","), "}");
  header.resize((header.size() + 7) / 8 * 8, ' ');
  const uint64_t length = header.size();
  std::string file(8, '\0');
  std::memcpy(file.data(), &length, 8);
  return file + header + data;
}

}  // namespace

TinyBundle::TinyBundle(const TinyModel& model, std::function<void(Weights&)> edit) {
  std::string pattern = (std::filesystem::temp_directory_path() / "tiny-bundle-XXXXXX").string();
  dir_ = mkdtemp(pattern.data());
  Weights weights = Generator(model).All();
  if (edit) edit(weights);
  Write("config.json", ConfigJson(model));
  Write("tokenizer.json", model.tokenizer);
  if (model.chat_format) Write("chat_format.json", "{}");
  Write("model.safetensors", Safetensors(weights));
  std::string listed, digests;
  for (const auto& [name, file] : files_) {
    absl::StrAppend(&listed, listed.empty() ? "" : ",", "\"", name, "\":{\"sha256\":\"",
                    file.sha256, "\",\"bytes\":", file.bytes, "}");
    absl::StrAppend(&digests, name, "\n", file.sha256, "\n");
  }
  Write("manifest.json",
        absl::StrCat(R"({"format":"plumbline-bundle/1","name":"tiny","source":"random",)",
                     R"("license":"none","files":{)", listed, R"(},"model_digest":")",
                     Sha256Hex(digests), "\"}"));
}

TinyBundle::~TinyBundle() { std::filesystem::remove_all(dir_); }

void TinyBundle::Write(const std::string& name, const std::string& bytes) {
  std::ofstream(dir_ + "/" + name, std::ios::binary) << bytes;
  files_[name] = {Sha256Hex(bytes), static_cast<int64_t>(bytes.size())};
}

}  // namespace plumbline::testing
