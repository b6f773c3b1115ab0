// Small models with random weights, written as a bundle into a temporary folder that goes with the
// object.
#pragma once

#include <functional>
#include <map>
#include <string>
#include <vector>

#include "services/engine/model_bundle.h"

namespace plumbline::testing {

struct TinyModel {
  std::string family = "llama";
  int layers = 4, heads = 4, kv_heads = 2, head_dim = 16, hidden = 64, inner = 112, vocab = 97;
  bool tied = true;
  bool llama3_rope = false;
  int max_context = 512;
  unsigned seed = 1;
  std::string tokenizer = "{}";  // tokenizer.json; the engine reads none
  bool chat_format = true;       // without one a catalog takes raw prompts
};

class TinyBundle {
 public:
  using Weights = std::map<std::string, std::pair<std::vector<int64_t>, std::vector<float>>>;
  // `edit` may change, add or remove tensors before they are written.
  explicit TinyBundle(const TinyModel& model = {}, std::function<void(Weights&)> edit = nullptr);
  ~TinyBundle();
  TinyBundle(const TinyBundle&) = delete;
  TinyBundle& operator=(const TinyBundle&) = delete;

  const std::string& dir() const { return dir_; }

 private:
  void Write(const std::string& name, const std::string& bytes);

  std::string dir_;
  std::map<std::string, BundleFile> files_;
};

}  // namespace plumbline::testing
