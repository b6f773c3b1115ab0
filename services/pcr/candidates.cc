#include "services/pcr/candidates.h"

#include <algorithm>

#include "absl/strings/str_cat.h"
#include "services/common/status_macros.h"
#include "services/pcr/target_format.h"
#include "services/stats/random.h"

namespace plumbline {
namespace {

// Layers kept in full precision by the dilution plan when no layer stands out.
constexpr size_t kDilutionLayers = 4;
constexpr size_t kMostDilutionLayers = 8;

class Builder {
 public:
  Builder(const CandidateRequest& request, TargetFormat target)
      : request_(request), target_(std::move(target)) {}

  std::vector<CandidatePlan> Build() {
    AddModePlans();
    AddNeighbours();
    AddGreedy();
    AddBaselines();
    std::stable_partition(plans_.begin(), plans_.end(), [](const CandidatePlan& plan) {
      return plan.kind == CandidateKind::kMode;
    });
    return std::move(plans_);
  }

 private:
  using Layers = std::vector<LayerIndex>;

  size_t num_layers() const { return static_cast<size_t>(request_.num_layers); }
  bool is_mode(FailureMode mode) const { return request_.mode == mode; }

  // The first plan of a text stays: the order of the calls is the order of what it is known for.
  void Add(CandidateKind kind, std::string name, std::string plan, std::string reason) {
    if (plan == Everywhere(target_.text())) return;
    for (const CandidatePlan& other : plans_) {
      if (other.plan == plan) return;
    }
    plans_.push_back({std::move(name), std::move(plan), std::move(reason), kind});
  }

  CandidateKind KindFor(FailureMode mode) const {
    return is_mode(mode) ? CandidateKind::kMode : CandidateKind::kNeighbour;
  }

  std::string Everywhere(const std::string& format) const { return absl::StrCat("*:", format); }
  std::string TargetBut(const Layers& layers, const std::string& format) const {
    return absl::StrCat("*:", target_.text(), ",", LayersText(layers), ":", format);
  }
  Layers Top(size_t count) const {
    return Layers(request_.ranked_layers.begin(), request_.ranked_layers.begin() + count);
  }
  Layers Range(size_t begin, size_t end) const {
    Layers layers;
    for (size_t i = begin; i < end; ++i) layers.push_back(LayerIndex(static_cast<int32_t>(i)));
    return layers;
  }

  size_t DilutionCount() const {
    const size_t wanted = request_.critical.empty() ? kDilutionLayers
                                                    : std::clamp<size_t>(request_.critical.size(),
                                                                         2, kMostDilutionLayers);
    return std::min(wanted, num_layers() - 1);
  }

  // Layers in full precision that the controls get, to compare at equal cost.
  size_t ControlCount() const {
    return is_mode(FailureMode::kMultiLayerDilution) ? DilutionCount() : 1;
  }

  void AddModePlans() {
    if (is_mode(FailureMode::kHyperVulnerable)) {
      Add(CandidateKind::kMode, "no-quantization", "*:fp",
          "every layer alone loses refusals, so no layer can be spared");
    }
    if (num_layers() > 1 && is_mode(FailureMode::kMultiLayerDilution)) {
      AddTopFp(DilutionCount(), CandidateKind::kMode);
    }
    if (!request_.critical.empty()) {
      const Layers critical = {request_.critical.front()};
      const int32_t layer = critical.front().value();
      Add(KindFor(FailureMode::kOutlierAsSafety), "critical-fp", TargetBut(critical, "fp"),
          absl::StrCat("refusals live in the outlier channels of layer ", layer,
                       ", which finer scales do not save: keep it in full precision"));
      Add(KindFor(FailureMode::kMixed), "critical-channel-group-64",
          absl::StrCat("*:", target_.Group64("sym"), ",", layer, ":", target_.PerChannel()),
          absl::StrCat("one scale a channel at layer ", layer,
                       ", groups of 64 channels elsewhere"));
    }
    Add(KindFor(FailureMode::kOutlierCrushesSafety), "group-64", Everywhere(target_.Group64("sym")),
        "outliers inflate a shared scale: groups of 64 channels keep them from their neighbours");
  }

  void AddTopFp(size_t count, CandidateKind kind) {
    Add(kind, absl::StrCat("top-", count, "-fp"), TargetBut(Top(count), "fp"),
        absl::StrCat("full precision at the ", count, " layers with the most flips"));
  }

  void AddNeighbours() {
    Add(CandidateKind::kNeighbour, "group-64-affine", Everywhere(target_.Group64("affine")),
        "groups of 64 channels with a minimum each, for one-sided channels");
    if (!request_.critical.empty()) AddCriticalNeighbours();
    if (request_.critical.size() > 1 && request_.critical.size() < num_layers()) {
      Add(CandidateKind::kNeighbour, "all-critical-fp", TargetBut(request_.critical, "fp"),
          absl::StrCat("full precision at all ", request_.critical.size(), " critical layers"));
    }
    for (const size_t count : {1, 2, 4, 8}) {
      if (count <= num_layers() / 2) AddTopFp(count, CandidateKind::kNeighbour);
    }
  }

  void AddCriticalNeighbours() {
    const int32_t layer = request_.critical.front().value();
    const Layers critical = {LayerIndex(layer)};
    if (const auto wide = target_.Widened(8); wide.has_value()) {
      Add(CandidateKind::kNeighbour, "critical-int8", TargetBut(critical, *wide),
          absl::StrCat("8 bits at layer ", layer, ", half the cost of full precision"));
    }
    Add(CandidateKind::kNeighbour, "critical-keys-fp", TargetBut(critical, target_.FpKeys()),
        absl::StrCat("full precision for the keys of layer ", layer, " only"));
    Add(CandidateKind::kNeighbour, "critical-values-fp", TargetBut(critical, target_.FpValues()),
        absl::StrCat("full precision for the values of layer ", layer, " only"));
    const size_t begin = static_cast<size_t>(std::max(0, layer - 1));
    const size_t end = std::min(num_layers(), static_cast<size_t>(layer) + 2);
    if (end - begin < num_layers()) {
      Add(CandidateKind::kNeighbour, "critical-and-adjacent-fp", TargetBut(Range(begin, end), "fp"),
          absl::StrCat("full precision at layer ", layer, " and the layers beside it"));
    }
    Add(CandidateKind::kNeighbour, "critical-fp-group-64",
        absl::StrCat("*:", target_.Group64("sym"), ",", layer, ":fp"),
        absl::StrCat("full precision at layer ", layer, ", groups of 64 channels elsewhere"));
  }

  void AddGreedy() {
    const auto wide = target_.Widened(8);
    if (!wide.has_value()) return;
    for (const size_t divisor : {8, 4, 2}) {
      const size_t count = num_layers() / divisor;
      if (count == 0) continue;
      Add(CandidateKind::kGreedy, absl::StrCat("greedy-", count, "-int8"),
          TargetBut(Top(count), *wide),
          absl::StrCat("8 bits at the ", count, " layers with the most flips"));
    }
  }

  void AddBaselines() {
    for (const int bits : {3, 4, 5, 6, 8}) {
      const auto wide = target_.Widened(bits);
      if (bits <= target_.max_bits() || !wide.has_value()) continue;
      Add(CandidateKind::kBaseline, absl::StrCat("uniform-int", bits), Everywhere(*wide),
          absl::StrCat("the target at ", bits, " bits on all layers"));
    }
    if (num_layers() < 2) return;
    AddRandom();
    for (const size_t count : {ControlCount(), size_t{2}}) {
      if (count >= num_layers()) continue;
      Add(CandidateKind::kBaseline, absl::StrCat("first-", count, "-fp"),
          TargetBut(Range(0, count), "fp"), "full precision at the first layers");
      Add(CandidateKind::kBaseline, absl::StrCat("last-", count, "-fp"),
          TargetBut(Range(num_layers() - count, num_layers()), "fp"),
          "full precision at the last layers");
    }
    if (num_layers() > 4) {
      Layers ends = Range(0, 2);
      const Layers last = Range(num_layers() - 2, num_layers());
      ends.insert(ends.end(), last.begin(), last.end());
      Add(CandidateKind::kBaseline, "first-and-last-two-fp", TargetBut(ends, "fp"),
          "full precision at the first two and the last two layers, a common habit");
    }
  }

  // Layers that the diagnosis did not point at, as many as its plan keeps: a control at equal cost.
  void AddRandom() {
    const size_t count = ControlCount();
    if (2 * count > num_layers()) return;
    CounterRng rng(request_.seed);
    for (int32_t draw = 0; draw < request_.random_draws; ++draw) {
      Layers rest(request_.ranked_layers.begin() + count, request_.ranked_layers.end());
      std::sort(rest.begin(), rest.end());
      for (size_t i = 0; i < count; ++i) std::swap(rest[i], rest[i + rng.Below(rest.size() - i)]);
      rest.resize(count);
      Add(CandidateKind::kBaseline, absl::StrCat("random-", count, "-fp-", draw + 1),
          TargetBut(rest, "fp"), "full precision at layers drawn by lot: what chance repairs");
    }
  }

  const CandidateRequest& request_;
  const TargetFormat target_;
  std::vector<CandidatePlan> plans_;
};

absl::Status Check(const CandidateRequest& request) {
  if (request.num_layers <= 0) {
    return absl::InvalidArgumentError(
        absl::StrCat("num_layers must be above 0, got ", request.num_layers));
  }
  std::vector<LayerIndex> sorted = request.ranked_layers;
  std::sort(sorted.begin(), sorted.end());
  for (int32_t i = 0; i < static_cast<int32_t>(sorted.size()); ++i) {
    if (sorted[i].value() != i) {
      return absl::InvalidArgumentError(
          absl::StrCat("the ranking must hold each layer once; layer ", i, " is missing"));
    }
  }
  if (static_cast<int32_t>(sorted.size()) != request.num_layers) {
    return absl::InvalidArgumentError(absl::StrCat("the ranking holds ", sorted.size(),
                                                   " layers, the model has ", request.num_layers));
  }
  for (const LayerIndex layer : request.critical) {
    if (layer.value() < 0 || layer.value() >= request.num_layers) {
      return absl::InvalidArgumentError(
          absl::StrCat("critical layer ", layer.value(), " is not in 0..", request.num_layers - 1));
    }
  }
  return absl::OkStatus();
}

}  // namespace

absl::string_view CandidateKindName(CandidateKind kind) {
  switch (kind) {
    case CandidateKind::kMode:
      return "mode";
    case CandidateKind::kBaseline:
      return "baseline";
    case CandidateKind::kGreedy:
      return "greedy";
    case CandidateKind::kNeighbour:
      break;
  }
  return "neighbour";
}

absl::StatusOr<std::vector<CandidatePlan>> CandidatePlans(const CandidateRequest& request) {
  PLUMB_RETURN_IF_ERROR(Check(request));
  PLUMB_ASSIGN_OR_RETURN(TargetFormat target, TargetFormat::Parse(request.target_format));
  return Builder(request, std::move(target)).Build();
}

std::string LayersText(std::vector<LayerIndex> layers) {
  std::sort(layers.begin(), layers.end());
  std::string text;
  for (size_t begin = 0; begin < layers.size();) {
    size_t end = begin + 1;
    while (end < layers.size() && layers[end].value() == layers[end - 1].value() + 1) ++end;
    absl::StrAppend(&text, text.empty() ? "" : "+", layers[begin].value());
    if (end - begin > 1) absl::StrAppend(&text, "-", layers[end - 1].value());
    begin = end;
  }
  return text;
}

}  // namespace plumbline
