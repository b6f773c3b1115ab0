// One transformer block over the rows of a step. Tiles march through the block's maps together, so
// that its weights stay in cache; attention and quantizers run a sequence at a time.
#pragma once

#include <functional>
#include <vector>

#include "services/engine/cpu/aligned_buffer.h"
#include "services/engine/cpu/cpu_sequence.h"
#include "services/engine/cpu/model_weights.h"
#include "services/engine/cpu/rope_table.h"
#include "services/engine/engine.h"

namespace plumbline {

// Consecutive rows of one sequence: rows [row, row + rows) of the step are its positions from
// `first`.
template <typename T>
struct LayerRun {
  CpuSequence<T>* sequence = nullptr;
  int64_t row = 0;
  int64_t rows = 0;
  int64_t first = 0;
  bool prompt = false;
};

template <typename T>
class LayerRunner {
 public:
  // Called when a run's keys and values are written and before attention reads them; a replay may
  // look at them and overwrite them.
  using Probe = std::function<void(int layer, const LayerRun<T>& run, AttentionView<T> view)>;

  LayerRunner(const ModelWeights<T>* weights, RopeTable rope);

  // hidden: [rows of all runs, hidden_size], the block's input and then its output.
  void Run(int layer, const std::vector<LayerRun<T>>& runs, T* hidden, EngineStats* stats);

  // Room for positions below this one; before Run.
  void ExtendPositions(int64_t positions) { rope_.Extend(positions); }
  void set_probe(Probe probe) { probe_ = std::move(probe); }

 private:
  void Project(const LayerWeights<T>& weights, const T* hidden, int64_t rows);
  void WriteCaches(int layer, const std::vector<LayerRun<T>>& runs);
  void RotateQueries(const std::vector<LayerRun<T>>& runs);
  void Attend(int layer, const std::vector<LayerRun<T>>& runs, int64_t rows);
  void FinishTiles(const LayerWeights<T>& weights, int64_t rows, T* hidden);

  const ModelWeights<T>* weights_;
  RopeTable rope_;
  Probe probe_;
  int64_t q_dim_, kv_dim_, qkv_dim_, hidden_, inner_;
  AlignedBuffer<T> qkv_;                  // [rows, qkv_dim]
  AlignedBuffer<T> attended_;             // [rows, q_dim]
  AlignedBuffer<T> normed_, projected_;   // [kTileRows, hidden]
  AlignedBuffer<T> gate_up_, activated_;  // [kTileRows, 2 * inner], [kTileRows, inner]
};

// Norms of `rows` rows of `width`.
template <typename T>
void NormRows(const T* x, const T* weight, int64_t rows, int64_t width, float eps, T* out);

}  // namespace plumbline
