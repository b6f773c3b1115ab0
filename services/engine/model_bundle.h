// A model bundle: the folder that `plumb models import` writes and the engine reads.
//
//   manifest.json       {"format": "plumbline-bundle/1", "name", "source", "license",
//                        "files": {name: {"sha256", "bytes"}}, "model_digest"}
//   config.json         Hugging Face config of the model (family, sizes, RoPE, norms, tying)
//   tokenizer.json      Hugging Face `tokenizers` file
//   chat_format.json    compiled chat format (chat_format.h)
//   *.safetensors       weights under their Hugging Face names, F32 / F16 / BF16
//   trained_on.sha256   optional: text hashes (services/prompts: TextHash), one a line, of the
//                       prompts that the model was trained on; studies leave them out
//
// model_digest = SHA-256 over name + "\n" + sha256 + "\n" of every listed file in order of their
// names, but for trained_on.sha256, which changes no token. chat_format.json is absent where the
// model has no chat template (raw prompts only). config.json's bos_token_id is null unless the
// model's own tokenizer starts every sequence with it.
#pragma once

#include <cstdint>
#include <map>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"

namespace plumbline {

inline constexpr char kTrainedOnFile[] = "trained_on.sha256";

struct BundleFile {
  std::string sha256;
  int64_t bytes = 0;
};

struct BundleManifest {
  std::string name;
  std::string source;
  std::string license;
  std::string model_digest;
  std::map<std::string, BundleFile> files;

  // Without one the model takes raw prompts only.
  bool has_chat_format() const { return files.count("chat_format.json") > 0; }
  bool has_trained_on() const { return files.count(kTrainedOnFile) > 0; }
};

// InvalidArgument: why a bundle without a chat format cannot take chat prompts, and the way out.
absl::Status NeedsRaw(const std::string& model_name);

// Parses manifest bytes. InvalidArgument with the JSON path of what is wrong; DataLoss when
// model_digest does not follow from the files.
absl::StatusOr<BundleManifest> ParseBundleManifest(const std::string& json);

// Reads DIR/manifest.json and checks that every file is there with its size; with `digests` also
// that every SHA-256 is right (DataLoss names the file and both digests). A file that the manifest
// does not list is InvalidArgument: it would escape the digest.
absl::StatusOr<BundleManifest> OpenBundle(const std::string& dir, bool digests);

// Shape and rules of the model, from config.json. InvalidArgument names key, value and what is
// supported.
struct RopeScaling {
  std::string type;  // "" or "llama3"
  double factor = 1;
  double low_freq_factor = 1;
  double high_freq_factor = 1;
  double original_max_position = 0;
};
struct ModelConfig {
  std::string family;  // "llama", "qwen2"
  int num_layers = 0, num_heads = 0, num_kv_heads = 0, head_dim = 0;
  int hidden_size = 0, intermediate_size = 0, vocab_size = 0;
  int64_t max_context = 0;
  double rope_theta = 10000;
  RopeScaling rope_scaling;
  double rms_norm_eps = 1e-5;
  bool tied_embeddings = false;
  bool qkv_bias = false;
  std::vector<int32_t> eos_token_ids;
  int32_t bos_token_id = -1;  // -1 = none
};
absl::StatusOr<ModelConfig> ParseModelConfig(const std::string& json);

}  // namespace plumbline
