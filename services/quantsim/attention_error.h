// What quantized keys and values do to attention: causal, over a prompt, queries unquantized, in
// float with sums in double.
#pragma once

#include <cstdint>
#include <vector>

namespace plumbline {

struct AttentionShape {
  int32_t heads = 0;  // a multiple of kv_heads
  int32_t kv_heads = 0;
  int32_t head_dim = 0;
};

// Rotates channel pairs (i, i + head_dim/2) of each head of row t by t * inverse_frequency[i].
// rows: [tokens, heads, head_dim], from position 0. The fp32 engine's bits. No frequencies: nothing
// happens.
void RotateRows(const std::vector<double>& inverse_frequency, int32_t heads, int32_t head_dim,
                std::vector<float>* rows);

class AttentionErrorSum {
 public:
  explicit AttentionErrorSum(const AttentionShape& shape) : shape_(shape) {}

  // queries [tokens, heads, head_dim]; keys, values and their stored forms [tokens, kv_heads,
  // head_dim]; all rotated where they should be.
  void Add(const std::vector<float>& queries, const std::vector<float>& keys,
           const std::vector<float>& values, const std::vector<float>& stored_keys,
           const std::vector<float>& stored_values);

  double score_relative_mse() const;   // of q.k / sqrt(head_dim), before the softmax
  double output_relative_mse() const;  // of softmax(scores) v

 private:
  AttentionShape shape_;
  double score_error_ = 0, score_energy_ = 0;
  double output_error_ = 0, output_energy_ = 0;
};

}  // namespace plumbline
