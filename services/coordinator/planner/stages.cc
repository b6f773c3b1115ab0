#include "services/coordinator/planner/stages.h"

#include <algorithm>
#include <set>
#include <utility>

#include "absl/strings/str_cat.h"
#include "services/common/status_macros.h"
#include "services/pcr/policy.h"

namespace plumbline {
namespace {

using StageList = std::vector<std::unique_ptr<PlannerStage>>;

void AddDiagnosis(const v1::DiagnoseStudy& study, StageList* stages) {
  stages->push_back(MakeLayerScreenStage());
  stages->push_back(MakeLayerConfirmStage());
  stages->push_back(MakeCombinedStage());
  stages->push_back(MakeOutlierStage());
  stages->push_back(MakeKvErrorStage());
  stages->push_back(MakeChannelStage());
  stages->push_back(MakeModeStage());
  if (study.skip_mitigation()) return;
  stages->push_back(MakeValidationStage());
  stages->push_back(MakeUtilityStage());
  stages->push_back(MakeTestStage());
}

void AddMitigation(StageList* stages) {
  stages->push_back(MakeGivenPlansStage());
  stages->push_back(MakeValidationStage());
  stages->push_back(MakeUtilityStage());
  stages->push_back(MakeTestStage());
}

}  // namespace

absl::StatusOr<StageNeeds> ConditionStage::Needs(const StudyContext& context,
                                                 const v1::Report& report,
                                                 const ResultView& results) const {
  PLUMB_ASSIGN_OR_RETURN(std::vector<Condition> conditions, Conditions(context, report, results));
  CellFactory factory(context);
  StageNeeds all;
  for (const Condition& condition : conditions) {
    PLUMB_RETURN_IF_ERROR(factory.AddCells(condition, &all));
  }
  StageNeeds unique;
  std::set<std::pair<std::string, std::string>> seen;
  for (PlannedCell& cell : all.cells) {
    if (seen.emplace(cell.key, cell.condition).second) unique.cells.push_back(std::move(cell));
  }
  return unique;
}

StageList PlannerStagesOf(const v1::Study& study) {
  StageList stages;
  stages.push_back(MakeBaselineStage());
  stages.push_back(MakeSweepStage());
  if (study.has_diagnose()) AddDiagnosis(study.diagnose(), &stages);
  if (study.has_mitigate()) AddMitigation(&stages);
  if (!study.has_custom() && study.jitter_replicas() > 0) stages.push_back(MakeFloorStage());
  stages.push_back(MakeHeadlineStage());
  return stages;
}

std::vector<std::unique_ptr<Stage>> StagesOf(const v1::Study& study) {
  std::vector<std::unique_ptr<Stage>> stages;
  for (std::unique_ptr<PlannerStage>& stage : PlannerStagesOf(study)) {
    stages.push_back(std::move(stage));
  }
  return stages;
}

absl::Status CheckSameRules(const v1::Report& report) {
  const std::string& begun = report.provenance().policy_version();
  const std::string rules = PolicyVersion(
      report.study().policy() == v1::POLICY_PAPER ? Policy::kPaper : Policy::kPlumbline);
  if (begun.empty() || begun == rules) return absl::OkStatus();
  return absl::FailedPreconditionError(
      absl::StrCat("the study was begun under the rules ", begun, ", these are ", rules,
                   ": create it anew, the answers that it has are kept"));
}

const v1::ConditionResult& LayerCounts(const v1::LayerResult& layer) {
  return layer.confirmed().cells() > 0 ? layer.confirmed() : layer.screen();
}

uint32_t MostSensitiveLayer(const v1::Report& report) {
  const v1::LayerResult* best = nullptr;
  for (const v1::LayerResult& layer : report.layers()) {
    if (best == nullptr) {
      best = &layer;
      continue;
    }
    const auto rank = [](const v1::LayerResult& l) {
      return std::make_pair(l.critical(), LayerCounts(l).flip_rate().estimate());
    };
    if (rank(layer) > rank(*best)) best = &layer;
  }
  return best == nullptr ? 0 : best->layer();
}

uint64_t GuessPromptTokens(const StudyContext& context, const v1::Prompt& prompt) {
  constexpr uint64_t kChatFormatTokens = 20;
  constexpr uint64_t kBytesPerToken = 4;
  uint64_t bytes = 0;
  for (const v1::ChatTurn& turn : TurnsOf(context.study, prompt)) bytes += turn.text().size();
  return bytes / kBytesPerToken + kChatFormatTokens;
}

StageBound BoundOf(const StudyContext& context, const PromptList& prompts, uint64_t conditions) {
  StageBound bound;
  for (const v1::Prompt* prompt : prompts) {
    bound.cells += conditions;
    bound.tokens += conditions * (GuessPromptTokens(context, *prompt) +
                                  context.study.decoding().max_new_tokens());
  }
  return bound;
}

PromptList LongestOf(const StudyContext& context, const PromptList& prompts, uint64_t count) {
  PromptList sorted = prompts;
  std::stable_sort(sorted.begin(), sorted.end(), [&](const v1::Prompt* a, const v1::Prompt* b) {
    return GuessPromptTokens(context, *a) > GuessPromptTokens(context, *b);
  });
  if (sorted.size() > count) sorted.resize(count);
  return sorted;
}

}  // namespace plumbline
