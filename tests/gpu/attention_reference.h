// Attention of one query head of one row in double on the CPU, with a bound on the device's error.
#pragma once

#include <algorithm>
#include <cmath>
#include <vector>

#include "tests/gpu/attention_scene.h"

namespace plumbline::cuda {

// With the roundings of kernels/row_ops.h.
template <typename T>
std::vector<double> RotatedQuery(const SceneData<T>& data, const SceneRun& run, int position,
                                 int head) {
  const int hd = data.dims.head_dim, half = hd / 2;
  const T* q = data.Rows(run.sequence, SceneData<T>::kQuery, run.first + run.rows).data() +
               int64_t{position} * data.dims.q_dim() + head * hd;
  const auto narrow = [](float x) { return kernels::ToFloat(Narrow<T>(x)); };
  std::vector<double> query(hd);
  for (int i = 0; i < hd; ++i) {
    const float other = i < half ? -kernels::ToFloat(q[i + half]) : kernels::ToFloat(q[i - half]);
    const float c = data.cos[int64_t{position} * half + i % half];
    const float s = data.sin[int64_t{position} * half + i % half];
    query[i] = narrow(narrow(kernels::ToFloat(q[i]) * c) + narrow(other * s));
  }
  return query;
}

// One query head of one row, in double, and how far off the device may be.
struct HeadReference {
  std::vector<double> out, tolerance;
};

// left_out: a position to forget, -1 for none (shows that the tolerance has teeth).
template <typename T>
HeadReference Reference(const SceneData<T>& data, const SceneRun& run, int position, int head,
                        int left_out = -1) {
  constexpr bool bf16 = sizeof(T) == 2;
  const ModelDims& dims = data.dims;
  const int hd = dims.head_dim, kv_dim = dims.kv_dim(), end = run.first + run.rows;
  const int kv_head = head / (dims.heads / dims.kv_heads);
  const std::vector<double> query = RotatedQuery(data, run, position, head);
  const auto row = [&](bool value, int p) {
    const bool exact = run.prompt && p >= run.first && (value ? run.plan == 1 : run.plan >= 1);
    const auto kind = value ? (exact ? SceneData<T>::kExactValue : SceneData<T>::kCachedValue)
                            : (exact ? SceneData<T>::kExactKey : SceneData<T>::kCachedKey);
    return data.Rows(run.sequence, kind, end).data() + int64_t{p} * kv_dim + kv_head * hd;
  };
  const int window = data.shape.window;
  const int first = window > 0 ? std::max(0, position - window + 1) : 0;
  std::vector<double> scores;
  std::vector<int> positions;
  double max = -INFINITY, score_error = 0;
  const double scale = 1.0 / std::sqrt(double(hd)), cap = data.shape.cap;
  for (int p = first; p <= position; ++p) {
    if (p == left_out) continue;
    const T* key = row(false, p);
    double sum = 0, magnitude = 0, squares = 0;
    for (int i = 0; i < hd; ++i) {
      const double product = query[i] * kernels::ToFloat(key[i]);
      sum += product;
      magnitude += std::abs(product);
      squares += product * product;
    }
    // fp32 rounds each partial sum: eight standard deviations of them. Tensor cores cut all 16
    // products of a step at the magnitude of the largest. Then the scaling's roundings.
    double error = (bf16 ? magnitude * hd * 0x1p-24 : 0x1p-21 * std::sqrt(hd * squares)) * scale +
                   std::abs(sum * scale) * 0x1p-22;
    double score = sum * scale;
    if (cap > 0) {
      score = cap * std::tanh(score / cap);
      error += cap * 0x1p-21;
    }
    scores.push_back(score);
    positions.push_back(p);
    max = std::max(max, score);
    score_error = std::max(score_error, error);
  }
  double total = 0;
  for (double& score : scores) total += score = std::exp(score - max);
  HeadReference reference;
  reference.out.assign(hd, 0);
  std::vector<double> magnitude(hd, 0);
  for (size_t j = 0; j < scores.size(); ++j) {
    const T* value = row(true, positions[j]);
    for (int i = 0; i < hd; ++i) {
      reference.out[i] += scores[j] / total * kernels::ToFloat(value[i]);
      magnitude[i] += scores[j] / total * std::abs(kernels::ToFloat(value[i]));
    }
  }
  // A score off by e moves a weight by e of itself and the total by at most as much; in bf16 a
  // weight keeps 16 bits; sums round once a position; the output rounds to the dtype.
  const double relative = 2.1 * score_error + (bf16 ? 0x1p-16 : 0) + 0x1p-21 +
                          0x1p-21 * std::sqrt(static_cast<double>(scores.size()));
  for (int i = 0; i < hd; ++i) {
    reference.tolerance.push_back(magnitude[i] * relative +
                                  std::abs(reference.out[i]) * (bf16 ? 0x1.02p-8 : 0x1p-23));
  }
  return reference;
}

}  // namespace plumbline::cuda
