// Channels of the most sensitive layer on split B, which had no part in choosing that layer: is the
// damage in the outlier channels, or do outliers crush the others?
#include <algorithm>
#include <numeric>

#include "absl/strings/str_cat.h"
#include "services/common/status_macros.h"
#include "services/coordinator/planner/counting.h"
#include "services/coordinator/planner/plan_text.h"
#include "services/coordinator/planner/selection.h"
#include "services/coordinator/planner/stages.h"
#include "services/stats/random.h"

namespace plumbline {
namespace {

constexpr int kRandomShares[] = {1, 5, 10, 25, 50};  // percent of the channels
constexpr uint64_t kConditions = 13;

std::vector<uint32_t> Complement(const std::vector<uint32_t>& channels, uint32_t count) {
  std::vector<uint32_t> others;
  for (uint32_t c = 0; c < count; ++c) {
    if (!std::binary_search(channels.begin(), channels.end(), c)) others.push_back(c);
  }
  return others;
}

std::vector<uint32_t> RandomChannels(uint64_t seed, uint32_t count, int percent) {
  std::vector<uint32_t> all(count);
  std::iota(all.begin(), all.end(), 0);
  CounterRng rng(seed * 1000003 + static_cast<uint64_t>(percent));
  const size_t take =
      std::max<size_t>(1, (uint64_t{count} * static_cast<uint64_t>(percent) + 50) / 100);
  for (size_t i = 0; i < take; ++i) std::swap(all[i], all[i + rng.Below(count - i)]);
  all.resize(take);
  std::sort(all.begin(), all.end());
  return all;
}

class Builder {
 public:
  Builder(std::string label, PromptList prompts, uint32_t layer, uint32_t layers)
      : label_(std::move(label)), prompts_(std::move(prompts)), layer_(layer), layers_(layers) {}

  void AtLayer(const std::string& name, const std::string& format) {
    Add(name, OnlyLayers({layer_}, format), {layer_});
  }
  void OnSome(const std::string& name, const std::vector<uint32_t>& channels) {
    if (!channels.empty()) AtLayer(name, OnChannels(kMechanismFormat, channels));
  }
  void Everywhere(const std::string& name, const std::string& format) {
    Add(name, absl::StrCat("*:", format), LayerRange(0, layers_));
  }
  std::vector<Condition> Take() { return std::move(conditions_); }

 private:
  void Add(const std::string& name, const std::string& plan, std::vector<uint32_t> layers) {
    conditions_.push_back({.name = name,
                           .plan = plan,
                           .stage = "channels",
                           .prompts_label = label_,
                           .prompts = prompts_,
                           .layers = std::move(layers)});
  }

  std::string label_;
  PromptList prompts_;
  uint32_t layer_;
  uint32_t layers_;
  std::vector<Condition> conditions_;
};

class ChannelStage final : public ConditionStage {
 public:
  std::string name() const override { return "channels"; }

  absl::Status Conclude(const StudyContext& context, const ResultView& results, Peers& peers,
                        v1::Report* report) const override {
    PLUMB_ASSIGN_OR_RETURN(std::vector<Condition> conditions,
                           ChannelConditions(context, *report, results));
    v1::ChannelAblation* channels = report->mutable_channels();
    channels->clear_conditions();
    for (const Condition& condition : conditions) {
      PLUMB_ASSIGN_OR_RETURN(*channels->add_conditions(),
                             CountCondition(context, results, condition, /*whole_sets=*/false));
    }
    return absl::OkStatus();
  }

  StageBound AtMost(const StudyContext& context) const override {
    const PromptList pool = PoolOf(context, v1::SPLIT_B);
    const uint64_t cap = context.study.diagnose().channel_prompts();
    return BoundOf(context, LongestOf(context, pool, cap == 0 ? pool.size() : cap), kConditions);
  }

 protected:
  absl::StatusOr<std::vector<Condition>> Conditions(const StudyContext& context,
                                                    const v1::Report& report,
                                                    const ResultView& results) const override {
    return ChannelConditions(context, report, results);
  }
};

}  // namespace

absl::StatusOr<std::vector<Condition>> ChannelConditions(const StudyContext& context,
                                                         const v1::Report& report,
                                                         const ResultView& results) {
  PLUMB_ASSIGN_OR_RETURN(PromptList refused,
                         RefusedBy(context, results, PoolOf(context, v1::SPLIT_B)));
  refused = FirstOf(refused, context.study.diagnose().channel_prompts());
  const uint32_t count = context.model.num_kv_heads() * context.model.head_dim();
  Builder builder(PoolLabel(context, v1::SPLIT_B), refused, report.channels().layer(),
                  context.model.num_layers());
  builder.AtLayer(kPerTensor, kMechanismFormat);
  builder.AtLayer(kPerChannelStep, "int3.sym.channel");
  builder.AtLayer(kPerChannelPrompt, "int3.sym.channel.prompt");
  const std::vector<uint32_t> outliers(report.channels().outlier_channels().begin(),
                                       report.channels().outlier_channels().end());
  if (!outliers.empty()) {
    builder.OnSome("outlier channels only", outliers);
    builder.OnSome("all but outlier channels", Complement(outliers, count));
  }
  builder.OnSome("low half", {report.channels().low_channels().begin(),
                              report.channels().low_channels().end()});
  for (int percent : kRandomShares) {
    builder.OnSome(absl::StrCat("random ", percent, "%"),
                   RandomChannels(context.study.seed(), count, percent));
  }
  // A group is at most a token's channels.
  if (count >= 64) builder.Everywhere("group-64 on all layers", "int3.sym.group64");
  builder.Everywhere("per tensor on all layers", kMechanismFormat);
  return builder.Take();
}

std::unique_ptr<PlannerStage> MakeChannelStage() { return std::make_unique<ChannelStage>(); }

}  // namespace plumbline
