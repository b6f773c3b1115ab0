// Every format of the grammar, as the GPU tests draw them, and a rule with its tables on the
// device.
#pragma once

#include <algorithm>
#include <initializer_list>
#include <optional>
#include <vector>

#include "tests/gpu/quantize_support.h"

namespace plumbline::gpu_test {

inline void AddIntFormats(KvType type, std::vector<TensorFormat>* formats) {
  for (Symmetry symmetry : {Symmetry::kSym, Symmetry::kAsym, Symmetry::kAffine}) {
    for (int size : {0, -1, -2, 2, 32, 48}) {
      for (HeadGrouping heads : {HeadGrouping::kJoint, HeadGrouping::kPerHead}) {
        for (Arithmetic arithmetic : {Arithmetic::kF32, Arithmetic::kNative}) {
          for (ScaleType scale : {ScaleType::kF32, ScaleType::kF16, ScaleType::kBf16}) {
            TensorFormat f;
            f.type = type;
            f.symmetry = symmetry;
            f.granularity = size == 0    ? Granularity::kTensor
                            : size == -1 ? Granularity::kToken
                            : size == -2 ? Granularity::kChannel
                                         : Granularity::kGroup;
            f.group_size = size > 0 ? size : 0;
            f.heads = heads;
            f.arithmetic = arithmetic;
            f.scale_type = scale;
            formats->push_back(f);
          }
        }
      }
    }
  }
}

inline void AddFp8Formats(KvType type, std::vector<TensorFormat>* formats) {
  for (Fp8Overflow overflow : {Fp8Overflow::kSaturate, Fp8Overflow::kTorchCast}) {
    for (Arithmetic arithmetic : {Arithmetic::kF32, Arithmetic::kNative}) {
      TensorFormat f;
      f.type = type;
      f.granularity = Granularity::kTensor;
      f.fp8_overflow = overflow;
      f.arithmetic = arithmetic;
      formats->push_back(f);
      f.scope = Scope::kCalibrated;
      f.calibration_digest = "0123456789abcdef";
      for (ScaleType scale : {ScaleType::kF32, ScaleType::kF16, ScaleType::kBf16}) {
        f.scale_type = scale;
        for (HeadGrouping heads : {HeadGrouping::kJoint, HeadGrouping::kPerHead}) {
          f.granularity = Granularity::kTensor;
          f.heads = heads;
          formats->push_back(f);
        }
        f.heads = HeadGrouping::kJoint;
        f.granularity = Granularity::kChannel;
        formats->push_back(f);
      }
    }
  }
}

// Type, symmetry, granularity, heads, arithmetic and scale storage in every combination.
inline std::vector<TensorFormat> CoreFormats() {
  std::vector<TensorFormat> formats;
  for (KvType type :
       {KvType::kInt2, KvType::kInt3, KvType::kInt4, KvType::kInt5, KvType::kInt6, KvType::kInt8}) {
    AddIntFormats(type, &formats);
  }
  for (KvType type : {KvType::kFp8E4m3, KvType::kFp8E5m2}) AddFp8Formats(type, &formats);
  return formats;
}

inline void DrawScope(TensorFormat* f, Rng& rng) {
  const int choice = rng.Below(8);
  if (f->scope == Scope::kCalibrated || choice < 3) return;
  if (choice == 3) f->scope = Scope::kPrompt;
  if (choice == 4) {
    f->scope = Scope::kCalibrated;
    f->calibration_digest = "0123456789abcdef";
  }
  if (choice >= 5) {
    f->scope = Scope::kWindow;
    f->window_flush = choice == 5 ? 0 : 1 + rng.Below(4);
    f->window = std::max(1, f->window_flush) * (1 + rng.Below(3));
  }
}

inline void DrawSelection(TensorFormat* f, const TensorShape& shape, Rng& rng) {
  if (rng.OneIn(4)) {
    for (int h = 0; h < shape.kv_heads; ++h) {
      if (rng.OneIn(2)) f->select_heads.push_back(h);
    }
  } else if (rng.OneIn(4)) {
    for (int c = 0; c < shape.flat_channels(); ++c) {
      if (rng.OneIn(3)) f->select_channels.push_back(c);
    }
  }
}

// The other options at random, as far as the rules and the shape allow them.
inline std::optional<TensorFormat> Decorated(const TensorFormat& core, const TensorShape& shape,
                                             Rng& rng) {
  for (int attempt = 0; attempt < 20; ++attempt) {
    TensorFormat f = core;
    DrawScope(&f, rng);
    DrawSelection(&f, shape, rng);
    if (rng.OneIn(3)) f.sink_tokens = 1 + rng.Below(4);
    if (rng.OneIn(3)) f.hadamard = true;
    if (rng.OneIn(2)) f.place = RopePlace::kPostRope;
    if (rng.OneIn(4)) f.prefill = PrefillReads::kExact;
    if (CheckFormat(f, true).ok() && CheckFits(f, shape.kv_heads, shape.head_dim).ok()) return f;
  }
  return std::nullopt;
}

// Device copies of a rule's tables; `rule` points at them.
struct UploadedRule {
  explicit UploadedRule(const DeviceRule& bound)
      : rule(bound.rule),
        lane_channel(bound.lane_channel),
        group_begin(bound.group_begin),
        scale(bound.frozen_scale),
        zero(bound.frozen_zero) {
    rule.lane_channel = lane_channel.data();
    rule.group_begin = group_begin.data();
    rule.frozen_scale = scale.data();
    rule.frozen_zero = zero.data();
  }
  cuda::TensorRule rule;
  DeviceArray<int32_t> lane_channel, group_begin;
  DeviceArray<float> scale, zero;
};

}  // namespace plumbline::gpu_test
