#include "services/engine/cpu/cpu_forward.h"

#include <algorithm>
#include <cstring>
#include <exception>
#include <new>
#include <utility>

#include "absl/strings/str_cat.h"
#include "services/common/parallel.h"
#include "services/common/status_macros.h"
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
      prefix_cache_(prefix_cache_bytes),
      stem_cache_(prefix_cache_bytes / 4) {
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
    for (const Active& active : actives) stats->reused_rows += active.skipped;
    RunLayers(&actives, stats);
    RunHead(actives, &outcomes, stats);
    for (Active& active : actives) KeepStates(&active);
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
    actives.push_back(Start(runs[i], i));
    const LayerRun<T>& added = actives.back().rows;
    rows += added.rows;
    positions = std::max(positions, added.first + added.rows);
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

// What of the run has to be computed.
template <typename T>
typename CpuForward<T>::Active CpuForward<T>::Start(const ForwardRun& run, size_t index) {
  auto* sequence = static_cast<CpuSequence<T>*>(run.state);
  Active active = {&run, index, 0, 0, {}, {}, 0};
  if (run.prompt) {
    const int shared = sequence->shared_layers();
    active.start_layer = std::min(prefix_cache_.Layers(sequence->prefix_key()), shared);
    if (active.start_layer < shared) active.save_layers = shared;
    const Entry* stem = stem_cache_.Use(sequence->stem_key());
    // Hidden states of the skipped rows are wanted only by those who save them.
    const bool serves = stem != nullptr && (active.save_layers == 0 || !stem->hidden.empty());
    if (serves) active.skipped = sequence->stem_tokens();
  }
  active.rows = {sequence, 0, static_cast<int64_t>(run.tokens.size()) - active.skipped,
                 run.first + active.skipped, run.prompt};
  return active;
}

// Cache memory, and reused keys and values of the rows and blocks that are skipped.
template <typename T>
void CpuForward<T>::Begin(Active* active) {
  CpuSequence<T>& sequence = *active->rows.sequence;
  sequence.CountTokens(active->skipped + active->rows.rows);
  if (!active->run->prompt) return;
  sequence.Allocate();
  if (active->skipped > 0) {
    const Entry& stem = *stem_cache_.Use(sequence.stem_key());
    for (int layer = 0; layer < stem.layers(); ++layer) {
      sequence.AdoptRows(layer, active->skipped, stem.keys[layer].data(),
                         stem.values[layer].data());
    }
  }
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
    std::copy(states.begin() + active->skipped * width, states.end(), hidden);
    return;
  }
  for (int64_t i = 0; i < active->rows.rows; ++i) {
    std::memcpy(
        static_cast<void*>(hidden + i * width),
        weights_.embedding.data() + int64_t{active->run->tokens[active->skipped + i]} * width,
        sizeof(T) * width);
  }
  if (active->save_layers > 0) SaveHidden(active);
}

template <typename T>
void CpuForward<T>::SaveHidden(Active* active) {
  const int64_t width = weights_.shape.hidden_size;
  const T* hidden = hidden_.data() + active->rows.row * width;
  std::vector<T> states;
  if (active->skipped > 0) {
    const Entry& stem = *stem_cache_.Use(active->rows.sequence->stem_key());
    states = stem.hidden[active->saved.hidden.size()];
  }
  states.insert(states.end(), hidden, hidden + active->rows.rows * width);
  active->saved.hidden.push_back(std::move(states));
}

template <typename T>
void CpuForward<T>::SaveCache(int layer, Active* active) {
  CpuSequence<T>& sequence = *active->rows.sequence;
  const int64_t count = (active->skipped + active->rows.rows) * sequence.kv_dim();
  active->saved.keys.emplace_back(sequence.keys(layer), sequence.keys(layer) + count);
  active->saved.values.emplace_back(sequence.values(layer), sequence.values(layer) + count);
}

template <typename T>
void CpuForward<T>::KeepStates(Active* active) {
  CpuSequence<T>& sequence = *active->rows.sequence;
  if (active->save_layers > 0) prefix_cache_.Put(sequence.prefix_key(), std::move(active->saved));
  const bool has_stem = active->run->prompt && !sequence.stem_key().empty();
  if (has_stem && active->skipped == 0) KeepStem(*active);
}

// The first rows as the plan stores them, from the sequence's cache; their hidden states from the
// whole prompt's, where those are held.
template <typename T>
void CpuForward<T>::KeepStem(const Active& active) {
  CpuSequence<T>& sequence = *active.rows.sequence;
  Entry stem;
  const int64_t cached = sequence.stem_tokens() * sequence.kv_dim();
  for (int layer = 0; layer < weights_.shape.num_layers; ++layer) {
    stem.keys.emplace_back(sequence.keys(layer), sequence.keys(layer) + cached);
    stem.values.emplace_back(sequence.values(layer), sequence.values(layer) + cached);
  }
  const Entry* prompt = prefix_cache_.Use(sequence.prefix_key());
  if (prompt != nullptr && prompt->layers() >= sequence.shared_layers()) {
    const int64_t width = sequence.stem_tokens() * weights_.shape.hidden_size;
    for (int layer = 0; layer <= sequence.shared_layers(); ++layer) {
      const std::vector<T>& states = prompt->hidden[layer];
      stem.hidden.emplace_back(states.begin(), states.begin() + width);
    }
  }
  stem_cache_.Put(sequence.stem_key(), std::move(stem));
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
      const int64_t row =
          want.active->rows.row + want.active->run->tasks[want.task].row - want.active->skipped;
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
