// StudyLogic by the planner's functions.
#pragma once

#include "services/coordinator/study_logic.h"

namespace plumbline {

class PlannerLogic final : public StudyLogic {
 public:
  absl::StatusOr<v1::Study> Normalize(const v1::Study& study) const override;
  absl::Status Fits(const v1::Study& study, const v1::ModelInfo& model) const override;
  std::vector<std::unique_ptr<Stage>> Stages(const v1::Study& study) const override;
  absl::Status SameRules(const v1::Report& report) const override;
  v1::EstimateStudyResponse Estimate(const StudyContext& context) const override;
  absl::StatusOr<v1::CheckGateResponse> Gate(const v1::Report& report,
                                             const v1::CheckGateRequest& request) const override;
  absl::StatusOr<v1::ExportPlanResponse> Export(
      const v1::Report& report, const v1::ExportPlanRequest& request) const override;
  std::vector<v1::AnswerExample> Examples(const StudyContext& context, const v1::Report& report,
                                          const ResultView& results, int limit) const override;
};

}  // namespace plumbline
