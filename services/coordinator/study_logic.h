// The pure study logic as the driver and the services call it. PlannerLogic (planner_logic.h) is
// the real one; tests put their own in its place.
#pragma once

#include <memory>
#include <vector>

#include "services/coordinator/planner/planner.h"

namespace plumbline {

// Methods are those of services/coordinator/planner/planner.h. Thread safe: no state.
class StudyLogic {
 public:
  virtual ~StudyLogic() = default;
  virtual absl::StatusOr<v1::Study> Normalize(const v1::Study& study) const = 0;
  virtual absl::Status Fits(const v1::Study& study, const v1::ModelInfo& model) const = 0;
  virtual std::vector<std::unique_ptr<Stage>> Stages(const v1::Study& study) const = 0;
  // FailedPrecondition for the report so far of a study that was begun under other rules: its
  // stages may be others, so it must not go on.
  virtual absl::Status SameRules(const v1::Report& report) const = 0;
  virtual v1::EstimateStudyResponse Estimate(const StudyContext& context) const = 0;
  virtual absl::StatusOr<v1::CheckGateResponse> Gate(const v1::Report& report,
                                                     const v1::CheckGateRequest& request) const = 0;
  virtual absl::StatusOr<v1::ExportPlanResponse> Export(
      const v1::Report& report, const v1::ExportPlanRequest& request) const = 0;
  virtual std::vector<v1::AnswerExample> Examples(const StudyContext& context,
                                                  const v1::Report& report,
                                                  const ResultView& results, int limit) const = 0;
};

}  // namespace plumbline
