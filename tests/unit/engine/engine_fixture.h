// Runs requests through an engine over a tiny bundle.
#pragma once

#include <map>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "services/engine/engine.h"
#include "services/quant/plan_parser.h"
#include "tests/support/status_matchers.h"
#include "tests/unit/engine/tiny_bundle.h"

namespace plumbline::testing {

inline std::unique_ptr<Engine> OpenEngine(const TinyBundle& bundle, EngineOptions options = {}) {
  options.bundle_dir = bundle.dir();
  options.threads = 2;
  auto engine = CreateCpuEngine(options);
  EXPECT_THAT(engine, IsOk());
  return engine.ok() ? std::move(engine).value() : nullptr;
}

inline std::vector<LayerFormat> Layers(const std::string& plan, const ModelShape& shape) {
  PlanParseOptions options;
  options.paper_quirks = true;
  auto parsed = ParsePlan(plan, options);
  EXPECT_THAT(parsed, IsOk());
  auto layers = parsed->Resolve(shape.num_layers, shape.num_kv_heads, shape.head_dim);
  EXPECT_THAT(layers, IsOk());
  return *layers;
}

// `length` ids that depend on the seed.
inline std::vector<int32_t> Prompt(int length, uint32_t seed, int vocab = 97) {
  std::vector<int32_t> ids(length);
  uint32_t state = seed * 2654435761u + 12345;
  for (int32_t& id : ids) {
    state = state * 1664525u + 1013904223u;
    id = static_cast<int32_t>((state >> 8) % static_cast<uint32_t>(vocab));
  }
  return ids;
}

inline SequenceRequest Request(const Engine& engine, uint64_t id, std::vector<int32_t> prompt,
                               const std::string& plan, int max_new = 12) {
  SequenceRequest request;
  request.id = id;
  request.prompt_tokens = std::move(prompt);
  request.layers = Layers(plan, engine.shape());
  request.max_new_tokens = max_new;
  request.want_logit_digest = true;
  return request;
}

inline std::map<uint64_t, SequenceResult> RunAll(Engine* engine,
                                                 std::vector<SequenceRequest> requests) {
  for (SequenceRequest& request : requests) EXPECT_OK(engine->Submit(std::move(request)));
  std::map<uint64_t, SequenceResult> results;
  while (engine->active() > 0) {
    auto finished = engine->Step();
    EXPECT_THAT(finished, IsOk());
    if (!finished.ok()) break;
    for (SequenceResult& result : *finished) results[result.id] = std::move(result);
  }
  return results;
}

inline SequenceResult RunOne(Engine* engine, SequenceRequest request) {
  const uint64_t id = request.id;
  std::vector<SequenceRequest> one;
  one.push_back(std::move(request));
  return RunAll(engine, std::move(one))[id];
}

}  // namespace plumbline::testing
