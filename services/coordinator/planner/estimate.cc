#include "services/coordinator/planner/planner.h"
#include "services/coordinator/planner/stages.h"

namespace plumbline {

v1::EstimateStudyResponse EstimateStudy(const StudyContext& context) {
  v1::EstimateStudyResponse response;
  *response.mutable_model() = context.model;
  uint64_t cells = 0, tokens = 0;
  for (const auto& stage : PlannerStagesOf(context.study)) {
    const StageBound bound = stage->AtMost(context);
    v1::StageProgress* progress = response.add_stages();
    progress->set_stage(stage->name());
    progress->set_cells_total(bound.cells);
    cells += bound.cells;
    tokens += bound.tokens;
  }
  response.set_cells_at_most(cells);
  response.set_tokens_at_most(tokens);
  return response;
}

}  // namespace plumbline
