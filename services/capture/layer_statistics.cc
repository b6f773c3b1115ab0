#include "services/capture/layer_statistics.h"

#include <algorithm>
#include <cmath>
#include <cstring>

#include "absl/strings/str_cat.h"
#include "kernels/channel_stats.h"
#include "services/capture/activation_block.h"
#include "services/common/digest.h"
#include "services/common/status_macros.h"

namespace plumbline {
namespace {

using kernels::kStatsBins;

// What rounding in double may add to a bound that holds exactly: sums of 2^36 values stay below.
constexpr double kRounding = 1e-5;

absl::Status CheckSize(absl::string_view field, int64_t size, int64_t wanted) {
  if (size == wanted) return absl::OkStatus();
  return absl::InvalidArgumentError(
      absl::StrCat(field, " must have ", wanted, " numbers, got ", size));
}

int Bin(float magnitude) {
  uint32_t bits;
  std::memcpy(&bits, &magnitude, sizeof bits);
  return kernels::StatsBin(bits);
}

// One tensor of one layer.
struct Tensor {
  absl::string_view name;
  const v1::ChannelStats& stats;
  const google::protobuf::RepeatedField<uint64_t>& counts;
};

class TensorChecker {
 public:
  TensorChecker(const v1::CaptureHeader& header, uint64_t tokens)
      : heads_(header.num_kv_heads()), head_dim_(header.head_dim()), tokens_(tokens) {}

  absl::Status Check(const Tensor& tensor) const {
    PLUMB_RETURN_IF_ERROR(CheckSizes(tensor));
    for (int channel = 0; channel < Channels(); ++channel) {
      const std::string problem = Problem(tensor.stats, channel);
      if (problem.empty()) continue;
      return absl::InvalidArgumentError(absl::StrCat(tensor.name, "[head ", channel / head_dim_,
                                                     ", channel ", channel % head_dim_,
                                                     "]: ", problem));
    }
    for (int head = 0; head < heads_; ++head) PLUMB_RETURN_IF_ERROR(CheckCounts(tensor, head));
    return absl::OkStatus();
  }

 private:
  int Channels() const { return heads_ * head_dim_; }

  absl::Status CheckSizes(const Tensor& tensor) const {
    const v1::ChannelStats& stats = tensor.stats;
    const auto name = [&](const char* field) { return absl::StrCat(tensor.name, ".", field); };
    PLUMB_RETURN_IF_ERROR(CheckSize(name("absmax"), stats.absmax_size(), Channels()));
    PLUMB_RETURN_IF_ERROR(CheckSize(name("min"), stats.min_size(), Channels()));
    PLUMB_RETURN_IF_ERROR(CheckSize(name("max"), stats.max_size(), Channels()));
    PLUMB_RETURN_IF_ERROR(CheckSize(name("mean"), stats.mean_size(), Channels()));
    PLUMB_RETURN_IF_ERROR(CheckSize(name("variance"), stats.variance_size(), Channels()));
    return CheckSize(absl::StrCat(tensor.name, " head histogram"), tensor.counts.size(),
                     int64_t{heads_} * kStatsBins);
  }

  // Of n values between min and max that have both: (max - min)^2 / 2n <= variance <= (max - min)^2
  // / 4 (T. Popoviciu, 1935).
  std::string Problem(const v1::ChannelStats& stats, int channel) const {
    const double absmax = stats.absmax(channel), low = stats.min(channel);
    const double high = stats.max(channel), mean = stats.mean(channel);
    const double variance = stats.variance(channel), spread = high - low;
    for (const double number : {absmax, low, high, mean, variance}) {
      if (!std::isfinite(number)) return absl::StrCat("a statistic is ", number);
    }
    const auto from_to = absl::StrCat(low, " to ", high);
    if (low > high) return absl::StrCat("min ", low, " is above max ", high);
    if (absmax != std::max(std::fabs(low), std::fabs(high))) {
      return absl::StrCat("absmax ", absmax, " is not that of values from ", from_to);
    }
    if (mean < low - kRounding * spread || mean > high + kRounding * spread) {
      return absl::StrCat("mean ", mean, " is not between values from ", from_to);
    }
    const double most = spread * spread / 4, least = most * 2 / static_cast<double>(tokens_);
    if (variance < least * (1 - kRounding) || variance > most * (1 + kRounding)) {
      return absl::StrCat("variance ", variance, " cannot be that of ", tokens_, " values from ",
                          from_to);
    }
    return "";
  }

  absl::Status CheckCounts(const Tensor& tensor, int head) const {
    const uint64_t values = tokens_ * static_cast<uint64_t>(head_dim_);
    uint64_t sum = 0;
    int last = 0;
    for (int bin = 0; bin < kStatsBins && sum <= values; ++bin) {
      const uint64_t count = tensor.counts[head * kStatsBins + bin];
      if (count > 0) last = bin;
      sum = count > values ? count : sum + count;
    }
    if (sum != values) {
      return absl::InvalidArgumentError(
          absl::StrCat(tensor.name, " histogram of head ", head, " counts ", sum, " values; ",
                       tokens_, " tokens of ", head_dim_, " channels have ", values));
    }
    float largest = 0;
    for (int i = 0; i < head_dim_; ++i) {
      largest = std::max(largest, tensor.stats.absmax(head * head_dim_ + i));
    }
    if (last == Bin(largest)) return absl::OkStatus();
    return absl::InvalidArgumentError(absl::StrCat(
        tensor.name, " histogram of head ", head, " ends at bin ", last, ", its largest magnitude ",
        largest, " is of bin ", Bin(largest), ": are heads or channels in another order?"));
  }

  const int heads_, head_dim_;
  const uint64_t tokens_;
};

// The mean over prompts of a channel's largest magnitude lies between its largest of all and that
// over the number of prompts.
absl::Status CheckPromptAbsmax(const v1::LayerStats& stats, uint32_t prompts) {
  PLUMB_RETURN_IF_ERROR(CheckSize("key_prompt_absmax_mean", stats.key_prompt_absmax_mean_size(),
                                  stats.keys().absmax_size()));
  for (int c = 0; c < stats.key_prompt_absmax_mean_size(); ++c) {
    const double mean = stats.key_prompt_absmax_mean(c), most = stats.keys().absmax(c);
    if (mean <= most && mean >= most / prompts * (1 - kRounding)) continue;
    return absl::InvalidArgumentError(absl::StrCat("key_prompt_absmax_mean[", c, "] = ", mean,
                                                   " cannot be a mean over ", prompts,
                                                   " prompts whose largest is ", most));
  }
  return absl::OkStatus();
}

absl::Status CheckLayer(const v1::CaptureHeader& header, const v1::LayerStats& stats) {
  const uint64_t most = uint64_t{header.prompts()} * kMaxPromptTokens;
  if (stats.tokens() < header.prompts() || stats.tokens() > most) {
    return absl::InvalidArgumentError(absl::StrCat("tokens must be ", header.prompts(), "..", most,
                                                   " for ", header.prompts(), " prompts, got ",
                                                   stats.tokens()));
  }
  if (stats.outlier_channels_size() > 0 || stats.outlier_threshold() != 0 ||
      stats.key_histogram_size() > 0 || stats.value_histogram_size() > 0) {
    return absl::InvalidArgumentError(
        "outliers and the histograms up to the maximum are not recorded: leave fields 6 to 9 "
        "empty");
  }
  const TensorChecker checker(header, stats.tokens());
  PLUMB_RETURN_IF_ERROR(checker.Check({"keys", stats.keys(), stats.key_head_histogram()}));
  PLUMB_RETURN_IF_ERROR(checker.Check({"values", stats.values(), stats.value_head_histogram()}));
  return CheckPromptAbsmax(stats, header.prompts());
}

template <typename T>
void AddNumbers(const char* name, const google::protobuf::RepeatedField<T>& numbers,
                DigestBuilder* digest) {
  digest->Add(name, absl::string_view(reinterpret_cast<const char*>(numbers.data()),
                                      static_cast<size_t>(numbers.size()) * sizeof(T)));
}

void AddChannels(const v1::ChannelStats& stats, DigestBuilder* digest) {
  AddNumbers("absmax", stats.absmax(), digest);
  AddNumbers("min", stats.min(), digest);
  AddNumbers("max", stats.max(), digest);
  AddNumbers("mean", stats.mean(), digest);
  AddNumbers("variance", stats.variance(), digest);
}

}  // namespace

StatisticsChecker::StatisticsChecker(const v1::CaptureHeader& header) : header_(header) {}

absl::Status StatisticsChecker::Check(const v1::LayerStats& stats) {
  const auto& asked = header_.statistics_layers();
  const std::string place = absl::StrCat("statistics of layer ", stats.layer());
  if (std::find(asked.begin(), asked.end(), stats.layer()) == asked.end()) {
    return absl::InvalidArgumentError(
        absl::StrCat(place, ": header.statistics_layers does not name it"));
  }
  PLUMB_RETURN_IF_ERROR(Annotate(CheckLayer(header_, stats), place));
  if (!tokens_.emplace(stats.layer(), stats.tokens()).second) {
    return absl::InvalidArgumentError(absl::StrCat(place, " came twice"));
  }
  return absl::OkStatus();
}

absl::Status StatisticsChecker::CheckComplete(std::optional<uint64_t> raw_tokens) const {
  for (const uint32_t layer : header_.statistics_layers()) {
    const auto found = tokens_.find(layer);
    if (found == tokens_.end()) {
      return absl::InvalidArgumentError(
          absl::StrCat("the stream ended without the statistics of layer ", layer, " (",
                       tokens_.size(), " of ", header_.statistics_layers_size(), " came)"));
    }
    const uint64_t wanted = raw_tokens.value_or(tokens_.begin()->second);
    if (found->second == wanted) continue;
    return absl::InvalidArgumentError(absl::StrCat("statistics of layer ", layer, " are of ",
                                                   found->second, " tokens, the same prompts have ",
                                                   wanted, " at another layer"));
  }
  return absl::OkStatus();
}

std::string StatisticsDigest(const v1::LayerStats& stats) {
  DigestBuilder digest("capture-statistics/1");
  digest.Add("layer", static_cast<int64_t>(stats.layer()))
      .Add("tokens", static_cast<int64_t>(stats.tokens()))
      .Add("tensor", "keys");
  AddChannels(stats.keys(), &digest);
  AddNumbers("counts", stats.key_head_histogram(), &digest);
  AddNumbers("prompt absmax", stats.key_prompt_absmax_mean(), &digest);
  digest.Add("tensor", "values");
  AddChannels(stats.values(), &digest);
  AddNumbers("counts", stats.value_head_histogram(), &digest);
  return digest.Finish();
}

}  // namespace plumbline
