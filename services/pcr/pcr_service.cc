#include "services/pcr/pcr_service.h"

#include <algorithm>
#include <cmath>
#include <numeric>
#include <tuple>

#include "absl/strings/str_cat.h"
#include "services/common/figures.h"
#include "services/common/status_macros.h"
#include "services/rpc/server.h"
#include "services/rpc/status.h"

namespace plumbline {
namespace {

constexpr int kHistogramBins = 50;  // as PcrEstimate.histogram says
constexpr uint32_t kMaxLayers = 10000;

absl::StatusOr<FlipCount> FlipsFrom(absl::string_view field, const v1::LayerEvidence& evidence) {
  if (evidence.flips() > evidence.trials()) {
    return absl::InvalidArgumentError(absl::StrCat(field, ": ", evidence.flips(), " flips of ",
                                                   evidence.trials(), " trials cannot be"));
  }
  const FlipCount count{.flips = evidence.flips(),
                        .prompts = evidence.trials(),
                        .broken = int64_t{evidence.degenerate()} + evidence.nonfinite()};
  PLUMB_RETURN_IF_ERROR(Annotate(CheckFlips(count), field));
  return count;
}

absl::StatusOr<PairedOutcomes> PairsFrom(absl::string_view field, const v1::PairedFlips& proto) {
  const PairedOutcomes pairs{.both = proto.both(),
                             .only_a = proto.only_a(),
                             .only_b = proto.only_b(),
                             .neither = proto.neither(),
                             .broken_a = proto.broken_a(),
                             .broken_b = proto.broken_b()};
  for (const auto& [side, flips, broken] : {std::tuple("a", pairs.flips_a(), pairs.broken_a),
                                            std::tuple("b", pairs.flips_b(), pairs.broken_b)}) {
    if (flips + broken <= pairs.prompts()) continue;
    return absl::InvalidArgumentError(absl::StrCat(field, ": ", flips, " flips and ", broken,
                                                   " broken answers under ", side, " of ",
                                                   pairs.prompts(), " prompts cannot be"));
  }
  return pairs;
}

// Margins alone do not say how outcomes pair; independence is the assumption that keeps the
// posterior of their ratio wide.
absl::StatusOr<PairedOutcomes> IndependentPairs(const FlipCount& a, const FlipCount& b) {
  if (a.prompts != b.prompts || a.prompts == 0) {
    return absl::InvalidArgumentError(
        absl::StrCat("all_but_critical and all_layers must have the same trials, above 0; got ",
                     a.prompts, " and ", b.prompts));
  }
  const int64_t low = std::max<int64_t>(0, a.flips + b.flips - a.prompts);
  const auto expected = static_cast<int64_t>(
      std::llround(static_cast<double>(a.flips) * static_cast<double>(b.flips) /
                   static_cast<double>(a.prompts)));
  const int64_t both = std::max(low, std::min({expected, a.flips, b.flips}));
  return PairedOutcomes{.both = both,
                        .only_a = a.flips - both,
                        .only_b = b.flips - both,
                        .neither = a.prompts - a.flips - b.flips + both,
                        .broken_a = a.broken,
                        .broken_b = b.broken};
}

v1::FailureMode ToProto(FailureMode mode) {
  switch (mode) {
    case FailureMode::kUndetermined:
      return v1::FAILURE_MODE_UNDETERMINED;
    case FailureMode::kNoCollapse:
      return v1::FAILURE_MODE_NONE;
    case FailureMode::kHyperVulnerable:
      return v1::FAILURE_MODE_HYPER_VULNERABLE;
    case FailureMode::kMultiLayerDilution:
      return v1::FAILURE_MODE_DILUTION;
    case FailureMode::kOutlierAsSafety:
      return v1::FAILURE_MODE_OUTLIER_AS_SAFETY;
    case FailureMode::kMixed:
      return v1::FAILURE_MODE_MIXED;
    case FailureMode::kOutlierCrushesSafety:
      return v1::FAILURE_MODE_OUTLIER_CRUSHES;
  }
  return v1::FAILURE_MODE_UNSPECIFIED;
}

v1::AttentionPattern ToProto(AttentionPattern pattern) {
  switch (pattern) {
    case AttentionPattern::kNone:
      return v1::ATTENTION_PATTERN_NONE;
    case AttentionPattern::kConcentrated:
      return v1::ATTENTION_PATTERN_CONCENTRATED;
    case AttentionPattern::kDistributedEarly:
      return v1::ATTENTION_PATTERN_DISTRIBUTED_EARLY;
    case AttentionPattern::kUltraDistributed:
      return v1::ATTENTION_PATTERN_ULTRA_DISTRIBUTED;
  }
  return v1::ATTENTION_PATTERN_UNSPECIFIED;
}

std::string WhyUndefined(const v1::PairedFlips& pairs, uint32_t layer, Policy policy) {
  const int64_t flips = int64_t{pairs.both()} + pairs.only_b();
  const int64_t prompts = flips + pairs.only_a() + pairs.neither();
  return absl::StrCat("one scale for the whole tensor at layer ", layer, " flips ", flips, " of ",
                      CountText(prompts, "refusal"), ", and the ratio needs ",
                      RulesOf(policy).min_ratio_flips);
}

v1::PcrEstimate EstimateToProto(const std::optional<RatioPosterior>& posterior, bool measured,
                                const v1::PairedFlips& pairs, uint32_t layer, Policy policy) {
  v1::PcrEstimate estimate;
  if (!posterior.has_value()) {
    estimate.set_undefined_reason(measured ? WhyUndefined(pairs, layer, policy) : "not measured");
    return estimate;
  }
  estimate.set_defined(true);
  v1::Interval* interval = estimate.mutable_pcr();
  interval->set_defined(true);
  interval->set_estimate(posterior->estimate);
  interval->set_low(posterior->interval.lower);
  interval->set_high(posterior->interval.upper);
  interval->set_successes(pairs.both() + pairs.only_a());
  interval->set_trials(pairs.both() + pairs.only_a() + pairs.only_b() + pairs.neither());
  interval->set_method("dirichlet");
  estimate.set_mass_below_30(posterior->band_mass.at(0));
  estimate.set_mass_30_to_70(posterior->band_mass.at(1));
  estimate.set_mass_above_70(posterior->band_mass.at(2));
  const auto& histogram = posterior->histogram;
  estimate.mutable_histogram()->Add(histogram.begin(), histogram.end());
  if (!histogram.empty()) {
    // What lies below the first bin belongs to it.
    const double inside = std::accumulate(histogram.begin(), histogram.end(), 0.0);
    estimate.set_histogram(0, estimate.histogram(0) + std::max(0.0, 1 - inside));
  }
  return estimate;
}

Policy PolicyFrom(v1::Policy policy) {
  return policy == v1::POLICY_PAPER ? Policy::kPaper : Policy::kPlumbline;
}

absl::Status TakeCombined(const v1::ClassifyRequest& request, Evidence* evidence) {
  if (request.has_all_layers()) {
    PLUMB_ASSIGN_OR_RETURN(evidence->all_layers, FlipsFrom("all_layers", request.all_layers()));
  }
  if (request.has_critical_fp_pairs()) {
    PLUMB_ASSIGN_OR_RETURN(evidence->all_but_critical,
                           PairsFrom("critical_fp_pairs", request.critical_fp_pairs()));
  } else if (request.has_all_but_critical()) {
    if (!request.has_all_layers()) {
      return absl::InvalidArgumentError("all_but_critical is set but all_layers is not");
    }
    PLUMB_ASSIGN_OR_RETURN(FlipCount without,
                           FlipsFrom("all_but_critical", request.all_but_critical()));
    PLUMB_ASSIGN_OR_RETURN(evidence->all_but_critical,
                           IndependentPairs(without, *evidence->all_layers));
  }
  return absl::OkStatus();
}

}  // namespace

absl::StatusOr<Evidence> EvidenceFromProto(const v1::ClassifyRequest& request) {
  if (!v1::Policy_IsValid(request.policy())) {
    return absl::InvalidArgumentError(
        absl::StrCat("policy must be plumbline (1) or paper (2), got ", request.policy()));
  }
  if (request.num_layers() < 1 || request.num_layers() > kMaxLayers) {
    return absl::InvalidArgumentError(
        absl::StrCat("num_layers must be 1..", kMaxLayers, ", got ", request.num_layers()));
  }
  Evidence evidence;
  evidence.policy = PolicyFrom(request.policy());
  evidence.num_layers = static_cast<int32_t>(request.num_layers());
  evidence.baseline_refusals = request.baseline_refusals();
  evidence.target_format = request.target();
  evidence.seed = request.seed();
  evidence.histogram_bins = kHistogramBins;
  for (int i = 0; i < request.layers_size(); ++i) {
    const v1::LayerEvidence& layer = request.layers(i);
    const std::string field = absl::StrCat("layers[", i, "]");
    if (layer.layer() >= request.num_layers()) {
      return absl::InvalidArgumentError(
          absl::StrCat(field, ".layer must be below num_layers = ", request.num_layers(), ", got ",
                       layer.layer()));
    }
    PLUMB_ASSIGN_OR_RETURN(FlipCount count, FlipsFrom(field, layer));
    evidence.layers.push_back({LayerIndex(static_cast<int32_t>(layer.layer())), count});
  }
  PLUMB_RETURN_IF_ERROR(TakeCombined(request, &evidence));
  if (request.has_per_channel_step()) {
    PLUMB_ASSIGN_OR_RETURN(evidence.pcr_step,
                           PairsFrom("per_channel_step", request.per_channel_step()));
  }
  if (request.has_per_channel_deployable()) {
    PLUMB_ASSIGN_OR_RETURN(evidence.pcr_deployable,
                           PairsFrom("per_channel_deployable", request.per_channel_deployable()));
  }
  if (request.has_critical_layer()) {
    if (request.critical_layer() >= request.num_layers()) {
      return absl::InvalidArgumentError(
          absl::StrCat("critical_layer must be below num_layers = ", request.num_layers(), ", got ",
                       request.critical_layer()));
    }
    evidence.measured_layer = LayerIndex(static_cast<int32_t>(request.critical_layer()));
  }
  return evidence;
}

v1::ClassifyResponse ClassificationToProto(const Classification& classification,
                                           const v1::ClassifyRequest& request) {
  v1::ClassifyResponse response;
  response.set_mode(ToProto(classification.mode));
  response.set_explanation(classification.explanation);
  *response.mutable_pcr_paper() =
      EstimateToProto(classification.pcr_step, request.has_per_channel_step(),
                      request.per_channel_step(), request.critical_layer(), classification.policy);
  *response.mutable_pcr_deployable() = EstimateToProto(
      classification.pcr_deployable, request.has_per_channel_deployable(),
      request.per_channel_deployable(), request.critical_layer(), classification.policy);
  response.set_pattern(ToProto(classification.selection.pattern));
  for (LayerIndex layer : classification.selection.critical) {
    response.add_critical_layers(static_cast<uint32_t>(layer.value()));
  }
  for (LayerIndex layer : classification.selection.unclear) {
    response.add_unclear_layers(static_cast<uint32_t>(layer.value()));
  }
  for (const CandidatePlan& candidate : classification.candidates) {
    v1::CandidatePlan* plan = response.add_candidates();
    plan->set_name(candidate.name);
    plan->set_plan(candidate.plan);
    plan->set_reason(candidate.reason);
    plan->set_from_mode(candidate.kind == CandidateKind::kMode);
  }
  response.set_policy_version(PolicyVersion(classification.policy));
  return response;
}

grpc::Status PcrService::Classify(grpc::ServerContext*, const v1::ClassifyRequest* request,
                                  v1::ClassifyResponse* response) {
  const absl::StatusOr<Evidence> evidence = EvidenceFromProto(*request);
  if (!evidence.ok()) return ToGrpcStatus(evidence.status());
  const absl::StatusOr<Classification> classification = ClassifyFailureMode(*evidence);
  if (!classification.ok()) return ToGrpcStatus(classification.status());
  if (metrics_ != nullptr) {
    metrics_->Increment(metric::kClassifications, {PolicyName(evidence->policy)});
  }
  *response = ClassificationToProto(*classification, *request);
  return grpc::Status::OK;
}

absl::Status RunPcr(const v1::PcrConfig& config, Process& process) {
  PcrService service(process.metrics);
  return ServeUntilShutdown({.default_listen = kPcrListen,
                             .config = config.server(),
                             .services = {Hosted<v1::PcrClassifier>(&service)},
                             .metrics = process.metrics},
                            process);
}

}  // namespace plumbline
