// A few sequences, each with its own plan, that share steps; what one layer's write must leave in
// the cache, by the CPU's quantizers, rotation and noise, as services/engine/cpu/cpu_sequence.cc
// uses them.
#pragma once

#include <algorithm>
#include <memory>
#include <numeric>
#include <vector>

#include "kernels/cuda/kv_write.h"
#include "kernels/row_ops.h"
#include "tests/gpu/quantize_formats.h"

namespace plumbline::gpu_test {

inline void RotateRow(const float* x, int heads, int dim, const float* c, const float* s,
                      float* y) {
  kernels::RotateF32(x, heads, dim, c, s, y);
}
inline void RotateRow(const Bf16* x, int heads, int dim, const float* c, const float* s, Bf16* y) {
  kernels::RotateBf16(x, heads, dim, c, s, y);
}
inline void JitterRow(uint64_t seed, int64_t n, float* x) { kernels::JitterF32(seed, n, x); }
inline void JitterRow(uint64_t seed, int64_t n, Bf16* x) { kernels::JitterBf16(seed, n, x); }

inline uint64_t JitterKey(uint64_t seed, int layer, int64_t position, bool value) {
  uint64_t key = seed * 0x9e3779b97f4a7c15u;
  for (uint64_t part : {static_cast<uint64_t>(layer), static_cast<uint64_t>(position),
                        static_cast<uint64_t>(value)}) {
    key = (key ^ part) * 0xff51afd7ed558ccdu;
    key ^= key >> 32;
  }
  return key;
}

struct Rope {
  Rope(int positions, int half, KvDtype dtype) {
    for (int i = 0; i < positions * half; ++i) {
      const double angle = (i / half) / std::pow(10000.0, static_cast<double>(i % half) / half);
      const float values[] = {static_cast<float>(std::cos(angle)),
                              static_cast<float>(std::sin(angle))};
      cos.push_back(dtype == KvDtype::kF32 ? values[0] : RoundToBf16(values[0]));
      sin.push_back(dtype == KvDtype::kF32 ? values[1] : RoundToBf16(values[1]));
    }
  }
  std::vector<float> cos, sin;
};

// Keys or values of one layer of one sequence.
template <typename T>
class TensorReplay {
 public:
  TensorReplay(const TensorFormat& format, bool value, const TensorShape& shape,
               const Calibration& calibration, int capacity)
      : format_(format), value_(value), shape_(shape), width_(shape.flat_channels()) {
    quantizer_ = *TensorQuantizer::Create(format, shape, &calibration);
    raw_.resize(capacity * width_);
    cache_.resize(capacity * width_);
  }

  bool is_exact() const { return !format_.is_fp() && format_.prefill == PrefillReads::kExact; }
  bool before_rope() const {
    return !value_ && !format_.is_fp() && format_.place == RopePlace::kPreRope;
  }
  void Adopt(int64_t tokens) { quantizer_->Adopt(tokens); }

  // Rows [first, first + rows), noise already in them. `exact` receives what the prompt's own
  // attention reads where the format asks for it. Returns the rows of the cache that changed.
  RowRange Write(const T* from, int64_t first, int64_t rows, bool prompt, const Rope& rope,
                 T* exact) {
    const Phase phase = prompt ? Phase::kPromptLast : Phase::kDecode;
    const RowRange added = {first, first + rows};
    if (prompt && is_exact()) {
      std::vector<T> all(cache_.size());
      std::copy_n(from, rows * width_, all.begin() + first * width_);
      if (!value_) Rotate(all.data(), all.data(), added, rope);
      std::copy_n(all.begin() + first * width_, rows * width_, exact);
    }
    if (!before_rope()) {
      std::copy_n(from, rows * width_, cache_.begin() + first * width_);
      if (!value_) Rotate(cache_.data(), cache_.data(), added, rope);
      return quantizer_->Append(cache_.data(), first, rows, phase);
    }
    std::copy_n(from, rows * width_, raw_.begin() + first * width_);
    const RowRange changed = quantizer_->Append(raw_.data(), first, rows, phase);
    Rotate(raw_.data(), cache_.data(), changed, rope);
    return changed;
  }
  const T* row(int64_t position) const { return cache_.data() + position * width_; }

 private:
  void Rotate(const T* from, T* to, RowRange range, const Rope& rope) const {
    const int half = shape_.head_dim / 2;
    for (int64_t p = range.begin; p < range.end; ++p) {
      RotateRow(from + p * width_, shape_.kv_heads, shape_.head_dim, rope.cos.data() + p * half,
                rope.sin.data() + p * half, to + p * width_);
    }
  }

  TensorFormat format_;
  bool value_;
  TensorShape shape_;
  int64_t width_;
  std::unique_ptr<TensorQuantizer> quantizer_;
  std::vector<T> raw_, cache_;
};

constexpr int kLayers = 2;
constexpr int kCapacity = 64;  // tokens of a sequence
constexpr int kPagesEach = kCapacity / cuda::kPageTokens;

template <typename T>
struct Sequence {
  std::vector<TensorReplay<T>> tensors;  // [layers, 2]
  int prompt_tokens = 0, held = 0, last = 0;
  int stem = 0;         // rows another sequence left
  int start_layer = 0;  // of the prompt
  int input_kind = 0;
  uint64_t jitter_seed = 0;
};

// Formats for a sequence: layer by layer, keys and values.
inline std::vector<TensorFormat> DrawPlan(const TensorShape& shape, bool alone, int fp_layers,
                                          Rng& rng) {
  static const std::vector<TensorFormat> core = CoreFormats();
  std::vector<TensorFormat> plan;
  while (plan.size() < 2 * kLayers) {
    if (static_cast<int>(plan.size()) < 2 * fp_layers || rng.OneIn(8)) {
      plan.emplace_back();
      continue;
    }
    const auto format = Decorated(core[rng.Below(static_cast<int>(core.size()))], shape, rng);
    if (!format) continue;
    if (alone && (!format->rows_stand_alone() || format->prefill == PrefillReads::kExact)) continue;
    plan.push_back(*format);
  }
  return plan;
}

// Everything of the device side that stays while the sequences run.
template <typename T>
class World {
 public:
  World(const TensorShape& shape, int sequences, uint64_t seed)
      : rng(seed), shape(shape), rope(kCapacity, shape.head_dim / 2, shape.dtype) {
    for (int s = 0; s < sequences; ++s) AddSequence(s);
    page_elements = int64_t{kLayers} * 2 * shape.flat_channels() * cuda::kPageTokens;
    std::vector<int32_t> order(2 * sequences * kPagesEach);
    std::iota(order.begin(), order.end(), 0);
    for (size_t i = order.size(); i > 1; --i) {
      std::swap(order[i - 1], order[rng.Below(static_cast<int>(i))]);
    }
    pages.assign(order.begin(), order.begin() + sequences * kPagesEach);
    raw_pages.assign(order.begin() + sequences * kPagesEach, order.end());
    pool.assign(order.size() * page_elements * sizeof(T), '\x35');
    const size_t frozen_size = static_cast<size_t>(sequences) * kLayers * 4 * max_groups;
    device.frozen = DeviceArray<float>(std::vector<float>(frozen_size, NAN));
    device.pool = DeviceArray<char>(pool);
    device.pages = DeviceArray<int32_t>(pages);
    device.raw_pages = DeviceArray<int32_t>(raw_pages);
    device.plan_rules = DeviceArray<int32_t>(plan_rules);
    device.cos = DeviceArray<float>(rope.cos);
    device.sin = DeviceArray<float>(rope.sin);
    std::vector<cuda::TensorRule> rules;
    for (const UploadedRule& rule : uploaded) rules.push_back(rule.rule);
    device.rules = DeviceArray<cuda::TensorRule>(rules);
  }

  // The cache row of a sequence in the expected pool.
  void Expect(int sequence, int layer, bool value, RowRange range) {
    const int64_t width = shape.flat_channels();
    for (int64_t p = range.begin; p < range.end; ++p) {
      const T* row = sequences[sequence].tensors[layer * 2 + value].row(p);
      const int64_t page = pages[sequence * kPagesEach + p / cuda::kPageTokens];
      T* base = reinterpret_cast<T*>(pool.data()) + page * page_elements;
      for (int64_t c = 0; c < width; ++c) {
        const int64_t plane = (layer * 2 + value) * shape.kv_heads + c / shape.head_dim;
        base[(plane * cuda::kPageTokens + p % cuda::kPageTokens) * shape.head_dim +
             c % shape.head_dim] = row[c];
      }
    }
  }

  // Differences between the device's cache and the expected one, pages of raw keys left out.
  Differences ComparePool() const {
    const Bytes got = device.pool.Get();
    Differences d;
    for (int32_t page : pages) {
      const int64_t at = page * page_elements * static_cast<int64_t>(sizeof(T));
      d.Add(CompareValues(got.data() + at, pool.data() + at, page_elements, shape.dtype));
    }
    return d;
  }

  Rng rng;
  TensorShape shape;
  Rope rope;
  int64_t page_elements = 0;
  int max_groups = 1;
  std::vector<Sequence<T>> sequences;
  std::vector<std::string> plan_texts;
  Bytes pool;
  std::vector<int32_t> pages, raw_pages, plan_rules;
  std::vector<UploadedRule> uploaded;
  struct {
    DeviceArray<char> pool;
    DeviceArray<int32_t> pages, raw_pages, plan_rules;
    DeviceArray<cuda::TensorRule> rules;
    DeviceArray<float> frozen, cos, sin;
  } device;

 private:
  void AddSequence(int index) {
    Sequence<T> sequence;
    const bool stem = index % 5 == 3;
    sequence.start_layer = index % 5 == 4 ? 1 : 0;
    sequence.prompt_tokens = stem ? 12 + rng.Below(20) : 1 + rng.Below(36);
    sequence.stem = stem ? 1 + rng.Below(sequence.prompt_tokens - 1) : 0;
    sequence.last = std::min(kCapacity, sequence.prompt_tokens + 8 + rng.Below(14));
    sequence.input_kind = rng.OneIn(3) ? 0 : rng.Below(kInputKinds);
    sequence.jitter_seed = rng.OneIn(3) ? rng.Next() : 0;
    const auto plan = DrawPlan(shape, stem, sequence.start_layer, rng);
    std::string text;
    for (int i = 0; i < 2 * kLayers; ++i) {
      const bool value = i % 2 != 0;
      const Calibration calibration = DrawCalibration(shape, rng);
      const auto role = value ? TensorRole::kValue : TensorRole::kKey;
      const DeviceRule bound = *BindDeviceRule(plan[i], role, shape, &calibration);
      plan_rules.push_back(static_cast<int32_t>(uploaded.size()));
      uploaded.emplace_back(bound);
      max_groups = std::max(max_groups, bound.rule.groups);
      sequence.tensors.emplace_back(plan[i], value, shape, calibration, kCapacity);
      if (stem) sequence.tensors.back().Adopt(sequence.stem);
      text += (i == 0 ? "" : " ") + FormatText(plan[i]);
    }
    plan_texts.push_back(text);
    sequences.push_back(std::move(sequence));
  }
};

}  // namespace plumbline::gpu_test
