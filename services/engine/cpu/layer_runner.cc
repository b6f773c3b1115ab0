#include "services/engine/cpu/layer_runner.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <utility>

#include "services/common/parallel.h"
#include "services/engine/cpu/row_kernels.h"
#include "services/engine/cpu/stopwatch.h"

namespace plumbline {
template <typename T>
void NormRows(const T* x, const T* weight, int64_t rows, int64_t width, float eps, T* out) {
  ParallelFor(rows, 16, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) {
      RowKernels<T>::RmsNorm(x + i * width, weight, width, eps, out + i * width);
    }
  });
}

template <typename T>
LayerRunner<T>::LayerRunner(const ModelWeights<T>* weights, RopeTable rope)
    : weights_(weights), rope_(std::move(rope)) {
  const ModelShape& shape = weights->shape;
  q_dim_ = int64_t{shape.num_heads} * shape.head_dim;
  kv_dim_ = int64_t{shape.num_kv_heads} * shape.head_dim;
  qkv_dim_ = q_dim_ + 2 * kv_dim_;
  hidden_ = shape.hidden_size;
  inner_ = shape.intermediate_size;
  normed_.ReserveZeroed(kTileRows * hidden_);
  projected_.ReserveZeroed(kTileRows * hidden_);
  gate_up_.ReserveZeroed(kTileRows * 2 * inner_);
  activated_.ReserveZeroed(kTileRows * inner_);
}

template <typename T>
void LayerRunner<T>::Run(int layer, const std::vector<LayerRun<T>>& runs, T* hidden,
                         EngineStats* stats) {
  int64_t rows = 0;
  for (const LayerRun<T>& run : runs) rows += run.rows;
  qkv_.ReserveZeroed(rows * qkv_dim_);
  attended_.ReserveZeroed(rows * q_dim_);
  const LayerWeights<T>& weights = weights_->layers[layer];
  Stopwatch watch;
  Project(weights, hidden, rows);
  stats->matmul_seconds += watch.Lap();
  WriteCaches(layer, runs);
  stats->quantize_seconds += watch.Lap();
  RotateQueries(runs);
  Attend(layer, runs, rows);
  stats->attention_seconds += watch.Lap();
  FinishTiles(weights, rows, hidden);
  stats->matmul_seconds += watch.Lap();
  for (const LayerRun<T>& run : runs) {
    if (run.prompt) run.sequence->FinishPromptLayer(layer);
  }
}

template <typename T>
void LayerRunner<T>::Project(const LayerWeights<T>& weights, const T* hidden, int64_t rows) {
  for (int64_t row = 0; row < rows; row += kTileRows) {
    const int64_t count = std::min<int64_t>(kTileRows, rows - row);
    NormRows(hidden + row * hidden_, weights.attention_norm.data(), count, hidden_,
             weights_->norm_eps, normed_.data());
    weights.qkv.Apply(normed_.data(), count, qkv_.data() + row * qkv_dim_);
  }
}

template <typename T>
void LayerRunner<T>::WriteCaches(int layer, const std::vector<LayerRun<T>>& runs) {
  const int64_t count = static_cast<int64_t>(runs.size());
  const auto keys = [this](const LayerRun<T>& run) {
    return qkv_.data() + run.row * qkv_dim_ + q_dim_;
  };
  ParallelFor(count, 1, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) {
      const LayerRun<T>& run = runs[i];
      T* k = keys(run);
      run.sequence->AddJitter(layer, run.first, run.rows, k, k + kv_dim_, qkv_dim_);
      if (run.prompt) run.sequence->Capture(layer, run.rows, k - q_dim_, k, k + kv_dim_, qkv_dim_);
    }
  });
  ParallelFor(2 * count, 1, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) {
      const LayerRun<T>& run = runs[i / 2];
      const T* k = keys(run);
      if (i % 2 == 0) {
        if (run.prompt) run.sequence->MeasureKeys(layer, run.rows, k, qkv_dim_);
        run.sequence->WriteKeys(layer, run.first, run.rows, run.prompt, k, qkv_dim_, rope_);
      } else {
        if (run.prompt) run.sequence->MeasureValues(layer, run.rows, k + kv_dim_, qkv_dim_);
        run.sequence->WriteValues(layer, run.first, run.rows, run.prompt, k + kv_dim_, qkv_dim_);
      }
    }
  });
  if (!probe_) return;
  for (const LayerRun<T>& run : runs) probe_(layer, run, run.sequence->View(layer, run.prompt));
}

template <typename T>
void LayerRunner<T>::RotateQueries(const std::vector<LayerRun<T>>& runs) {
  const ModelShape& shape = weights_->shape;
  for (const LayerRun<T>& run : runs) {
    ParallelFor(run.rows, 64, [&](int64_t begin, int64_t end) {
      for (int64_t i = begin; i < end; ++i) {
        T* query = qkv_.data() + (run.row + i) * qkv_dim_;
        RowKernels<T>::Rotate(query, shape.num_heads, shape.head_dim, rope_.cos(run.first + i),
                              rope_.sin(run.first + i), query);
      }
    });
  }
}

template <typename T>
void LayerRunner<T>::Attend(int layer, const std::vector<LayerRun<T>>& runs, int64_t rows) {
  const ModelShape& shape = weights_->shape;
  const kernels::AttentionShape attention = {shape.num_heads, shape.num_kv_heads, shape.head_dim,
                                             1.0f / std::sqrt(static_cast<float>(shape.head_dim))};
  std::vector<const LayerRun<T>*> run_of_row(rows);
  int64_t longest = 0;
  for (const LayerRun<T>& run : runs) {
    longest = std::max(longest, run.first + run.rows);
    for (int64_t i = 0; i < run.rows; ++i) run_of_row[run.row + i] = &run;
  }
  const int heads = shape.num_kv_heads;
  ParallelFor(rows * heads, 16, [&](int64_t begin, int64_t end) {
    AlignedBuffer<float> scratch(kernels::AttentionScratchFloats(longest));
    for (int64_t item = begin; item < end; ++item) {
      const int64_t row = item / heads;
      const LayerRun<T>& run = *run_of_row[row];
      const AttentionView<T> view = run.sequence->View(layer, run.prompt);
      RowKernels<T>::Attend(attention, static_cast<int>(item % heads), qkv_.data() + row * qkv_dim_,
                            view.keys, view.values, run.first + (row - run.row) + 1, scratch.data(),
                            attended_.data() + row * q_dim_);
    }
  });
}

template <typename T>
void LayerRunner<T>::FinishTiles(const LayerWeights<T>& weights, int64_t rows, T* hidden) {
  for (int64_t row = 0; row < rows; row += kTileRows) {
    const int64_t count = std::min<int64_t>(kTileRows, rows - row);
    const auto add_rows = [&](const T* y, T* x) {
      ParallelFor(count, 16, [&](int64_t begin, int64_t end) {
        RowKernels<T>::Add(y + begin * hidden_, (end - begin) * hidden_, x + begin * hidden_);
      });
    };
    T* tile = hidden + row * hidden_;
    weights.attention_out.Apply(attended_.data() + row * q_dim_, count, projected_.data());
    add_rows(projected_.data(), tile);
    NormRows(tile, weights.mlp_norm.data(), count, hidden_, weights_->norm_eps, normed_.data());
    weights.gate_up.Apply(normed_.data(), count, gate_up_.data());
    ParallelFor(count, 8, [&](int64_t begin, int64_t end) {
      for (int64_t i = begin; i < end; ++i) {
        const T* gate = gate_up_.data() + i * 2 * inner_;
        RowKernels<T>::SiluMul(gate, gate + inner_, inner_, activated_.data() + i * inner_);
      }
    });
    weights.down.Apply(activated_.data(), count, projected_.data());
    add_rows(projected_.data(), tile);
  }
}

template class LayerRunner<float>;
template class LayerRunner<Bf16>;
template void NormRows(const float*, const float*, int64_t, int64_t, float, float*);
template void NormRows(const Bf16*, const Bf16*, int64_t, int64_t, float, Bf16*);

}  // namespace plumbline
