#include "services/capture/capture_stats.h"

#include <algorithm>
#include <cmath>
#include <cstring>

#include "absl/strings/str_cat.h"
#include "kernels/channel_stats.h"
#include "services/common/status_macros.h"

namespace plumbline {
namespace {

std::vector<float> Floats(const std::string& bytes) {
  std::vector<float> values(bytes.size() / sizeof(float));
  memcpy(values.data(), bytes.data(), values.size() * sizeof(float));
  return values;
}

// B. P. Welford, "Note on a method for calculating corrected sums of squares and products", 1962.
struct Channel {
  float absmax = 0;
  float min = 0;
  float max = 0;
  int64_t count = 0;
  double mean = 0;
  double squares = 0;

  void Add(float value) {
    absmax = std::max(absmax, std::fabs(value));
    min = count == 0 ? value : std::min(min, value);
    max = count == 0 ? value : std::max(max, value);
    ++count;
    const double delta = static_cast<double>(value) - mean;
    mean += delta / static_cast<double>(count);
    squares += delta * (static_cast<double>(value) - mean);
  }
};

class TensorStats {
 public:
  explicit TensorStats(size_t channels) : channels_(channels), prompt_absmax_sum_(channels) {}

  void AddPrompt(const std::vector<float>& values) {
    const size_t width = channels_.size();
    std::vector<float> prompt_absmax(width);
    for (size_t i = 0; i < values.size(); ++i) {
      channels_[i % width].Add(values[i]);
      prompt_absmax[i % width] = std::max(prompt_absmax[i % width], std::fabs(values[i]));
    }
    for (size_t c = 0; c < width; ++c) {
      prompt_absmax_sum_[c] += static_cast<double>(prompt_absmax[c]);
    }
  }
  float absmax() const {
    float most = 0;
    for (const Channel& channel : channels_) most = std::max(most, channel.absmax);
    return most;
  }
  void FillInto(v1::ChannelStats* stats) const {
    for (const Channel& channel : channels_) {
      stats->add_absmax(channel.absmax);
      stats->add_min(channel.min);
      stats->add_max(channel.max);
      stats->add_mean(channel.mean);
      stats->add_variance(channel.squares / static_cast<double>(channel.count));
    }
  }
  float PromptAbsmaxMean(size_t channel, uint32_t prompts) const {
    return static_cast<float>(prompt_absmax_sum_[channel] / prompts);
  }

 private:
  std::vector<Channel> channels_;
  std::vector<double> prompt_absmax_sum_;
};

void CountInto(const std::vector<float>& values, float most, std::vector<uint64_t>* bins) {
  for (float value : values) {
    // A layer of zeros has no scale; all of it lies in the first bin.
    const double share = most > 0 ? static_cast<double>(std::fabs(value)) / most : 0;
    const auto bin = static_cast<size_t>(share * kHistogramBins);
    ++(*bins)[std::min<size_t>(bin, kHistogramBins - 1)];
  }
}

void CountHeads(const v1::CaptureHeader& header, const std::vector<float>& values,
                std::vector<uint64_t>* counts) {
  const size_t width = size_t{header.num_kv_heads()} * header.head_dim();
  for (size_t i = 0; i < values.size(); ++i) {
    uint32_t bits;
    memcpy(&bits, &values[i], sizeof bits);
    ++(*counts)[i % width / header.head_dim() * kernels::kStatsBins +
                static_cast<size_t>(kernels::StatsBin(bits))];
  }
}

}  // namespace

absl::StatusOr<v1::LayerStats> ComputeLayerStats(const v1::CaptureHeader& header, uint32_t layer,
                                                 const BlockSource& blocks) {
  const size_t width = size_t{header.num_kv_heads()} * header.head_dim();
  TensorStats keys(width), values(width);
  v1::LayerStats stats;
  stats.set_layer(layer);
  for (uint32_t prompt = 0; prompt < header.prompts(); ++prompt) {
    PLUMB_ASSIGN_OR_RETURN(v1::ActivationBlock block, blocks(layer, prompt));
    keys.AddPrompt(Floats(block.keys()));
    values.AddPrompt(Floats(block.values()));
    stats.set_tokens(stats.tokens() + block.tokens());
  }
  keys.FillInto(stats.mutable_keys());
  values.FillInto(stats.mutable_values());
  for (size_t c = 0; c < width; ++c) {
    stats.add_key_prompt_absmax_mean(keys.PromptAbsmaxMean(c, header.prompts()));
  }
  std::vector<uint64_t> key_bins(kHistogramBins), value_bins(kHistogramBins);
  std::vector<uint64_t> key_counts(header.num_kv_heads() * kernels::kStatsBins);
  std::vector<uint64_t> value_counts(key_counts.size());
  for (uint32_t prompt = 0; prompt < header.prompts(); ++prompt) {
    PLUMB_ASSIGN_OR_RETURN(v1::ActivationBlock block, blocks(layer, prompt));
    CountInto(Floats(block.keys()), keys.absmax(), &key_bins);
    CountInto(Floats(block.values()), values.absmax(), &value_bins);
    CountHeads(header, Floats(block.keys()), &key_counts);
    CountHeads(header, Floats(block.values()), &value_counts);
  }
  stats.mutable_key_histogram()->Add(key_bins.begin(), key_bins.end());
  stats.mutable_value_histogram()->Add(value_bins.begin(), value_bins.end());
  stats.mutable_key_head_histogram()->Add(key_counts.begin(), key_counts.end());
  stats.mutable_value_head_histogram()->Add(value_counts.begin(), value_counts.end());
  return stats;
}

double Percentile(std::vector<float> values, double percentile) {
  std::sort(values.begin(), values.end());
  const double rank = percentile / 100 * static_cast<double>(values.size() - 1);
  const auto below = static_cast<size_t>(rank);
  if (below + 1 >= values.size()) return values.back();
  const double low = values[below], high = values[below + 1];
  return low + (high - low) * (rank - static_cast<double>(below));
}

absl::Status MarkOutliers(double percentile, v1::LayerStats* stats) {
  if (!(percentile >= 0 && percentile <= 100)) {
    return absl::InvalidArgumentError(
        absl::StrCat("outlier_percentile must be in (0, 100], or 0 for ", kDefaultOutlierPercentile,
                     ", got ", percentile));
  }
  const auto& magnitude = stats->key_prompt_absmax_mean();
  const auto threshold =
      static_cast<float>(Percentile({magnitude.begin(), magnitude.end()}, percentile));
  stats->set_outlier_threshold(threshold);
  stats->clear_outlier_channels();
  for (int c = 0; c < magnitude.size(); ++c) {
    if (magnitude[c] >= threshold) stats->add_outlier_channels(static_cast<uint32_t>(c));
  }
  return absl::OkStatus();
}

}  // namespace plumbline
