// A step's rows over a paged cache with known contents, run through LaunchAttention, and the same
// in double on the CPU.
#pragma once

#include <algorithm>
#include <cmath>
#include <map>
#include <random>
#include <utility>
#include <vector>

#include "kernels/cuda/attention.h"
#include "tests/gpu/device_array.h"

namespace plumbline::cuda {

struct SceneShape {
  int heads = 4, kv_heads = 1, head_dim = 64;
  int window = 0;
  float cap = 0;
  int max_context = 8192;
};

// Rows of one sequence; its keys, values and queries are drawn from `sequence`.
struct SceneRun {
  int sequence = 0, first = 0, rows = 1;
  bool prompt = false;
  int plan = 0;  // 0: fp, 1: keys and values exact, 2: keys exact
  int start_layer = 0;
  int gap = 0;  // rows without a token before it
};

constexpr int kSceneLayers = 2, kSceneLayer = 1;

// What one row of the model would have computed, whatever step it is in.
template <typename T>
class SceneData {
 public:
  explicit SceneData(const SceneShape& shape) : shape(shape) {
    ModelDims& d = dims;
    d.layers = kSceneLayers;
    d.heads = shape.heads;
    d.kv_heads = shape.kv_heads;
    d.head_dim = shape.head_dim;
    for (int p = 0; p < shape.max_context; ++p) {
      for (int i = 0; i < d.head_dim / 2; ++i) {
        const double angle = p * std::pow(10000.0, -2.0 * i / d.head_dim);
        cos.push_back(kernels::ToFloat(Narrow<T>(static_cast<float>(std::cos(angle)))));
        sin.push_back(kernels::ToFloat(Narrow<T>(static_cast<float>(std::sin(angle)))));
      }
    }
  }
  enum Kind { kCachedKey, kCachedValue, kExactKey, kExactValue, kQuery };
  // [positions, width] of a sequence.
  const std::vector<T>& Rows(int sequence, Kind kind, int positions) const {
    std::vector<T>& rows = rows_[{sequence, kind}];
    const size_t count = size_t(positions) * Width(kind);
    if (rows.size() < count) {
      rows = RandomValues<T>(std::max(count, 2 * rows.size()), sequence * 8 + kind, Spread(kind));
    }
    return rows;
  }
  int Width(Kind kind) const { return kind == kQuery ? dims.q_dim() : dims.kv_dim(); }

  SceneShape shape;
  ModelDims dims;
  std::vector<float> cos, sin;

 private:
  // Scores of some units: neither uniform nor one position alone.
  float Spread(Kind kind) const { return kind == kQuery ? 2.0f : 1.0f; }
  mutable std::map<std::pair<int, int>, std::vector<T>> rows_;
};

using RowKey = std::pair<int, int>;  // sequence, position
template <typename T>
using SceneOutput = std::map<RowKey, std::vector<T>>;

template <typename T>
bool SameRows(const SceneOutput<T>& a, const SceneOutput<T>& b) {
  return std::equal(a.begin(), a.end(), b.begin(), b.end(), [](const auto& x, const auto& y) {
    return x.first == y.first && SameBits(x.second, y.second);
  });
}

struct SceneOptions {
  uint32_t seed = 1;      // of page numbers
  bool in_graph = false;  // recorded and replayed
  int max_context = 0;    // 0 = the shape's
  int trailing_rows = 3;  // without a token
  int layer = kSceneLayer;
};

template <typename T>
SceneOutput<T> RunScene(const SceneData<T>& data, const std::vector<SceneRun>& runs,
                        const SceneOptions& options = {}) {
  const ModelDims& dims = data.dims;
  const int head_dim = dims.head_dim, kv_dim = dims.kv_dim();
  std::map<int, int> lengths, slots;
  int rows = options.trailing_rows;
  for (const SceneRun& run : runs) {
    lengths[run.sequence] = std::max(lengths[run.sequence], run.first + run.rows);
    rows += run.gap + run.rows;
  }
  int pages_used = 0, max_pages = 1;
  for (const auto& [sequence, length] : lengths) {
    slots[sequence] = static_cast<int>(slots.size());
    const int pages = (length + kPageTokens - 1) / kPageTokens;
    pages_used += pages;
    max_pages = std::max(max_pages, pages);
  }
  std::vector<int32_t> order(pages_used + 3);
  for (size_t i = 0; i < order.size(); ++i) order[i] = static_cast<int32_t>(i);
  std::mt19937 random(options.seed);
  std::shuffle(order.begin(), order.end(), random);

  const int64_t page_elements = int64_t{kSceneLayers} * 2 * kv_dim * kPageTokens;
  std::vector<T> pool(order.size() * page_elements);
  std::memset(pool.data(), 0xff, pool.size() * sizeof(T));
  std::vector<int32_t> tables(slots.size() * max_pages, -1);
  int next = 0;
  for (const auto& [sequence, length] : lengths) {
    for (int p = 0; p < length; ++p) {
      int32_t& page = tables[slots[sequence] * max_pages + p / kPageTokens];
      if (p % kPageTokens == 0) page = order[next++];
      for (int value = 0; value < 2; ++value) {
        const auto kind = value ? SceneData<T>::kCachedValue : SceneData<T>::kCachedKey;
        const T* from = data.Rows(sequence, kind, length).data() + int64_t{p} * kv_dim;
        for (int h = 0; h < dims.kv_heads; ++h) {
          const int64_t plane = (int64_t{options.layer} * 2 + value) * dims.kv_heads + h;
          std::copy_n(from + h * head_dim, head_dim,
                      pool.data() + page * page_elements + plane * kPageTokens * head_dim +
                          p % kPageTokens * head_dim);
        }
      }
    }
  }

  std::vector<int32_t> row_run(rows, -1), row_position(rows, 0);
  std::vector<Run> table(runs.size() + 1);
  std::vector<T> qkv = RandomValues<T>(int64_t{rows} * dims.qkv_dim(), 99);
  std::vector<T> exact_keys(int64_t{rows} * kv_dim), exact_values(int64_t{rows} * kv_dim);
  std::memset(exact_keys.data(), 0xff, exact_keys.size() * sizeof(T));
  std::memset(exact_values.data(), 0xff, exact_values.size() * sizeof(T));
  int row = 0;
  for (size_t r = 0; r < runs.size(); ++r) {
    const SceneRun& run = runs[r];
    row += run.gap;
    table[r].first_row = row;
    table[r].rows = run.rows;
    table[r].first_position = run.first;
    table[r].prompt = run.prompt;
    table[r].sequence = slots[run.sequence];
    table[r].plan = run.plan;
    table[r].start_layer = run.start_layer;
    for (int i = 0; i < run.rows; ++i, ++row) {
      const int position = run.first + i, end = position + 1;
      row_run[row] = static_cast<int32_t>(r);
      row_position[row] = position;
      const auto copy = [&](auto kind, T* to) {
        const int width = data.Width(kind);
        std::copy_n(data.Rows(run.sequence, kind, end).data() + int64_t{position} * width, width,
                    to);
      };
      copy(SceneData<T>::kQuery, qkv.data() + int64_t{row} * dims.qkv_dim());
      if (!run.prompt) continue;
      copy(SceneData<T>::kExactKey, exact_keys.data() + int64_t{row} * kv_dim);
      copy(SceneData<T>::kExactValue, exact_values.data() + int64_t{row} * kv_dim);
    }
  }
  // Rules: fp, not exact, exact.
  std::vector<TensorRule> rules(3);
  rules[1].fp = rules[2].fp = 0;
  rules[2].exact = 1;
  std::vector<int32_t> plan_rules;
  for (const auto& [key, value] : {std::pair{0, 0}, {2, 2}, {2, 1}}) {
    for (int layer = 0; layer < kSceneLayers; ++layer) {
      plan_rules.push_back(key);
      plan_rules.push_back(value);
    }
  }

  DeviceArray<T> d_pool(pool), d_qkv(qkv), d_keys(exact_keys), d_values(exact_values);
  DeviceArray<T> d_out(size_t(rows) * dims.q_dim());
  DeviceArray<int32_t> d_row_run(row_run), d_row_position(row_position), d_tables(tables);
  DeviceArray<int32_t> d_plan_rules(plan_rules);
  DeviceArray<Run> d_runs(table);
  DeviceArray<TensorRule> d_rules(rules);
  DeviceArray<float> d_cos(data.cos), d_sin(data.sin);
  Attention args;
  args.dtype = kDtypeOf<T>;
  args.dims = dims;
  args.layer = options.layer;
  args.scale = 1.0f / std::sqrt(static_cast<float>(head_dim));
  args.sliding_window = data.shape.window;
  args.logit_cap = data.shape.cap;
  args.step.max_rows = rows;
  args.step.max_runs = static_cast<int>(table.size());
  args.step.max_pages = max_pages;
  args.step.row_run = d_row_run.data();
  args.step.row_position = d_row_position.data();
  args.step.runs = d_runs.data();
  args.step.pages = d_tables.data();
  args.step.plan_rules = d_plan_rules.data();
  args.step.rules = d_rules.data();
  args.pool = {d_pool.data(), page_elements};
  args.rope = {d_cos.data(), d_sin.data()};
  args.qkv = d_qkv.data();
  args.exact_keys = d_keys.data();
  args.exact_values = d_values.data();
  args.out = d_out.data();
  args.max_context = options.max_context ? options.max_context : data.shape.max_context;
  DeviceArray<char> workspace(AttentionWorkspaceBytes(dims, rows, args.max_context));
  args.workspace = workspace.data();
  cudaStream_t stream;
  EXPECT_CUDA_OK(cudaStreamCreate(&stream));
  if (options.in_graph) {
    cudaGraph_t graph;
    cudaGraphExec_t exec;
    EXPECT_CUDA_OK(cudaStreamBeginCapture(stream, cudaStreamCaptureModeGlobal));
    EXPECT_CUDA_OK(LaunchAttention(args, stream));
    EXPECT_CUDA_OK(cudaStreamEndCapture(stream, &graph));
    EXPECT_CUDA_OK(cudaGraphInstantiate(&exec, graph, 0));
    EXPECT_CUDA_OK(cudaGraphLaunch(exec, stream));
    EXPECT_CUDA_OK(cudaStreamSynchronize(stream));
    cudaGraphExecDestroy(exec);
    cudaGraphDestroy(graph);
  } else {
    EXPECT_CUDA_OK(LaunchAttention(args, stream));
    EXPECT_CUDA_OK(cudaStreamSynchronize(stream));
  }
  cudaStreamDestroy(stream);

  const std::vector<T> out = d_out.Read();
  SceneOutput<T> result;
  for (int i = 0; i < rows; ++i) {
    const T* from = out.data() + int64_t{i} * dims.q_dim();
    const std::vector<T> values(from, from + dims.q_dim());
    const bool takes_part = row_run[i] >= 0 && options.layer >= runs[row_run[i]].start_layer;
    if (takes_part) {
      result[{runs[row_run[i]].sequence, row_position[i]}] = values;
    } else {
      std::vector<T> untouched(dims.q_dim());
      std::memset(untouched.data(), 0xff, untouched.size() * sizeof(T));
      EXPECT_TRUE(SameBits(values, untouched)) << "row " << i << " takes no part";
    }
  }
  return result;
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
  const int kv_head = head / (dims.heads / dims.kv_heads), half = hd / 2;
  const T* q = data.Rows(run.sequence, SceneData<T>::kQuery, end).data() +
               int64_t{position} * dims.q_dim() + head * hd;
  const auto narrow = [](float x) { return kernels::ToFloat(Narrow<T>(x)); };
  std::vector<double> query(hd);
  for (int i = 0; i < hd; ++i) {
    const float other = i < half ? -kernels::ToFloat(q[i + half]) : kernels::ToFloat(q[i - half]);
    const float c = data.cos[int64_t{position} * half + i % half];
    const float s = data.sin[int64_t{position} * half + i % half];
    query[i] = narrow(narrow(kernels::ToFloat(q[i]) * c) + narrow(other * s));
  }
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
