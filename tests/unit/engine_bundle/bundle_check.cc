// Opens a bundle as a worker would and prints what it found, for the importer's tests:
//   bundle_check DIR   -> {"model_digest", "family", "layers", "bos", "tensors", "vocab_size"}
#include <iostream>

#include "nlohmann/json.hpp"
#include "services/common/files.h"
#include "services/common/status_macros.h"
#include "services/engine/bundle/safetensors.h"
#include "services/engine/chat_format.h"
#include "services/engine/model_bundle.h"
#include "services/engine/tokenizer.h"

namespace plumbline {
namespace {

absl::StatusOr<std::string> Describe(const std::string& dir) {
  PLUMB_ASSIGN_OR_RETURN(const BundleManifest manifest, OpenBundle(dir, /*digests=*/true));
  PLUMB_ASSIGN_OR_RETURN(const std::string config_text, ReadFile(JoinPath(dir, "config.json")));
  PLUMB_ASSIGN_OR_RETURN(const ModelConfig config, ParseModelConfig(config_text));
  PLUMB_ASSIGN_OR_RETURN(const auto weights, BundleWeights::Open(dir, manifest));
  PLUMB_ASSIGN_OR_RETURN(
      const TensorView embedding,
      weights->Get("model.embed_tokens.weight", {config.vocab_size, config.hidden_size}));
  PLUMB_ASSIGN_OR_RETURN(const std::string tokenizer_text,
                         ReadFile(JoinPath(dir, "tokenizer.json")));
  PLUMB_ASSIGN_OR_RETURN(const auto tokenizer, Tokenizer::Create(tokenizer_text));
  nlohmann::json out = {{"model_digest", manifest.model_digest},
                        {"family", config.family},
                        {"layers", config.num_layers},
                        {"bos", config.bos_token_id},
                        {"eos", config.eos_token_ids},
                        {"rope_factor", config.rope_scaling.factor},
                        {"dtype", WeightDtypeName(embedding.dtype)},
                        {"tensors", weights->Names().size()},
                        {"vocab_size", tokenizer->vocab_size()}};
  if (manifest.files.count("chat_format.json") > 0) {
    PLUMB_ASSIGN_OR_RETURN(const std::string chat_text,
                           ReadFile(JoinPath(dir, "chat_format.json")));
    PLUMB_ASSIGN_OR_RETURN(const ChatFormat chat, ChatFormat::Parse(chat_text));
    PLUMB_ASSIGN_OR_RETURN(out["chat_ids"],
                           chat.Encode(*tokenizer, {{"user", "Hi"}}, SpecialTokens::kText));
  }
  return out.dump();
}

}  // namespace
}  // namespace plumbline

int main(int argc, char** argv) {
  const auto text = plumbline::Describe(argc > 1 ? argv[1] : "");
  if (!text.ok()) {
    std::cerr << text.status().ToString() << "\n";
    return 2;
  }
  std::cout << *text << "\n";
  return 0;
}
