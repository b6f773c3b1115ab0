// The failure mode, from the evidence of the stages before, and the plans it asks for.
#include <set>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/string_view.h"
#include "services/common/status_macros.h"
#include "services/coordinator/planner/counting.h"
#include "services/coordinator/planner/plan_text.h"
#include "services/coordinator/planner/selection.h"
#include "services/coordinator/planner/stages.h"

namespace plumbline {
namespace {

void FillLayer(uint32_t layer, const v1::ConditionResult& counts, v1::LayerEvidence* evidence) {
  evidence->set_layer(layer);
  evidence->set_flips(static_cast<uint32_t>(counts.flips()));
  evidence->set_trials(static_cast<uint32_t>(counts.baseline_refusals()));
  evidence->set_degenerate(static_cast<uint32_t>(counts.degenerate()));
  evidence->set_nonfinite(static_cast<uint32_t>(counts.nonfinite()));
}

v1::PairedFlips ToProto(const PairedOutcomes& pairs) {
  v1::PairedFlips proto;
  proto.set_both(static_cast<uint32_t>(pairs.both));
  proto.set_only_a(static_cast<uint32_t>(pairs.only_a));
  proto.set_only_b(static_cast<uint32_t>(pairs.only_b));
  proto.set_neither(static_cast<uint32_t>(pairs.neither));
  proto.set_broken_a(static_cast<uint32_t>(pairs.broken_a));
  proto.set_broken_b(static_cast<uint32_t>(pairs.broken_b));
  return proto;
}

const Condition* Named(const std::vector<Condition>& conditions, absl::string_view name) {
  for (const Condition& condition : conditions) {
    if (condition.name == name) return &condition;
  }
  return nullptr;
}

absl::Status FillPairs(const StudyContext& context, const v1::Report& report,
                       const ResultView& results, v1::ClassifyRequest* request) {
  PLUMB_ASSIGN_OR_RETURN(std::vector<Condition> conditions,
                         ChannelConditions(context, report, results));
  const Condition& tensor = *Named(conditions, kPerTensor);
  PLUMB_ASSIGN_OR_RETURN(PairedOutcomes step,
                         PairFlips(context, results, *Named(conditions, kPerChannelStep), tensor));
  PLUMB_ASSIGN_OR_RETURN(
      PairedOutcomes prompt,
      PairFlips(context, results, *Named(conditions, kPerChannelPrompt), tensor));
  *request->mutable_per_channel_step() = ToProto(step);
  *request->mutable_per_channel_deployable() = ToProto(prompt);
  return absl::OkStatus();
}

absl::StatusOr<v1::ClassifyRequest> EvidenceOf(const StudyContext& context,
                                               const v1::Report& report,
                                               const ResultView& results) {
  v1::ClassifyRequest request;
  request.set_policy(context.study.policy());
  request.set_num_layers(context.model.num_layers());
  PLUMB_ASSIGN_OR_RETURN(std::string format, BaseFormat(TargetPlan(context.study), context.model,
                                                        context.study.paper_quirks()));
  request.set_target(format);
  request.set_baseline_refusals(static_cast<uint32_t>(report.baseline().baseline_refusals()));
  for (const v1::LayerResult& layer : report.layers()) {
    FillLayer(layer.layer(), LayerCounts(layer), request.add_layers());
  }
  // The combined stage puts these two first.
  if (report.combined_size() < 2) {
    return absl::InternalError("the combined layer conditions are missing from the report");
  }
  const uint32_t layer = report.channels().layer();
  FillLayer(layer, report.combined(0), request.mutable_all_layers());
  FillLayer(layer, report.combined(1), request.mutable_all_but_critical());
  request.set_has_critical_layer(report.critical_layers_size() > 0);
  request.set_critical_layer(layer);
  request.set_seed(context.study.seed());
  PLUMB_ASSIGN_OR_RETURN(std::vector<Condition> combined,
                         CombinedConditions(context, report, results));
  PLUMB_ASSIGN_OR_RETURN(PairedOutcomes fp_pairs,
                         PairFlips(context, results, combined[1], combined[0]));
  *request.mutable_critical_fp_pairs() = ToProto(fp_pairs);
  PLUMB_RETURN_IF_ERROR(FillPairs(context, report, results, &request));
  return request;
}

// The classifier edits a format; a target of several rules is put back in its place.
std::string OnTarget(const StudyContext& context, const std::string& format,
                     const std::string& plan) {
  const std::string prefix = absl::StrCat("*:", format);
  if (!absl::StartsWith(plan, absl::StrCat(prefix, ","))) return plan;
  return absl::StrCat(TargetPlan(context.study), plan.substr(prefix.size()));
}

absl::Status AddCandidates(const StudyContext& context, const std::string& format,
                           const v1::ClassifyResponse& response, v1::Report* report) {
  CellFactory factory(context);
  PLUMB_ASSIGN_OR_RETURN(std::string target, factory.Canonical(TargetPlan(context.study)));
  std::set<std::string> seen = {target};
  report->clear_plans();
  for (const v1::CandidatePlan& candidate : response.candidates()) {
    PLUMB_ASSIGN_OR_RETURN(std::string plan,
                           factory.Canonical(OnTarget(context, format, candidate.plan())));
    if (!seen.insert(plan).second) continue;
    v1::PlanResult* result = report->add_plans();
    result->set_name(candidate.name());
    result->set_plan(plan);
    result->set_reason(candidate.reason());
    result->set_from_mode(candidate.from_mode());
  }
  return absl::OkStatus();
}

class ModeStage final : public PlannerStage {
 public:
  std::string name() const override { return "failure mode"; }

  absl::StatusOr<StageNeeds> Needs(const StudyContext& context, const v1::Report& report,
                                   const ResultView& results) const override {
    return StageNeeds{};
  }

  absl::Status Conclude(const StudyContext& context, const ResultView& results, Peers& peers,
                        v1::Report* report) const override {
    if (report->baseline().baseline_refusals() == 0) {
      report->mutable_headline()->set_mode(v1::FAILURE_MODE_UNDETERMINED);
      report->set_mode_explanation("the baseline refuses none of the prompts");
      return absl::OkStatus();
    }
    PLUMB_ASSIGN_OR_RETURN(LayerPrompts prompts, LayerPromptsOf(context, results));
    if (prompts.screen.empty()) {
      report->mutable_headline()->set_mode(v1::FAILURE_MODE_UNDETERMINED);
      report->set_mode_explanation(absl::StrCat("the baseline refuses none of the prompts of ",
                                                PoolLabel(context, v1::SPLIT_A),
                                                ", so no layer could be measured"));
      return absl::OkStatus();
    }
    PLUMB_ASSIGN_OR_RETURN(v1::ClassifyRequest request, EvidenceOf(context, *report, results));
    PLUMB_ASSIGN_OR_RETURN(v1::ClassifyResponse response, peers.Classify(request));
    report->mutable_headline()->set_mode(response.mode());
    report->set_mode_explanation(response.explanation());
    *report->mutable_pcr_paper() = response.pcr_paper();
    *report->mutable_pcr_deployable() = response.pcr_deployable();
    report->mutable_provenance()->set_policy_version(response.policy_version());
    return AddCandidates(context, request.target(), response, report);
  }

  StageBound AtMost(const StudyContext& context) const override { return {}; }
};

// Mitigate: the plans come with the study.
class GivenPlansStage final : public PlannerStage {
 public:
  std::string name() const override { return "given plans"; }

  absl::StatusOr<StageNeeds> Needs(const StudyContext& context, const v1::Report& report,
                                   const ResultView& results) const override {
    return StageNeeds{};
  }

  absl::Status Conclude(const StudyContext& context, const ResultView& results, Peers& peers,
                        v1::Report* report) const override {
    const v1::MitigateStudy& study = context.study.mitigate();
    CellFactory factory(context);
    report->clear_plans();
    for (int i = 0; i < study.plans_size(); ++i) {
      v1::PlanResult* result = report->add_plans();
      result->set_name(study.plan_names(i));
      PLUMB_ASSIGN_OR_RETURN(*result->mutable_plan(), factory.Canonical(study.plans(i)));
      result->set_reason("given with the study");
    }
    return absl::OkStatus();
  }

  StageBound AtMost(const StudyContext& context) const override { return {}; }
};

}  // namespace

std::unique_ptr<PlannerStage> MakeModeStage() { return std::make_unique<ModeStage>(); }
std::unique_ptr<PlannerStage> MakeGivenPlansStage() { return std::make_unique<GivenPlansStage>(); }

}  // namespace plumbline
