#include "services/coordinator/planner_logic.h"

namespace plumbline {

absl::StatusOr<v1::Study> PlannerLogic::Normalize(const v1::Study& study) const {
  return NormalizeStudy(study);
}

absl::Status PlannerLogic::Fits(const v1::Study& study, const v1::ModelInfo& model) const {
  return CheckStudyFitsModel(study, model);
}

std::vector<std::unique_ptr<Stage>> PlannerLogic::Stages(const v1::Study& study) const {
  return StagesOf(study);
}

absl::Status PlannerLogic::SameRules(const v1::Report& report) const {
  return CheckSameRules(report);
}

v1::EstimateStudyResponse PlannerLogic::Estimate(const StudyContext& context) const {
  return EstimateStudy(context);
}

absl::StatusOr<v1::CheckGateResponse> PlannerLogic::Gate(
    const v1::Report& report, const v1::CheckGateRequest& request) const {
  return CheckGate(report, request);
}

absl::StatusOr<v1::ExportPlanResponse> PlannerLogic::Export(
    const v1::Report& report, const v1::ExportPlanRequest& request) const {
  return ExportPlan(report, request);
}

std::vector<v1::AnswerExample> PlannerLogic::Examples(const StudyContext& context,
                                                      const v1::Report& report,
                                                      const ResultView& results, int limit) const {
  return FlippedAnswers(context, report, results, limit);
}

}  // namespace plumbline
