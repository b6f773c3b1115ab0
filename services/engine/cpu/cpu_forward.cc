#include "services/engine/cpu/cpu_forward.h"

#include <algorithm>
#include <cstring>
#include <exception>
#include <new>
#include <utility>

#include "absl/strings/str_cat.h"
#include "services/common/status_macros.h"
#include "services/engine/cpu/parallel.h"
#include "services/engine/cpu/stopwatch.h"

namespace plumbline {
namespace {

// One row of logits as floats; fp32 rows need no copy.
const float* AsFloats(const float* row, int64_t, std::vector<float>*) { return row; }
const float* AsFloats(const Bf16* row, int64_t count, std::vector<float>* copy) {
  copy->resize(count);
  std::transform(row, row + count, copy->begin(), [](Bf16 x) { return kernels::ToFloat(x); });
  return copy->data();
}

}  // namespace

template <typename T>
CpuForward<T>::CpuForward(ModelWeights<T> weights, RopeTable rope, std::string numerics_class,
                          int64_t prefix_cache_bytes)
    : weights_(std::move(weights)),
      numerics_class_(std::move(numerics_class)),
      runner_(&weights_, std::move(rope)),
      prefix_cache_(prefix_cache_bytes) {
  const ModelShape& shape = weights_.shape;
  gathered_.ReserveZeroed(int64_t{kTileRows} * shape.hidden_size);
  normed_.ReserveZeroed(int64_t{kTileRows} * shape.hidden_size);
  logits_.ReserveZeroed(int64_t{kTileRows} * shape.vocab_size);
}

template <typename T>
absl::StatusOr<std::unique_ptr<SequenceState>> CpuForward<T>::Open(const SequenceRequest& request) {
  PLUMB_ASSIGN_OR_RETURN(auto sequence, CpuSequence<T>::Create(request, weights_.shape));
  if (!prefix_cache_.enabled()) sequence->StopSharing();
  return std::unique_ptr<SequenceState>(std::move(sequence));
}

template <typename T>
absl::StatusOr<std::vector<std::vector<LogitOutcome>>> CpuForward<T>::Run(
    const std::vector<ForwardRun>& runs, EngineStats* stats) {
  try {
    Stopwatch whole;
    const double timed_before =
        stats->matmul_seconds + stats->attention_seconds + stats->quantize_seconds;
    Outcomes outcomes(runs.size());
    std::vector<Active> actives = Arrange(runs);
    RunLayers(&actives, stats);
    RunHead(actives, &outcomes, stats);
    for (Active& active : actives) {
      if (active.save_layers > 0) {
        prefix_cache_.Put(active.run->state->prefix_key(), std::move(active.saved));
      }
    }
    stats->other_seconds += whole.Lap() - (stats->matmul_seconds + stats->attention_seconds +
                                           stats->quantize_seconds - timed_before);
    return outcomes;
  } catch (const std::bad_alloc&) {
    return absl::ResourceExhaustedError(
        "not enough memory for an engine step: lower max_running or kv_pool_bytes");
  } catch (const std::exception& error) {
    return absl::InternalError(absl::StrCat("engine step failed: ", error.what()));
  }
}

// Runs that start at a deeper block come later, so that the rows of every block are the first ones.
template <typename T>
std::vector<typename CpuForward<T>::Active> CpuForward<T>::Arrange(
    const std::vector<ForwardRun>& runs) {
  std::vector<Active> actives;
  int64_t rows = 0, positions = 0;
  for (size_t i = 0; i < runs.size(); ++i) {
    const ForwardRun& run = runs[i];
    auto* sequence = static_cast<CpuSequence<T>*>(run.state);
    Active active = {&run, i, 0, {}, {}, 0};
    active.rows = {sequence, 0, static_cast<int64_t>(run.tokens.size()), run.first, run.prompt};
    if (run.prompt) {
      active.start_layer =
          std::min(prefix_cache_.Layers(sequence->prefix_key()), sequence->shared_layers());
    }
    rows += active.rows.rows;
    positions = std::max(positions, run.first + active.rows.rows);
    actives.push_back(std::move(active));
  }
  std::stable_sort(actives.begin(), actives.end(),
                   [](const Active& a, const Active& b) { return a.start_layer < b.start_layer; });
  hidden_.ReserveZeroed(rows * weights_.shape.hidden_size);
  runner_.ExtendPositions(positions);
  int64_t row = 0;
  for (Active& active : actives) {
    active.rows.row = row;
    row += active.rows.rows;
    Begin(&active);
  }
  return actives;
}

// Cache memory, and reused keys and values of the blocks that are skipped.
template <typename T>
void CpuForward<T>::Begin(Active* active) {
  CpuSequence<T>& sequence = *active->rows.sequence;
  sequence.CountTokens(active->rows.rows);
  if (!active->run->prompt) return;
  sequence.Allocate();
  if (active->start_layer < sequence.shared_layers())
    active->save_layers = sequence.shared_layers();
  if (active->start_layer == 0) return;
  const Entry& entry = *prefix_cache_.Use(sequence.prefix_key());
  for (int layer = 0; layer < active->start_layer; ++layer) {
    std::copy(entry.keys[layer].begin(), entry.keys[layer].end(), sequence.keys(layer));
    std::copy(entry.values[layer].begin(), entry.values[layer].end(), sequence.values(layer));
  }
  if (active->save_layers > 0) active->saved = entry;
}

// The input of the run's first block: embeddings, or reused states. Not before that block: until
// then these rows may serve as padding of a tile.
template <typename T>
void CpuForward<T>::Join(Active* active) {
  const int64_t width = weights_.shape.hidden_size;
  T* hidden = hidden_.data() + active->rows.row * width;
  if (active->start_layer > 0) {
    const Entry& entry = *prefix_cache_.Use(active->rows.sequence->prefix_key());
    const std::vector<T>& states = entry.hidden[active->start_layer];
    std::copy(states.begin(), states.end(), hidden);
    return;
  }
  for (int64_t i = 0; i < active->rows.rows; ++i) {
    std::memcpy(static_cast<void*>(hidden + i * width),
                weights_.embedding.data() + int64_t{active->run->tokens[i]} * width,
                sizeof(T) * width);
  }
  if (active->save_layers > 0) SaveHidden(active);
}

template <typename T>
void CpuForward<T>::SaveHidden(Active* active) {
  const int64_t width = weights_.shape.hidden_size;
  const T* hidden = hidden_.data() + active->rows.row * width;
  active->saved.hidden.emplace_back(hidden, hidden + active->rows.rows * width);
}

template <typename T>
void CpuForward<T>::SaveCache(int layer, Active* active) {
  CpuSequence<T>& sequence = *active->rows.sequence;
  const int64_t count = active->rows.rows * sequence.kv_dim();
  active->saved.keys.emplace_back(sequence.keys(layer), sequence.keys(layer) + count);
  active->saved.values.emplace_back(sequence.values(layer), sequence.values(layer) + count);
}

template <typename T>
void CpuForward<T>::RunLayers(std::vector<Active>* actives, EngineStats* stats) {
  std::vector<LayerRun<T>> runs;
  size_t joined = 0;
  const auto join_up_to = [&](int layer) {
    for (; joined < actives->size() && (*actives)[joined].start_layer <= layer; ++joined) {
      Join(&(*actives)[joined]);
      runs.push_back((*actives)[joined].rows);
    }
  };
  const int num_layers = weights_.shape.num_layers;
  for (int layer = 0; layer < num_layers; ++layer) {
    join_up_to(layer);
    if (runs.empty()) continue;
    runner_.Run(layer, runs, hidden_.data(), stats);
    for (size_t i = 0; i < joined; ++i) {
      Active& active = (*actives)[i];
      if (layer >= active.save_layers) continue;
      SaveCache(layer, &active);
      SaveHidden(&active);
    }
  }
  join_up_to(num_layers);
}

template <typename T>
void CpuForward<T>::RunHead(const std::vector<Active>& actives, Outcomes* outcomes,
                            EngineStats* stats) {
  struct Wanted {
    const Active* active;
    size_t task;
  };
  std::vector<Wanted> wanted;
  for (const Active& active : actives) {
    (*outcomes)[active.index].resize(active.run->tasks.size());
    for (size_t i = 0; i < active.run->tasks.size(); ++i) wanted.push_back({&active, i});
  }
  const int64_t width = weights_.shape.hidden_size;
  const int64_t vocab = weights_.shape.vocab_size;
  for (size_t first = 0; first < wanted.size(); first += kTileRows) {
    const int64_t count = std::min<int64_t>(kTileRows, wanted.size() - first);
    for (int64_t i = 0; i < count; ++i) {
      const Wanted& want = wanted[first + i];
      const int64_t row = want.active->rows.row + want.active->run->tasks[want.task].row;
      std::memcpy(static_cast<void*>(gathered_.data() + i * width), hidden_.data() + row * width,
                  sizeof(T) * width);
    }
    Stopwatch watch;
    NormRows(gathered_.data(), weights_.final_norm.data(), count, width, weights_.norm_eps,
             normed_.data());
    weights_.head.Apply(normed_.data(), count, logits_.data());
    stats->matmul_seconds += watch.Lap();
    ParallelFor(count, 1, [&](int64_t begin, int64_t end) {
      std::vector<float> copy;
      for (int64_t i = begin; i < end; ++i) {
        const Wanted& want = wanted[first + i];
        (*outcomes)[want.active->index][want.task] =
            ReadLogits(AsFloats(logits_.data() + i * vocab, vocab, &copy), static_cast<int>(vocab),
                       want.active->run->tasks[want.task].task);
      }
    });
  }
}

template class CpuForward<float>;
template class CpuForward<Bf16>;

}  // namespace plumbline
