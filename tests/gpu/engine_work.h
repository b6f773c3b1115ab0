// The work that the GPU engine's benchmarks give it: random prompts over models of known shapes.
#pragma once

#include <functional>
#include <random>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "services/engine/engine.h"
#include "services/engine/model_bundle.h"
#include "services/quant/plan_parser.h"
#include "tests/gpu/engine_floor.h"

namespace plumbline {

struct Settings {
  std::string shape = "llama-3.1-8b";
  int layers = 0;  // 0 = the shape's
  int prompt = 64, answer = 256;
  std::vector<int> running = {256, 512};
  std::vector<std::string> plans = {"*:fp"};
  std::vector<int> chunks = {0};  // 0 = 256 up to 256 running, else 512
  int ablation = 0;               // prompts of a layer ablation; 0 = none
  int stem = 0;                   // first tokens that all prompts have in common
  int first_top = 0;              // most probable first tokens listed of every answer
  int measure = 0;                // rounds with and without statistics of all prompts; 0 = none
  std::string verdict;      // tokenizer.json: with and without stopping at a verdict; empty = no
  std::vector<int> sweeps;  // prompts of sweeps over `widths` formats
  std::vector<int> widths = {7};
};

inline ModelConfig ConfigOf(const Settings& settings) {
  ModelConfig config;
  config.family = "llama";
  config.num_layers = 32;
  config.num_heads = 32;
  config.num_kv_heads = 8;
  config.head_dim = 128;
  config.hidden_size = 4096;
  config.intermediate_size = 14336;
  config.vocab_size = 128256;
  config.max_context = 131072;
  config.rope_theta = 500000;
  if (settings.shape == "llama-3.2-1b") {
    config.num_layers = 16;
    config.head_dim = 64;
    config.hidden_size = 2048;
    config.intermediate_size = 8192;
    config.tied_embeddings = true;
  } else if (settings.shape == "qwen2.5-7b") {
    config.family = "qwen2";
    config.qkv_bias = true;
    config.num_layers = 28;
    config.num_heads = 28;
    config.num_kv_heads = 4;
    config.hidden_size = 3584;
    config.intermediate_size = 18944;
    config.vocab_size = 152064;
    config.max_context = 32768;
    config.rope_theta = 1000000;
  } else if (settings.shape != "llama-3.1-8b") {
    Check(absl::InvalidArgumentError(absl::StrCat("no shape '", settings.shape, "'")));
  }
  if (settings.layers > 0) config.num_layers = settings.layers;
  return config;
}

inline std::vector<LayerFormat> LayersOf(const std::string& plan, const ModelShape& shape) {
  auto parsed = ParsePlan(plan);
  Check(parsed.status());
  auto layers = parsed->Resolve(shape.num_layers, shape.num_kv_heads, shape.head_dim);
  Check(layers.status());
  return *layers;
}

// `count` sequences with the plans in turn; `edit` may change each request.
inline void Submit(const Settings& settings, const std::vector<std::string>& plans, int count,
                   Engine* engine, const std::function<void(SequenceRequest*)>& edit = nullptr) {
  std::mt19937 random(3);
  for (int i = 0; i < count; ++i) {
    SequenceRequest request;
    request.id = static_cast<uint64_t>(i) + 1;
    for (int j = 0; j < settings.prompt; ++j) {
      request.prompt_tokens.push_back(
          static_cast<int32_t>(j < settings.stem ? 100 + j : random() % 128000));
    }
    request.stem_tokens = settings.stem;
    request.first_top = settings.first_top;
    request.layers = LayersOf(plans[i % plans.size()], engine->shape());
    request.max_new_tokens = settings.answer;
    if (edit) edit(&request);
    Check(engine->Submit(std::move(request)));
  }
}

// Steps to the end; tokens of all answers.
inline int64_t StepAll(Engine* engine) {
  int64_t tokens = 0;
  while (engine->active() > 0) {
    auto finished = engine->Step();
    Check(finished.status());
    for (const SequenceResult& result : *finished) {
      tokens += static_cast<int64_t>(result.tokens.size());
    }
  }
  return tokens;
}

}  // namespace plumbline
