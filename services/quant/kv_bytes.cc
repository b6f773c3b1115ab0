#include <algorithm>

#include "services/quant/kv_format.h"

namespace plumbline {

int64_t QuantizedTokens(const TensorFormat& f, int64_t tokens) {
  if (f.is_fp()) return 0;
  const int64_t eligible = std::max<int64_t>(0, tokens - f.sink_tokens);
  if (f.scope != Scope::kWindow) return eligible;
  if (f.window_flush > 0) return eligible / f.window * f.window;
  return std::max<int64_t>(0, eligible - f.window);
}

namespace {

int64_t CeilDiv(int64_t a, int64_t b) { return (a + b - 1) / b; }

struct Counts {
  int64_t lanes = 0;             // quantized channels
  int64_t segments = 1;          // heads that form their own statistics, or 1
  int64_t groups_per_token = 0;  // with kGroup
};

Counts CountLanes(const TensorFormat& f, int num_kv_heads, int head_dim) {
  std::vector<int64_t> per_head(num_kv_heads, head_dim);
  if (!f.select_heads.empty()) {
    std::fill(per_head.begin(), per_head.end(), 0);
    for (int32_t head : f.select_heads) per_head[head] = head_dim;
  } else if (!f.select_channels.empty()) {
    std::fill(per_head.begin(), per_head.end(), 0);
    for (int32_t channel : f.select_channels) ++per_head[channel / head_dim];
  }
  Counts counts;
  for (int64_t n : per_head) counts.lanes += n;
  const bool per_head_groups = f.heads == HeadGrouping::kPerHead;
  if (per_head_groups) {
    counts.segments =
        std::count_if(per_head.begin(), per_head.end(), [](int64_t n) { return n > 0; });
  }
  if (f.granularity == Granularity::kGroup) {
    if (!per_head_groups) per_head = {counts.lanes};
    for (int64_t n : per_head) counts.groups_per_token += CeilDiv(n, f.group_size);
  }
  return counts;
}

// How many scales the quantized tokens need.
int64_t ScaleCount(const TensorFormat& f, const Counts& counts, int64_t quantized, int64_t tokens,
                   int64_t prompt_tokens) {
  if (!f.has_scales() || quantized == 0) return 0;
  if (f.granularity == Granularity::kToken) return quantized * counts.segments;
  if (f.granularity == Granularity::kGroup) return quantized * counts.groups_per_token;
  const int64_t per_block = f.granularity == Granularity::kChannel ? counts.lanes : counts.segments;
  if (f.scope == Scope::kWindow) return quantized / f.window_flush * per_block;
  if (f.scope != Scope::kStep) return per_block;
  const int64_t prompt = prompt_tokens < 0 ? tokens : std::min(prompt_tokens, tokens);
  const int64_t in_prompt = std::max<int64_t>(0, prompt - f.sink_tokens);
  return ((in_prompt > 0 ? 1 : 0) + quantized - in_prompt) * per_block;
}

void AddTensor(const TensorFormat& f, int num_kv_heads, int head_dim, int64_t tokens, int fp_bytes,
               int64_t prompt_tokens, KvBytes* bytes) {
  const int64_t elements = tokens * num_kv_heads * head_dim;
  if (f.is_fp()) {
    bytes->fp += static_cast<double>(elements) * fp_bytes;
    return;
  }
  const Counts counts = CountLanes(f, num_kv_heads, head_dim);
  const int64_t quantized = QuantizedTokens(f, tokens);
  const int64_t held = quantized * counts.lanes;
  const int64_t scales = ScaleCount(f, counts, quantized, tokens, prompt_tokens);
  const int parameters = f.is_int() && f.symmetry != Symmetry::kSym ? 2 : 1;
  bytes->codes += static_cast<double>(held) * f.bits() / 8;
  bytes->scales +=
      static_cast<double>(scales) * parameters * (f.scale_type == ScaleType::kF32 ? 4 : 2);
  bytes->fp += static_cast<double>(elements - held) * fp_bytes;
}

}  // namespace

KvBytes KvBytesOfPlan(const std::vector<LayerFormat>& layers, int num_kv_heads, int head_dim,
                      int64_t tokens, int fp_bytes, int64_t prompt_tokens) {
  KvBytes bytes;
  for (const LayerFormat& layer : layers) {
    AddTensor(layer.key, num_kv_heads, head_dim, tokens, fp_bytes, prompt_tokens, &bytes);
    AddTensor(layer.value, num_kv_heads, head_dim, tokens, fp_bytes, prompt_tokens, &bytes);
  }
  return bytes;
}

}  // namespace plumbline
