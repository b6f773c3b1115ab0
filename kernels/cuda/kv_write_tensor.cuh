// One run's keys or values of one layer, as the write kernels see them: its rule, its rows in the
// step, its rows in the cache.
#pragma once

#include "kernels/cuda/kv_write_rows.cuh"
#include "kernels/cuda/quantize_set.cuh"

namespace plumbline::cuda {

// How many of `held` rows are sinks or quantized once `held` rows are in the cache.
__device__ inline int QuantizedEnd(const TensorRule& rule, int held) {
  if (rule.scope != RuleScope::kWindow) return held;
  const int eligible = max(0, held - rule.sink);
  const int leave =
      rule.window_flush > 0 ? eligible / rule.window * rule.window : max(0, eligible - rule.window);
  return rule.sink + leave;
}

template <typename T>
struct RunTensor {
  const KvWrite& args;
  const Run& run;
  const TensorRule& rule;
  const bool value;  // values, else keys

  __device__ int channels() const { return args.dims.kv_dim(); }
  __device__ int head_dim() const { return args.dims.head_dim; }
  __device__ int end() const { return run.first_position + run.rows; }
  __device__ bool turns() const { return !value; }
  __device__ bool quantizes_turned() const { return !value && rule.post_rope != 0; }
  __device__ bool keeps_raw() const {
    return !rule.fp && rule.scope == RuleScope::kWindow && !value && !rule.post_rope;
  }
  __device__ bool is_exact() const { return !rule.fp && rule.exact != 0 && run.prompt != 0; }

  // Rows [quantized_begin, quantized_end) get quantized by this run.
  __device__ int quantized_begin() const {
    const int done = QuantizedEnd(rule, run.first_position);
    return max(done, rule.sink);
  }
  __device__ int quantized_end() const { return rule.fp ? 0 : QuantizedEnd(rule, end()); }

  // Of a row of this step.
  __device__ bool quantizes(int position) const {
    return !rule.fp && position >= rule.sink && position < quantized_end();
  }

  // Whether parameters frozen by the prompt are not known yet, and this run settles them.
  __device__ bool settles_frozen() const {
    return rule.scope == RuleScope::kPrompt && run.first_position <= rule.sink && end() > rule.sink;
  }
  __device__ bool crosses_rows() const {
    return !rule.fp && rule.whole_block && rule.spec.code == QuantCode::kInt;
  }
  // Whether its rows share statistics, so that one block takes them all.
  __device__ bool rows_together() const {
    if (!crosses_rows()) return false;
    if (rule.scope == RuleScope::kWindow || settles_frozen()) return true;
    return rule.scope == RuleScope::kStep && run.prompt;
  }
  // Rows of earlier steps that leave a sliding window now.
  __device__ bool releases_rows() const {
    return !rule.fp && rule.scope == RuleScope::kWindow && !crosses_rows() &&
           quantized_begin() < min(quantized_end(), run.first_position);
  }

  __device__ T* StepRow(int position) const {
    const int64_t row = run.first_row + (position - run.first_position);
    return static_cast<T*>(args.qkv) + row * args.dims.qkv_dim() + args.dims.q_dim() +
           (value ? channels() : 0);
  }
  __device__ T* ExactRow(int position) const {
    const int64_t row = run.first_row + (position - run.first_position);
    return static_cast<T*>(value ? args.exact_values : args.exact_keys) + row * channels();
  }
  __device__ T* InPage(int32_t page, int position, int channel) const {
    const int head = channel / head_dim();
    const int64_t plane = (args.layer * 2 + (value ? 1 : 0)) * args.dims.kv_heads + head;
    return static_cast<T*>(args.pool.base) + page * args.pool.page_elements +
           (plane * kPageTokens + position % kPageTokens) * head_dim() + channel % head_dim();
  }
  __device__ int32_t PageOf(const int32_t* pages, int position) const {
    return pages[int64_t{run.sequence} * args.step.max_pages + position / kPageTokens];
  }
  __device__ Angles angles(int position) const { return AnglesOf(args.rope, head_dim(), position); }

  // A row of the step to the tile, with its noise; no barrier.
  __device__ void LoadStepRow(int position, float* row) const {
    const uint64_t seed = run.jitter_seed;
    const uint64_t key = seed == 0 ? 0 : JitterKey(seed, args.layer, position, value);
    T* from = StepRow(position);
    for (int c = threadIdx.x * Pack<T>::kSize; c < channels(); c += blockDim.x * Pack<T>::kSize) {
      Pack<T> pack = LoadPack(from + c);
      if (seed != 0) {
        JitterPack(key, c, &pack);
        StorePack(from + c, pack);
      }
      Unpack(pack, row + c);
    }
  }

  // To plain memory: rotated when `turn`.
  __device__ void CopyRow(int position, const float* row, bool turn, T* to) const {
    const Angles a = turn ? angles(position) : Angles{};
    for (int c = threadIdx.x * Pack<T>::kSize; c < channels(); c += blockDim.x * Pack<T>::kSize) {
      StorePack(to + c, turn ? TurnedPack<T>(row, c, head_dim(), a) : PackOf<T>(row + c));
    }
  }

  __device__ void PageRow(int position, const float* row, bool turn, int32_t page) const {
    const Angles a = turn ? angles(position) : Angles{};
    for (int c = threadIdx.x * Pack<T>::kSize; c < channels(); c += blockDim.x * Pack<T>::kSize) {
      StorePack(InPage(page, position, c),
                turn ? TurnedPack<T>(row, c, head_dim(), a) : PackOf<T>(row + c));
    }
  }

  // A raw row (not rotated) to the cache, and to the page of raw keys where a window needs it.
  __device__ void StoreRaw(int position, const float* row) const {
    PageRow(position, row, turns(), PageOf(args.step.pages, position));
    if (keeps_raw() && position >= rule.sink) {
      PageRow(position, row, false, PageOf(args.step.raw_pages, position));
    }
  }
  // A quantized row to the cache.
  __device__ void StoreQuantized(int position, const float* row) const {
    PageRow(position, row, turns() && !quantizes_turned(), PageOf(args.step.pages, position));
  }

  // QuantizeSet's view of the rows: those of this step from qkv, earlier ones from the cache.
  __device__ void Load(int first, int count, float* tile) const {
    for (int r = 0; r < count; ++r) {
      const int position = first + r;
      float* row = tile + r * channels();
      const bool held = position < run.first_position;
      const int32_t page =
          held ? PageOf(keeps_raw() ? args.step.raw_pages : args.step.pages, position) : 0;
      const T* step_row = held ? nullptr : StepRow(position);
      for (int c = threadIdx.x * Pack<T>::kSize; c < channels(); c += blockDim.x * Pack<T>::kSize) {
        Unpack(LoadPack(held ? InPage(page, position, c) : step_row + c), row + c);
      }
    }
    __syncthreads();
    if (!quantizes_turned()) return;
    for (int r = max(0, run.first_position - first); r < count; ++r) {
      TurnRow<T>(tile + r * channels(), channels(), head_dim(), angles(first + r));
    }
    __syncthreads();
  }
  __device__ void Store(int first, int count, const float* tile) const {
    for (int r = 0; r < count; ++r) StoreQuantized(first + r, tile + r * channels());
    __syncthreads();
  }

  // Parameters frozen by the prompt: [scale, zero][max_groups].
  __device__ float* FrozenScale() const {
    const int64_t tensor = (int64_t{run.sequence} * args.dims.layers + args.layer) * 2 + value;
    return args.step.frozen + tensor * 2 * args.step.max_groups;
  }
  __device__ float* FrozenZero() const { return FrozenScale() + args.step.max_groups; }

  __device__ SetTables Tables() const {
    SetTables tables;
    if (rule.scope == RuleScope::kCalibrated) {
      tables.known_scale = rule.frozen_scale;
      tables.known_zero = rule.frozen_zero;
    }
    if (rule.scope != RuleScope::kPrompt || !crosses_rows()) return tables;
    if (settles_frozen()) {
      tables.scale = FrozenScale();
      tables.zero = FrozenZero();
    } else {
      tables.known_scale = FrozenScale();
      tables.known_zero = FrozenZero();
    }
    return tables;
  }
};

__device__ inline const TensorRule& RuleOf(const KvWrite& args, const Run& run, bool value) {
  const int64_t at = (int64_t{run.plan} * args.dims.layers + args.layer) * 2 + value;
  return args.step.rules[args.step.plan_rules[at]];
}

}  // namespace plumbline::cuda
