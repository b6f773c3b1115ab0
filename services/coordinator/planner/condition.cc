#include "services/coordinator/planner/condition.h"

#include <algorithm>

#include "absl/strings/str_cat.h"
#include "services/cells/cells.h"
#include "services/common/status_macros.h"
#include "services/coordinator/planner/plan_text.h"

namespace plumbline {
namespace {

// How perplexity is published: windows of 2,048 tokens that move by 512. Our own policy compares a
// plan with the baseline on the same windows, and shorter ones with less overlap cost a CPU an
// eighth.
struct ScoreWindow {
  uint64_t tokens, stride;
};
constexpr ScoreWindow kPublishedWindow = {2048, 512};
constexpr ScoreWindow kOwnWindow = {512, 384};

// The judge and version that end an answer early. A normalized study only names the judge: its
// version is known once the judge service has answered.
std::string StopOnVerdict(const StudyContext& context) {
  if (context.study.decoding().stop_on_verdict().empty()) return "";
  return absl::StrCat(context.study.judge(), "/", context.judge_version);
}

}  // namespace

std::vector<v1::ChatTurn> TurnsOf(const v1::Study& study, const v1::Prompt& prompt) {
  std::vector<v1::ChatTurn> turns;
  const bool own = prompt.turns_size() > 0 && prompt.turns(0).role() == v1::ROLE_SYSTEM;
  if (!study.system_prompt().empty() && !own) {
    v1::ChatTurn system;
    system.set_role(v1::ROLE_SYSTEM);
    system.set_text(study.system_prompt());
    turns.push_back(system);
  }
  turns.insert(turns.end(), prompt.turns().begin(), prompt.turns().end());
  return turns;
}

absl::StatusOr<std::string> CellFactory::Canonical(const std::string& plan) {
  auto found = canonical_.find(plan);
  if (found != canonical_.end()) return found->second;
  PLUMB_ASSIGN_OR_RETURN(std::string canonical,
                         CanonicalizePlan(plan, context_.model, context_.study.paper_quirks()));
  return canonical_[plan] = canonical;
}

absl::StatusOr<PlannedCell> CellFactory::Generate(const v1::Prompt& prompt, const std::string& plan,
                                                  uint64_t jitter_seed,
                                                  const std::string& condition) {
  PLUMB_ASSIGN_OR_RETURN(std::string canonical, Canonical(plan));
  PlannedCell cell;
  cell.spec.set_kind(v1::CELL_KIND_GENERATE);
  cell.spec.set_model_digest(context_.model.model_digest());
  for (v1::ChatTurn& turn : TurnsOf(context_.study, prompt)) *cell.spec.add_turns() = turn;
  cell.spec.set_plan(canonical);
  *cell.spec.mutable_decoding() = context_.study.decoding();
  cell.spec.mutable_decoding()->set_stop_on_verdict(StopOnVerdict(context_));
  cell.spec.set_jitter_seed(jitter_seed);
  cell.spec.set_numerics_class_id(context_.numerics.id());
  cell.key = CellKey(cell.spec);
  cell.prompt_id = prompt.id();
  cell.prompt_set = prompt.prompt_set();
  cell.condition = condition;
  return cell;
}

absl::StatusOr<PlannedCell> CellFactory::Score(const std::string& plan,
                                               const std::string& condition) {
  PLUMB_ASSIGN_OR_RETURN(std::string canonical,
                         ReadAsStored(plan, context_.model, context_.study.paper_quirks()));
  PlannedCell cell;
  cell.spec.set_kind(v1::CELL_KIND_SCORE);
  cell.spec.set_model_digest(context_.model.model_digest());
  v1::ChatTurn* turn = cell.spec.add_turns();
  turn->set_role(v1::ROLE_USER);
  turn->set_text(context_.utility_text);
  cell.spec.set_plan(canonical);
  cell.spec.mutable_decoding()->set_raw(true);
  cell.spec.set_numerics_class_id(context_.numerics.id());
  cell.spec.set_score_from_token(1);
  ScoreWindow window = context_.study.policy() == v1::POLICY_PAPER ? kPublishedWindow : kOwnWindow;
  if (context_.model.max_context() > 0) {
    window.tokens = std::min(window.tokens, context_.model.max_context());
    window.stride = std::min(window.stride, (3 * window.tokens + 3) / 4);
  }
  cell.spec.set_score_window(static_cast<uint32_t>(window.tokens));
  cell.spec.set_score_stride(static_cast<uint32_t>(window.stride));
  cell.key = CellKey(cell.spec);
  cell.prompt_id = "utility text";
  cell.prompt_set = "utility text";
  cell.condition = condition;
  return cell;
}

absl::Status CellFactory::AddCells(const Condition& condition, StageNeeds* needs) {
  for (const v1::Prompt* prompt : condition.prompts) {
    PLUMB_ASSIGN_OR_RETURN(
        PlannedCell cell, Generate(*prompt, condition.plan, condition.jitter_seed, condition.name));
    needs->cells.push_back(std::move(cell));
  }
  return absl::OkStatus();
}

}  // namespace plumbline
