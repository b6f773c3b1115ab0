// Small seeded activations.
#pragma once

#include <cstring>
#include <random>
#include <string>
#include <vector>

#include "plumbline/v1/capture.pb.h"

namespace plumbline::testing {

inline std::string Bytes(const std::vector<float>& values) {
  return {reinterpret_cast<const char*>(values.data()), values.size() * sizeof(float)};
}
inline std::vector<float> FloatsOf(const std::string& bytes) {
  std::vector<float> values(bytes.size() / sizeof(float));
  memcpy(values.data(), bytes.data(), bytes.size());
  return values;
}

inline v1::CaptureHeader SmallHeader(const std::string& id = "cap-1") {
  v1::CaptureHeader header;
  header.set_capture_id(id);
  header.set_model_digest("model");
  header.set_numerics_class_id("class");
  header.set_num_kv_heads(2);
  header.set_num_heads(4);
  header.set_head_dim(8);
  header.add_layers(3);
  header.add_layers(7);
  header.set_prompts(3);
  return header;
}

inline v1::ActivationBlock RandomBlock(const v1::CaptureHeader& header, uint32_t layer,
                                       uint32_t prompt, uint32_t tokens, uint64_t seed) {
  std::mt19937_64 random(seed * 7919 + layer * 131 + prompt);
  std::normal_distribution<float> normal;
  const auto draw = [&](size_t count) {
    std::vector<float> values(count);
    for (float& value : values) value = normal(random);
    return Bytes(values);
  };
  v1::ActivationBlock block;
  block.set_layer(layer);
  block.set_prompt_index(prompt);
  block.set_tokens(tokens);
  block.set_keys(draw(size_t{tokens} * header.num_kv_heads() * header.head_dim()));
  block.set_values(draw(size_t{tokens} * header.num_kv_heads() * header.head_dim()));
  block.set_queries(draw(size_t{tokens} * header.num_heads() * header.head_dim()));
  return block;
}

// In (layer, prompt) order, with 5 + prompt tokens.
inline std::vector<v1::ActivationBlock> RandomBlocks(const v1::CaptureHeader& header,
                                                     uint64_t seed = 1) {
  std::vector<v1::ActivationBlock> blocks;
  for (uint32_t layer : header.layers()) {
    for (uint32_t prompt = 0; prompt < header.prompts(); ++prompt) {
      blocks.push_back(RandomBlock(header, layer, prompt, 5 + prompt, seed));
    }
  }
  return blocks;
}

inline void Poke(std::string* bytes, size_t index, float value) {
  memcpy(bytes->data() + index * sizeof(float), &value, sizeof(float));
}

}  // namespace plumbline::testing
