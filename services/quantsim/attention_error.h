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

// Sums over queries, heads and prompts.
struct AttentionError {
  double score_error = 0, score_energy = 0;    // of q.k / sqrt(head_dim), before the softmax
  double output_error = 0, output_energy = 0;  // of softmax(scores) v

  void Add(const AttentionError& other);
  double score_relative_mse() const;
  double output_relative_mse() const;
};

// Keys and values of one prompt as attention reads them: [tokens, kv_heads, head_dim], keys rotated
// where they should be.
struct AttendedRows {
  const std::vector<float>* keys = nullptr;
  const std::vector<float>* values = nullptr;
};

// The error of each stored form against `exact`, which is computed once for all of them. queries:
// [tokens, heads, head_dim], rotated. Spread over the process's threads
// (services/common/parallel.h); the sums' order is fixed.
std::vector<AttentionError> AttentionErrors(const AttentionShape& shape,
                                            const std::vector<float>& queries,
                                            const AttendedRows& exact,
                                            const std::vector<AttendedRows>& stored);

}  // namespace plumbline
