// A step's rows over a paged cache with known contents, run through LaunchAttention.
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
  int block_heads = 0;  // kv heads that a block takes in turn; 0 = as suits
};

// The host's side of a step: pages in random order, rows, runs and rules.
template <typename T>
class SceneTables {
 public:
  SceneTables(const SceneData<T>& data, const std::vector<SceneRun>& runs,
              const SceneOptions& options)
      : data_(data), runs_(runs), options_(options) {
    MeasureSequences();
    FillPool();
    rows = options.trailing_rows;
    for (const SceneRun& run : runs) rows += run.gap + run.rows;
    FillRows();
    FillRules();
  }

  int rows = 0, max_pages = 1;
  int64_t page_elements = 0;
  std::vector<T> pool, qkv, exact_keys, exact_values;  // NaN where nothing belongs
  std::vector<int32_t> tables, row_run, row_position, plan_rules;
  std::vector<Run> run_table;
  std::vector<TensorRule> rules;

 private:
  static std::vector<T> Nans(int64_t count) {
    std::vector<T> values(count);
    std::memset(values.data(), 0xff, values.size() * sizeof(T));
    return values;
  }

  void MeasureSequences() {
    for (const SceneRun& run : runs_) {
      int& length = lengths_[run.sequence];
      length = std::max(length, run.first + run.rows);
    }
    for (const auto& [sequence, length] : lengths_) {
      const int slot = static_cast<int>(slots_.size());
      slots_[sequence] = slot;
      const int pages = (length + kPageTokens - 1) / kPageTokens;
      pages_used_ += pages;
      max_pages = std::max(max_pages, pages);
    }
  }

  void FillPool() {
    const ModelDims& dims = data_.dims;
    std::vector<int32_t> order(pages_used_ + 3);
    for (size_t i = 0; i < order.size(); ++i) order[i] = static_cast<int32_t>(i);
    std::shuffle(order.begin(), order.end(), std::mt19937(options_.seed));
    page_elements = int64_t{kSceneLayers} * 2 * dims.kv_dim() * kPageTokens;
    pool = Nans(static_cast<int64_t>(order.size()) * page_elements);
    tables.assign(slots_.size() * max_pages, -1);
    int next = 0;
    for (const auto& [sequence, length] : lengths_) {
      for (int p = 0; p < length; ++p) {
        int32_t& page = tables[slots_[sequence] * max_pages + p / kPageTokens];
        if (p % kPageTokens == 0) page = order[next++];
        CachePosition(sequence, length, p, page);
      }
    }
  }

  void CachePosition(int sequence, int length, int position, int page) {
    const ModelDims& dims = data_.dims;
    for (int value = 0; value < 2; ++value) {
      const auto kind = value ? SceneData<T>::kCachedValue : SceneData<T>::kCachedKey;
      const T* from = data_.Rows(sequence, kind, length).data() + int64_t{position} * dims.kv_dim();
      for (int h = 0; h < dims.kv_heads; ++h) {
        const int64_t plane = (int64_t{options_.layer} * 2 + value) * dims.kv_heads + h;
        const int64_t row = plane * kPageTokens + position % kPageTokens;
        std::copy_n(from + h * dims.head_dim, dims.head_dim,
                    pool.data() + page * page_elements + row * dims.head_dim);
      }
    }
  }

  void FillRows() {
    row_run.assign(rows, -1);
    row_position.assign(rows, 0);
    run_table.resize(runs_.size() + 1);
    qkv = Nans(int64_t{rows} * data_.dims.qkv_dim());
    exact_keys = Nans(int64_t{rows} * data_.dims.kv_dim());
    exact_values = exact_keys;
    int row = 0;
    for (size_t r = 0; r < runs_.size(); ++r) {
      const SceneRun& run = runs_[r];
      row += run.gap;
      run_table[r] = {row,      run.rows, run.first,       run.prompt, slots_[run.sequence],
                      run.plan, 0,        run.start_layer, 0};
      for (int i = 0; i < run.rows; ++i, ++row) {
        row_run[row] = static_cast<int32_t>(r);
        row_position[row] = run.first + i;
        FillRow(run, run.first + i, row);
      }
    }
  }

  void FillRow(const SceneRun& run, int position, int row) {
    const auto copy = [&](auto kind, T* to) {
      const int width = data_.Width(kind);
      std::copy_n(data_.Rows(run.sequence, kind, position + 1).data() + int64_t{position} * width,
                  width, to);
    };
    copy(SceneData<T>::kQuery, qkv.data() + int64_t{row} * data_.dims.qkv_dim());
    if (!run.prompt) return;
    copy(SceneData<T>::kExactKey, exact_keys.data() + int64_t{row} * data_.dims.kv_dim());
    copy(SceneData<T>::kExactValue, exact_values.data() + int64_t{row} * data_.dims.kv_dim());
  }

  // Rules: fp, quantized, quantized and exact for the prompt.
  void FillRules() {
    rules.resize(3);
    rules[1].fp = rules[2].fp = 0;
    rules[2].exact = 1;
    for (const auto& [key, value] : {std::pair{0, 0}, {2, 2}, {2, 1}}) {
      for (int layer = 0; layer < kSceneLayers; ++layer) {
        plan_rules.push_back(key);
        plan_rules.push_back(value);
      }
    }
  }

  const SceneData<T>& data_;
  const std::vector<SceneRun>& runs_;
  const SceneOptions& options_;
  std::map<int, int> lengths_, slots_;  // of sequences
  int pages_used_ = 0;
};

inline void LaunchInGraph(const Attention& args, cudaStream_t stream) {
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
}

// [rows, q_dim]
template <typename T>
std::vector<T> LaunchScene(const SceneData<T>& data, const SceneTables<T>& tables,
                           const SceneOptions& options) {
  const DeviceArray<T> pool(tables.pool), qkv(tables.qkv);
  const DeviceArray<T> exact_keys(tables.exact_keys), exact_values(tables.exact_values);
  const DeviceArray<T> out(size_t(tables.rows) * data.dims.q_dim());
  const DeviceArray<int32_t> row_run(tables.row_run), row_position(tables.row_position);
  const DeviceArray<int32_t> pages(tables.tables), plan_rules(tables.plan_rules);
  const DeviceArray<Run> runs(tables.run_table);
  const DeviceArray<TensorRule> rules(tables.rules);
  const DeviceArray<float> cos(data.cos), sin(data.sin);
  Attention args;
  args.dtype = kDtypeOf<T>;
  args.dims = data.dims;
  args.layer = options.layer;
  args.scale = 1.0f / std::sqrt(static_cast<float>(data.dims.head_dim));
  args.sliding_window = data.shape.window;
  args.logit_cap = data.shape.cap;
  args.step.max_rows = tables.rows;
  args.step.max_runs = static_cast<int>(tables.run_table.size());
  args.step.max_pages = tables.max_pages;
  args.step.row_run = row_run.data();
  args.step.row_position = row_position.data();
  args.step.runs = runs.data();
  args.step.pages = pages.data();
  args.step.plan_rules = plan_rules.data();
  args.step.rules = rules.data();
  args.pool = {pool.data(), tables.page_elements};
  args.rope = {cos.data(), sin.data()};
  args.qkv = qkv.data();
  args.exact_keys = exact_keys.data();
  args.exact_values = exact_values.data();
  args.out = out.data();
  args.max_context = options.max_context ? options.max_context : data.shape.max_context;
  args.block_heads = options.block_heads;
  const DeviceArray<char> workspace(
      AttentionWorkspaceBytes(args.dims, tables.rows, args.max_context));
  args.workspace = workspace.data();
  if (options.in_graph) {
    cudaStream_t stream;
    EXPECT_CUDA_OK(cudaStreamCreate(&stream));
    LaunchInGraph(args, stream);
    cudaStreamDestroy(stream);
  } else {
    EXPECT_CUDA_OK(LaunchAttention(args, nullptr));
    EXPECT_CUDA_OK(cudaDeviceSynchronize());
  }
  return out.Read();
}

// Expects that rows which take no part are left alone.
template <typename T>
SceneOutput<T> RunScene(const SceneData<T>& data, const std::vector<SceneRun>& runs,
                        const SceneOptions& options = {}) {
  const SceneTables<T> tables(data, runs, options);
  const std::vector<T> out = LaunchScene(data, tables, options);
  const int width = data.dims.q_dim();
  std::vector<T> untouched(width);
  std::memset(untouched.data(), 0xff, untouched.size() * sizeof(T));
  SceneOutput<T> result;
  for (int row = 0; row < tables.rows; ++row) {
    const T* from = out.data() + int64_t{row} * width;
    const std::vector<T> values(from, from + width);
    const int run = tables.row_run[row];
    if (run >= 0 && options.layer >= runs[run].start_layer) {
      result[{runs[run].sequence, tables.row_position[row]}] = values;
    } else {
      EXPECT_TRUE(SameBits(values, untouched)) << "row " << row << " takes no part";
    }
  }
  return result;
}

}  // namespace plumbline::cuda
