#include "services/coordinator/planner/plan_text.h"

#include <algorithm>
#include <map>
#include <numeric>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "services/common/status_macros.h"
#include "services/quant/kv_format.h"
#include "services/quant/plan_parser.h"

namespace plumbline {
namespace {

absl::StatusOr<std::vector<LayerFormat>> ResolveFor(const std::string& plan,
                                                    const v1::ModelInfo& model, bool quirks) {
  PLUMB_ASSIGN_OR_RETURN(Plan parsed, ParsePlan(plan, {.paper_quirks = quirks}));
  return parsed.Resolve(static_cast<int>(model.num_layers()),
                        static_cast<int>(model.num_kv_heads()), static_cast<int>(model.head_dim()));
}

// Tokens after which every window of the plan is as full as before; windows that do not fit a
// cycle of kMemoryTokens together are averaged over that many.
int64_t FlushCycle(const std::vector<LayerFormat>& layers) {
  int64_t cycle = 1;
  for (const LayerFormat& layer : layers) {
    for (const TensorFormat* tensor : {&layer.key, &layer.value}) {
      if (tensor->scope == Scope::kWindow && tensor->window_flush > 0) {
        cycle = std::lcm(cycle, int64_t{tensor->window});
      }
      if (cycle > kMemoryTokens) return kMemoryTokens;
    }
  }
  return cycle;
}

std::string RangeText(uint32_t first, uint32_t last) {
  return first == last ? absl::StrCat(first) : absl::StrCat(first, "-", last);
}

}  // namespace

std::string LayerList(const std::vector<uint32_t>& layers) {
  std::vector<std::string> ranges;
  for (size_t i = 0; i < layers.size();) {
    size_t end = i;
    while (end + 1 < layers.size() && layers[end + 1] == layers[end] + 1) ++end;
    ranges.push_back(RangeText(layers[i], layers[end]));
    i = end + 1;
  }
  return absl::StrJoin(ranges, "+");
}

std::vector<uint32_t> LayerRange(uint32_t first, uint32_t count) {
  std::vector<uint32_t> layers;
  for (uint32_t i = 0; i < count; ++i) layers.push_back(first + i);
  return layers;
}

std::string OnlyLayers(const std::vector<uint32_t>& layers, const std::string& format) {
  return WithLayers(kFullPrecision, layers, format);
}

std::string WithLayers(const std::string& plan, const std::vector<uint32_t>& layers,
                       const std::string& format) {
  if (layers.empty()) return plan;
  return absl::StrCat(plan, ",", LayerList(layers), ":", format);
}

std::string OnChannels(const std::string& format, const std::vector<uint32_t>& channels) {
  return absl::StrCat(format, ".ch(", LayerList(channels), ")");
}

std::string TargetPlan(const v1::Study& study) {
  if (study.target().find(':') != std::string::npos) return study.target();
  return absl::StrCat("*:", study.target());
}

absl::StatusOr<std::string> BaseFormat(const std::string& plan, const v1::ModelInfo& model,
                                       bool quirks) {
  PLUMB_ASSIGN_OR_RETURN(std::vector<LayerFormat> layers, ResolveFor(plan, model, quirks));
  std::map<std::string, int> votes;
  for (const LayerFormat& layer : layers) {
    const std::string key = FormatText(layer.key);
    const std::string value = FormatText(layer.value);
    if (layer.key.is_fp() && layer.value.is_fp()) continue;
    ++votes[key == value ? key : absl::StrCat(key, "|", value)];
  }
  std::string best = "fp";
  int most = 0;
  for (const auto& [format, count] : votes) {
    if (count > most) best = format;
    most = std::max(most, count);
  }
  return best;
}

absl::StatusOr<double> KvBytesPerToken(const std::string& plan, const v1::ModelInfo& model,
                                       bool quirks) {
  PLUMB_ASSIGN_OR_RETURN(std::vector<LayerFormat> layers, ResolveFor(plan, model, quirks));
  const int64_t cycle = FlushCycle(layers);
  double mean = 0;
  for (int64_t i = 0; i < cycle; ++i) {
    const int64_t tokens = kMemoryTokens + i - cycle / 2;
    const KvBytes bytes = KvBytesOfPlan(layers, static_cast<int>(model.num_kv_heads()),
                                        static_cast<int>(model.head_dim()), tokens, kServedFpBytes);
    mean += bytes.total() / static_cast<double>(tokens) / static_cast<double>(cycle);
  }
  return mean;
}

absl::StatusOr<double> PlannedShare(const std::string& plan, const v1::ModelInfo& model,
                                    bool quirks) {
  PLUMB_ASSIGN_OR_RETURN(std::vector<LayerFormat> layers, ResolveFor(plan, model, quirks));
  const double channels = static_cast<double>(model.num_kv_heads()) * model.head_dim();
  double share = 0;
  for (const LayerFormat& layer : layers) {
    for (const TensorFormat* tensor : {&layer.key, &layer.value}) {
      if (tensor->is_fp()) continue;
      const size_t selected =
          tensor->select_channels.size() + tensor->select_heads.size() * model.head_dim();
      share += selected == 0 ? 1 : static_cast<double>(selected) / channels;
    }
  }
  return share / (2.0 * static_cast<double>(layers.size()));
}

absl::StatusOr<std::string> ReadAsStored(const std::string& plan, const v1::ModelInfo& model,
                                         bool quirks) {
  PLUMB_ASSIGN_OR_RETURN(std::vector<LayerFormat> layers, ResolveFor(plan, model, quirks));
  for (LayerFormat& layer : layers) {
    layer.key.prefill = PrefillReads::kSeen;
    layer.value.prefill = PrefillReads::kSeen;
  }
  return CanonicalPlanText(layers);
}

absl::StatusOr<bool> IsFullPrecision(const std::string& plan, const v1::ModelInfo& model,
                                     bool quirks) {
  PLUMB_ASSIGN_OR_RETURN(std::vector<LayerFormat> layers, ResolveFor(plan, model, quirks));
  return std::all_of(layers.begin(), layers.end(), [](const LayerFormat& layer) {
    return layer.key.is_fp() && layer.value.is_fp();
  });
}

}  // namespace plumbline
