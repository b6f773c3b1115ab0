#include <numeric>

#include "absl/strings/str_cat.h"
#include "services/common/status_macros.h"
#include "services/quant/format_rules.h"
#include "services/quant/kv_format.h"

namespace plumbline {
namespace {

struct ModelSize {
  int num_layers;
  int num_kv_heads;
  int head_dim;
  int64_t channels() const { return int64_t{num_kv_heads} * head_dim; }
};

absl::StatusOr<TensorFormat> ResolveTensor(const TensorFormat& format, TensorRole role,
                                           const ModelSize& model) {
  TensorFormat f = NormalizedFormat(format, role);
  PLUMB_RETURN_IF_ERROR(CheckFormat(f, /*paper_quirks=*/true));
  PLUMB_RETURN_IF_ERROR(CheckFits(f, model.num_kv_heads, model.head_dim));
  if (static_cast<int64_t>(f.select_heads.size()) == model.num_kv_heads) f.select_heads.clear();
  if (static_cast<int64_t>(f.select_channels.size()) == model.channels()) {
    f.select_channels.clear();
  }
  return f;
}

absl::StatusOr<LayerFormat> ResolveRule(const PlanRule& rule, const ModelSize& model) {
  LayerFormat format;
  PLUMB_ASSIGN_OR_RETURN(format.key, ResolveTensor(rule.format.key, TensorRole::kKey, model));
  PLUMB_ASSIGN_OR_RETURN(format.value, ResolveTensor(rule.format.value, TensorRole::kValue, model));
  for (int32_t layer : rule.layers) {
    if (layer < 0 || layer >= model.num_layers) {
      return absl::InvalidArgumentError(absl::StrCat("layer ", layer, " is not in 0 to ",
                                                     model.num_layers - 1, ": the model has ",
                                                     model.num_layers, " layers"));
    }
  }
  return format;
}

}  // namespace

Plan Plan::AllFp() { return Plan({PlanRule()}); }

absl::StatusOr<std::vector<LayerFormat>> Plan::Resolve(int num_layers, int num_kv_heads,
                                                       int head_dim) const {
  if (num_layers < 1 || num_kv_heads < 1 || head_dim < 1) {
    return absl::InvalidArgumentError(absl::StrCat("plan for a model of ", num_layers, " layers, ",
                                                   num_kv_heads, " key/value heads of ", head_dim));
  }
  const ModelSize model{num_layers, num_kv_heads, head_dim};
  std::vector<LayerFormat> layers(num_layers);
  std::vector<bool> covered(num_layers, false);
  for (const PlanRule& rule : rules_) {
    absl::StatusOr<LayerFormat> format = ResolveRule(rule, model);
    if (!format.ok()) {
      return Annotate(format.status(), absl::StrCat("plan rule '", RuleText(rule), "'"));
    }
    std::vector<int32_t> all(rule.layers.empty() ? num_layers : 0);
    std::iota(all.begin(), all.end(), 0);
    for (int32_t layer : rule.layers.empty() ? all : rule.layers) {
      layers[layer] = *format;
      covered[layer] = true;
    }
  }
  std::vector<int32_t> missing;
  for (int i = 0; i < num_layers; ++i) {
    if (!covered[i]) missing.push_back(i);
  }
  if (!missing.empty()) {
    return absl::InvalidArgumentError(
        absl::StrCat("plan covers no format for layers ", IndexListText(missing), " of ",
                     num_layers, ": begin it with a rule for all layers, such as '*:fp,...'"));
  }
  return layers;
}

}  // namespace plumbline
