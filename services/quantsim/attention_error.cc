#include "services/quantsim/attention_error.h"

#include <algorithm>
#include <cmath>

#include "kernels/row_ops.h"
#include "services/quantsim/tensor_error.h"

namespace plumbline {
namespace {

// One query's scores against rows [0, count) of one kv head.
void Scores(const float* query, const float* keys, int64_t count, int64_t stride, int32_t head_dim,
            std::vector<double>* scores) {
  const double scale = 1 / std::sqrt(static_cast<double>(head_dim));
  // Several rows side by side: each sum's order is its own, and none waits for the one before.
  constexpr int64_t kRows = 8;
  int64_t s = 0;
  for (; s + kRows <= count; s += kRows) {
    double sums[kRows] = {};
    for (int32_t d = 0; d < head_dim; ++d) {
      const double value = query[d];
      for (int64_t i = 0; i < kRows; ++i) {
        sums[i] += value * static_cast<double>(keys[(s + i) * stride + d]);
      }
    }
    for (int64_t i = 0; i < kRows; ++i) (*scores)[static_cast<size_t>(s + i)] = sums[i] * scale;
  }
  for (; s < count; ++s) {
    double sum = 0;
    for (int32_t d = 0; d < head_dim; ++d) {
      sum += static_cast<double>(query[d]) * static_cast<double>(keys[s * stride + d]);
    }
    (*scores)[static_cast<size_t>(s)] = sum * scale;
  }
}

// softmax(scores[0, count)) times value rows, into out [head_dim]; scores are consumed.
void Output(std::vector<double>* scores, const float* values, int64_t count, int64_t stride,
            int32_t head_dim, std::vector<double>* out) {
  const double most = *std::max_element(scores->begin(), scores->begin() + count);
  double total = 0;
  std::fill(out->begin(), out->end(), 0.0);
  for (int64_t s = 0; s < count; ++s) {
    const double weight = std::exp((*scores)[static_cast<size_t>(s)] - most);
    total += weight;
    for (int32_t d = 0; d < head_dim; ++d) {
      (*out)[static_cast<size_t>(d)] += weight * static_cast<double>(values[s * stride + d]);
    }
  }
  for (double& value : *out) value /= total;
}

void Compare(const std::vector<double>& exact, const std::vector<double>& stored, int64_t count,
             double* error, double* energy) {
  for (size_t i = 0; i < static_cast<size_t>(count); ++i) {
    *error += (stored[i] - exact[i]) * (stored[i] - exact[i]);
    *energy += exact[i] * exact[i];
  }
}

}  // namespace

void RotateRows(const std::vector<double>& inverse_frequency, int32_t heads, int32_t head_dim,
                std::vector<float>* rows) {
  if (inverse_frequency.empty()) return;
  const int64_t width = int64_t{heads} * head_dim;
  const auto tokens = static_cast<int64_t>(rows->size()) / width;
  std::vector<float> cosines(inverse_frequency.size()), sines(inverse_frequency.size());
  for (int64_t t = 0; t < tokens; ++t) {
    for (size_t i = 0; i < inverse_frequency.size(); ++i) {
      // Single precision, as the engine's table: later positions are then the same angles.
      const float angle = static_cast<float>(t) * static_cast<float>(inverse_frequency[i]);
      cosines[i] = static_cast<float>(std::cos(double{angle}));
      sines[i] = static_cast<float>(std::sin(double{angle}));
    }
    float* row = rows->data() + t * width;
    kernels::RotateF32(row, heads, head_dim, cosines.data(), sines.data(), row);
  }
}

void AttentionErrorSum::Add(const std::vector<float>& queries, const std::vector<float>& keys,
                            const std::vector<float>& values, const std::vector<float>& stored_keys,
                            const std::vector<float>& stored_values) {
  const int32_t dim = shape_.head_dim;
  const int64_t query_stride = int64_t{shape_.heads} * dim;
  const int64_t stride = int64_t{shape_.kv_heads} * dim;
  const int64_t tokens = static_cast<int64_t>(queries.size()) / query_stride;
  std::vector<double> exact(static_cast<size_t>(tokens)), stored(exact.size());
  std::vector<double> exact_out(static_cast<size_t>(dim)), stored_out(exact_out.size());
  for (int64_t t = 0; t < tokens; ++t) {
    for (int32_t h = 0; h < shape_.heads; ++h) {
      const int64_t head = int64_t{h} / (shape_.heads / shape_.kv_heads) * dim;
      const float* query = queries.data() + t * query_stride + int64_t{h} * dim;
      Scores(query, keys.data() + head, t + 1, stride, dim, &exact);
      Scores(query, stored_keys.data() + head, t + 1, stride, dim, &stored);
      Compare(exact, stored, t + 1, &score_error_, &score_energy_);
      Output(&exact, values.data() + head, t + 1, stride, dim, &exact_out);
      Output(&stored, stored_values.data() + head, t + 1, stride, dim, &stored_out);
      Compare(exact_out, stored_out, dim, &output_error_, &output_energy_);
    }
  }
}

double AttentionErrorSum::score_relative_mse() const {
  return RelativeError(score_error_, score_energy_);
}
double AttentionErrorSum::output_relative_mse() const {
  return RelativeError(output_error_, output_energy_);
}

}  // namespace plumbline
