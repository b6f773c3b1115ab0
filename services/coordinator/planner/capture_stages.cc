// Captured keys and values: the outlier channels of every layer, the most sensitive one foremost,
// and what every format does to every layer.
#include <algorithm>
#include <atomic>
#include <optional>
#include <system_error>
#include <thread>

#include "absl/strings/str_cat.h"
#include "services/common/digest.h"
#include "services/common/status_macros.h"
#include "services/coordinator/planner/plan_text.h"
#include "services/coordinator/planner/selection.h"
#include "services/coordinator/planner/stages.h"
#include "services/stats/correlation.h"

namespace plumbline {
namespace {

constexpr uint64_t kOutlierPrompts = 20;
constexpr double kOutlierPercentile = 95;
// Raw blocks of every layer, since quantsim's errors are of the values themselves: so of a few
// prompts, 0.3 MB a layer and prompt of an 8B model.
constexpr uint64_t kKvErrorPrompts = 4;

// Layers whose raw blocks are captured, and layers of which statistics are enough.
struct CapturedLayers {
  std::vector<uint32_t> raw, statistics;
};

absl::StatusOr<v1::CaptureTask> TaskFor(const StudyContext& context, const ResultView& results,
                                        const CapturedLayers& layers, uint64_t count) {
  PLUMB_ASSIGN_OR_RETURN(LayerPrompts prompts, LayerPromptsOf(context, results));
  v1::CaptureTask task;
  task.set_model_digest(context.model.model_digest());
  task.set_numerics_class_id(context.numerics.id());
  DigestBuilder digest("plumbline-capture/1");
  digest.Add("model", task.model_digest()).Add("numerics", task.numerics_class_id());
  digest.Add("layers", layers.raw.empty() ? std::string() : LayerList(layers.raw));
  if (!layers.statistics.empty()) digest.Add("statistics", LayerList(layers.statistics));
  for (const v1::Prompt* prompt : FirstOf(prompts.all, count)) {
    v1::Prompt* added = task.add_prompts();
    added->set_id(prompt->id());
    added->set_prompt_set(prompt->prompt_set());
    digest.Add("prompt", prompt->id());
    for (const v1::ChatTurn& turn : TurnsOf(context.study, *prompt)) {
      *added->add_turns() = turn;
      digest.Add("role", static_cast<int64_t>(turn.role())).Add("text", turn.text());
    }
  }
  for (uint32_t layer : layers.raw) task.add_layers(layer);
  for (uint32_t layer : layers.statistics) task.add_statistics_layers(layer);
  const v1::DecodingSettings& decoding = context.study.decoding();
  task.mutable_decoding()->set_raw(decoding.raw());
  task.mutable_decoding()->set_parse_special(decoding.parse_special());
  digest.Add("raw", decoding.raw() ? 2 : 0).Add("special", decoding.parse_special() ? 1 : 0);
  task.set_capture_id(absl::StrCat("study-", digest.Finish().substr(0, 40)));
  return task;
}

absl::StatusOr<StageNeeds> NeedsOf(const v1::CaptureTask& task) {
  StageNeeds needs;
  if (task.prompts_size() > 0 && task.layers_size() > 0) needs.captures.push_back(task);
  return needs;
}

StageBound BoundOfCapture(const StudyContext& context, uint64_t count) {
  StageBound bound;
  for (const v1::Prompt* prompt : LongestOf(context, PoolOf(context, v1::SPLIT_A), count)) {
    bound.tokens += GuessPromptTokens(context, *prompt);
  }
  return bound;
}

class OutlierStage final : public PlannerStage {
 public:
  std::string name() const override { return "outlier channels"; }
  bool NextMayBegin() const override { return true; }

  absl::StatusOr<StageNeeds> Needs(const StudyContext& context, const v1::Report& report,
                                   const ResultView& results) const override {
    PLUMB_ASSIGN_OR_RETURN(v1::CaptureTask task, Task(context, report, results));
    return NeedsOf(task);
  }

  absl::Status Conclude(const StudyContext& context, const ResultView& results, Peers& peers,
                        v1::Report* report) const override {
    v1::ChannelAblation* channels = report->mutable_channels();
    channels->Clear();
    channels->set_layer(MostSensitiveLayer(*report));
    PLUMB_ASSIGN_OR_RETURN(v1::CaptureTask task, Task(context, *report, results));
    if (task.prompts_size() == 0) return absl::OkStatus();
    for (uint32_t layer = 0; layer < context.model.num_layers(); ++layer) {
      PLUMB_ASSIGN_OR_RETURN(v1::GetStatsResponse stats, StatsOf(task, layer, peers));
      *channels->add_key_outliers() = KeyOutliersOf(stats.layers(0));
      if (layer != channels->layer()) continue;
      *channels->mutable_outlier_channels() = stats.layers(0).outlier_channels();
      channels->set_outlier_threshold(stats.layers(0).outlier_threshold());
      channels->set_capture_id(task.capture_id());
      channels->set_capture_digest(stats.capture_digest());
      KeepChannelOrder(stats.layers(0), channels);
    }
    return absl::OkStatus();
  }

  StageBound AtMost(const StudyContext& context) const override {
    return BoundOfCapture(context, kOutlierPrompts);
  }

 private:
  static absl::StatusOr<v1::CaptureTask> Task(const StudyContext& context, const v1::Report& report,
                                              const ResultView& results) {
    CapturedLayers layers = {.raw = {MostSensitiveLayer(report)},
                             .statistics = LayerRange(0, context.model.num_layers())};
    std::erase(layers.statistics, layers.raw[0]);
    return TaskFor(context, results, layers, kOutlierPrompts);
  }

  // One call a layer: all layers of a large model are more than one message holds.
  static absl::StatusOr<v1::GetStatsResponse> StatsOf(const v1::CaptureTask& task, uint32_t layer,
                                                      Peers& peers) {
    v1::GetStatsRequest request;
    request.set_capture(task.capture_id());
    request.set_outlier_percentile(kOutlierPercentile);
    request.add_layers(layer);
    PLUMB_ASSIGN_OR_RETURN(v1::GetStatsResponse stats, peers.CaptureStats(request));
    if (stats.layers_size() == 1 && stats.layers(0).layer() == layer &&
        stats.layers(0).key_prompt_absmax_mean_size() > 0) {
      return stats;
    }
    return absl::InternalError(absl::StrCat("capture ", task.capture_id(), " was asked for layer ",
                                            layer, " and answered ", stats.layers_size(),
                                            " layers: is the capture service an older one?"));
  }

  static v1::KeyOutliers KeyOutliersOf(const v1::LayerStats& layer) {
    std::vector<float> sizes(layer.key_prompt_absmax_mean().begin(),
                             layer.key_prompt_absmax_mean().end());
    const auto largest = std::max_element(sizes.begin(), sizes.end());
    v1::KeyOutliers outliers;
    outliers.set_layer(layer.layer());
    outliers.set_largest_channel(static_cast<uint32_t>(largest - sizes.begin()));
    outliers.set_largest(*largest);
    std::sort(sizes.begin(), sizes.end());
    const size_t half = sizes.size() / 2;
    outliers.set_median((double{sizes[half]} + double{sizes[(sizes.size() - 1) / 2]}) / 2);
    if (outliers.median() > 0) {
      outliers.set_largest_over_median(outliers.largest() / outliers.median());
    }
    *outliers.mutable_outlier_channels() = layer.outlier_channels();
    outliers.set_outlier_threshold(layer.outlier_threshold());
    return outliers;
  }

  // The half of the channels with the smallest |K|, for the "low half" condition.
  static void KeepChannelOrder(const v1::LayerStats& layer, v1::ChannelAblation* channels) {
    std::vector<uint32_t> order;
    const int count = layer.keys().absmax_size();
    for (int c = 0; c < count; ++c) order.push_back(static_cast<uint32_t>(c));
    std::stable_sort(order.begin(), order.end(), [&](uint32_t a, uint32_t b) {
      return layer.keys().absmax(static_cast<int>(a)) < layer.keys().absmax(static_cast<int>(b));
    });
    order.resize(order.size() / 2);
    std::sort(order.begin(), order.end());
    for (uint32_t channel : order) channels->add_low_channels(channel);
  }
};

// Formats whose error on the captured activations is reported for every layer.
std::vector<std::string> SimulatedFormats(const v1::Study& study, const v1::ModelInfo& model) {
  std::vector<std::string> formats;
  for (int bits : {8, 6, 5, 4, 3, 2}) {
    formats.push_back(absl::StrCat("int", bits, ".", kDeploymentSymmetryAndGranularity));
  }
  formats.push_back(kMechanismFormat);
  // A small model's token may have fewer channels than such a group.
  if (model.num_kv_heads() * model.head_dim() >= 64) formats.push_back("int3.sym.group64");
  const bool bare = study.target().find(':') == std::string::npos;
  if (bare && std::find(formats.begin(), formats.end(), study.target()) == formats.end()) {
    formats.push_back(study.target());
  }
  return formats;
}

// In the requests' order. Several at once: the activations of one layer travel while those of
// another are computed. What fails so, for a service that takes fewer calls or a deadline, is asked
// again alone, so that which error is told does not depend on who was first.
absl::StatusOr<std::vector<v1::SimulateResponse>> SimulateAll(
    const std::vector<v1::SimulateRequest>& requests, Peers& peers) {
  constexpr size_t kAtOnce = 4;
  std::vector<std::optional<v1::SimulateResponse>> answers(requests.size());
  std::atomic<size_t> next = 0;
  std::atomic<bool> failed = false;
  const auto ask = [&] {
    for (size_t i = next++; i < requests.size() && !failed; i = next++) {
      absl::StatusOr<v1::SimulateResponse> answer = peers.Simulate(requests[i]);
      if (answer.ok()) {
        answers[i] = *std::move(answer);
      } else {
        failed = true;
      }
    }
  };
  {
    std::vector<std::jthread> threads;
    try {
      while (threads.size() + 1 < std::min(kAtOnce, requests.size())) threads.emplace_back(ask);
    } catch (const std::system_error&) {
      // No more threads to be had: those that there are do.
    }
    ask();
  }
  std::vector<v1::SimulateResponse> responses;
  for (size_t i = 0; i < requests.size(); ++i) {
    if (!answers[i].has_value()) {
      PLUMB_ASSIGN_OR_RETURN(answers[i], peers.Simulate(requests[i]));
    }
    responses.push_back(*std::move(answers[i]));
  }
  return responses;
}

class KvErrorStage final : public PlannerStage {
 public:
  std::string name() const override { return "kv errors"; }
  bool NextMayBegin() const override { return true; }

  absl::StatusOr<StageNeeds> Needs(const StudyContext& context, const v1::Report& report,
                                   const ResultView& results) const override {
    PLUMB_ASSIGN_OR_RETURN(v1::CaptureTask task, Task(context, results));
    return NeedsOf(task);
  }

  absl::Status Conclude(const StudyContext& context, const ResultView& results, Peers& peers,
                        v1::Report* report) const override {
    report->clear_kv_errors();
    PLUMB_ASSIGN_OR_RETURN(v1::CaptureTask task, Task(context, results));
    if (task.prompts_size() == 0) return absl::OkStatus();
    v1::GetStatsRequest stats_request;
    stats_request.set_capture(task.capture_id());
    stats_request.set_outlier_percentile(kOutlierPercentile);
    PLUMB_ASSIGN_OR_RETURN(v1::GetStatsResponse stats, peers.CaptureStats(stats_request));
    report->set_kv_capture_id(task.capture_id());
    report->set_kv_capture_digest(stats.capture_digest());
    // One call a layer: each layer has outlier channels of its own.
    std::vector<v1::SimulateRequest> requests;
    for (const v1::LayerStats& layer : stats.layers()) {
      v1::SimulateRequest& request = requests.emplace_back();
      request.set_capture(task.capture_id());
      for (const std::string& format : SimulatedFormats(context.study, context.model)) {
        request.add_formats(format);
      }
      request.add_layers(layer.layer());
      *request.mutable_outlier_channels() = layer.outlier_channels();
      request.set_paper_quirks(context.study.paper_quirks());
    }
    PLUMB_ASSIGN_OR_RETURN(std::vector<v1::SimulateResponse> responses,
                           SimulateAll(requests, peers));
    for (const v1::SimulateResponse& response : responses) {
      for (const v1::FormatError& error : response.errors()) *report->add_kv_errors() = error;
    }
    Correlate(report);
    return absl::OkStatus();
  }

  StageBound AtMost(const StudyContext& context) const override {
    return BoundOfCapture(context, kKvErrorPrompts);
  }

 private:
  static absl::StatusOr<v1::CaptureTask> Task(const StudyContext& context,
                                              const ResultView& results) {
    return TaskFor(context, results, {.raw = LayerRange(0, context.model.num_layers())},
                   kKvErrorPrompts);
  }

  // Does the predicted error rank the layers as the flips do?
  static void Correlate(v1::Report* report) {
    std::vector<double> errors, flips;
    for (const v1::FormatError& error : report->kv_errors()) {
      if (error.format() != kMechanismFormat) continue;
      for (const v1::LayerResult& layer : report->layers()) {
        if (layer.layer() != error.layer()) continue;
        errors.push_back(error.keys().relative_mse() + error.values().relative_mse());
        flips.push_back(LayerCounts(layer).flip_rate().estimate());
      }
    }
    auto rho = SpearmanCorrelation(errors, flips);
    report->set_kv_flip_correlation_defined(rho.ok());
    report->set_kv_flip_correlation(rho.ok() ? *rho : 0);
  }
};

}  // namespace

std::unique_ptr<PlannerStage> MakeOutlierStage() { return std::make_unique<OutlierStage>(); }
std::unique_ptr<PlannerStage> MakeKvErrorStage() { return std::make_unique<KvErrorStage>(); }

}  // namespace plumbline
