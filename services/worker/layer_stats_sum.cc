#include "services/worker/layer_stats_sum.h"

#include "services/engine/batch/measured_layer.h"

namespace plumbline {
namespace {

template <typename T, typename Field>
void Fill(const std::vector<T>& values, Field* field) {
  field->Add(values.begin(), values.end());
}

void FillChannels(const MeasuredTensor& tensor, int64_t tokens, v1::ChannelStats* stats) {
  Fill(Absmax(tensor), stats->mutable_absmax());
  Fill(tensor.min, stats->mutable_min());
  Fill(tensor.max, stats->mutable_max());
  Fill(tensor.mean, stats->mutable_mean());
  for (const double squares : tensor.squares) {
    stats->add_variance(squares / static_cast<double>(tokens));
  }
}

}  // namespace

void LayerStatsSum::Add(const MeasuredLayer& prompt) {
  const std::vector<float> absmax = Absmax(prompt.keys);
  key_absmax_sum_.resize(absmax.size());
  for (size_t c = 0; c < absmax.size(); ++c) key_absmax_sum_[c] += static_cast<double>(absmax[c]);
  AddMeasured(prompt, &sum_);
  ++prompts_;
}

v1::LayerStats LayerStatsSum::Stats() const {
  v1::LayerStats stats;
  stats.set_layer(static_cast<uint32_t>(sum_.layer.value()));
  stats.set_tokens(static_cast<uint64_t>(sum_.tokens));
  FillChannels(sum_.keys, sum_.tokens, stats.mutable_keys());
  FillChannels(sum_.values, sum_.tokens, stats.mutable_values());
  for (const double sum : key_absmax_sum_) {
    stats.add_key_prompt_absmax_mean(static_cast<float>(sum / prompts_));
  }
  Fill(sum_.keys.counts, stats.mutable_key_head_histogram());
  Fill(sum_.values.counts, stats.mutable_value_head_histogram());
  return stats;
}

}  // namespace plumbline
