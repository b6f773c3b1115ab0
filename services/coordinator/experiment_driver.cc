#include "services/coordinator/experiment_driver.h"

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "services/common/digest.h"
#include "services/common/figures.h"
#include "services/common/logging.h"
#include "services/common/status_macros.h"
#include "services/coordinator/find_judge.h"

namespace plumbline {
namespace {

// A capture service that loses every capture must not keep a study going in circles.
constexpr int kMostCapturesAgain = 3;

// Cells of one prompt stand together, in the order in which the prompts first appear, so that the
// engine finds equal prefixes in one batch.
std::vector<CellMember> InPromptOrder(const std::vector<PlannedCell>& cells) {
  absl::flat_hash_map<std::string, int64_t> rank;
  std::vector<std::pair<int64_t, const PlannedCell*>> order;
  order.reserve(cells.size());
  for (const PlannedCell& cell : cells) {
    const std::string prompt = absl::StrCat(cell.prompt_set, "\n", cell.prompt_id);
    const auto [it, unused] = rank.emplace(prompt, static_cast<int64_t>(rank.size()));
    order.push_back({it->second, &cell});
  }
  std::stable_sort(order.begin(), order.end(),
                   [](const auto& a, const auto& b) { return a.first < b.first; });
  std::vector<CellMember> members;
  members.reserve(cells.size());
  for (const auto& [unused, cell] : order) {
    CellMember member;
    member.key = cell->key;
    member.spec = cell->spec;
    member.condition = cell->condition;
    member.prompt_id = cell->prompt_id;
    member.prompt_set = cell->prompt_set;
    member.position = static_cast<int64_t>(members.size());
    members.push_back(std::move(member));
  }
  return members;
}

}  // namespace

const JudgedCell* ResultCache::Find(const std::string& cell_key) const {
  const auto it = cells_.find(cell_key);
  return it == cells_.end() ? nullptr : it->second.get();
}

void ResultCache::Add(std::vector<FinishedCell> cells) {
  for (FinishedCell& cell : cells) {
    auto judged = std::make_unique<JudgedCell>();
    judged->result = std::move(cell.result);
    judged->verdict = std::move(cell.verdict);
    judged->poisoned = cell.poisoned;
    judged->poison_reason = std::move(cell.poison_reason);
    // What a conclusion may have pointed at stays.
    cells_.emplace(cell.cell_key, std::move(judged));
  }
}

absl::StatusOr<StudyContext> LoadContext(Store* store, const ExperimentRecord& record) {
  PLUMB_ASSIGN_OR_RETURN(ExperimentPrompts prompts, store->GetPrompts(record.id));
  StudyContext context;
  context.experiment_id = record.id;
  context.study = record.study;
  context.model = record.model;
  context.numerics = record.numerics;
  context.judge_version = record.judge_version;
  context.prompts = std::move(prompts.prompts);
  context.prompt_sets = std::move(prompts.prompt_sets);
  context.utility_text = record.study.utility_text();
  return context;
}

absl::StatusOr<StepOutcome> ExperimentDriver::Step() {
  PLUMB_ASSIGN_OR_RETURN(const ExperimentRecord record, deps_.store->GetExperiment(id_));
  if (record.ended != absl::InfinitePast()) return StepOutcome::kEnded;
  absl::StatusOr<StepOutcome> outcome = StepActive(record);
  // Someone cancelled in between: the next step sees it.
  if (absl::IsAborted(outcome.status())) return StepOutcome::kProgress;
  return outcome;
}

absl::StatusOr<StepOutcome> ExperimentDriver::StepActive(const ExperimentRecord& record) {
  if (!record.bound) return Bind(record);
  if (!loaded_) PLUMB_RETURN_IF_ERROR(Load(record));
  if (planned_stage_ != record.stage_index) return Plan(record);
  return WaitOrConclude(record);
}

absl::StatusOr<StepOutcome> ExperimentDriver::SetState(const ExperimentRecord& record,
                                                       v1::ExperimentState state,
                                                       const std::string& message) {
  if (record.state != state || record.message != message) {
    PLUMB_RETURN_IF_ERROR(deps_.store->SetState(id_, state, message, deps_.clock->Now()));
    spdlog::info("experiment {}: {} {}", id_, v1::ExperimentState_Name(state), message);
    deps_.changed->Notify();
  }
  return state == v1::EXPERIMENT_STATE_FAILED ? StepOutcome::kEnded : StepOutcome::kWaiting;
}

absl::StatusOr<StepOutcome> ExperimentDriver::StopFor(const ExperimentRecord& record,
                                                      const absl::Status& status) {
  const std::string stage =
      record.stage.empty() ? std::string() : absl::StrCat(" (stage ", record.stage, ")");
  if (absl::IsUnavailable(status)) {
    return SetState(record, v1::EXPERIMENT_STATE_WAITING,
                    absl::StrCat("waiting for ", status.message(), stage, "; goes on by itself"));
  }
  return SetState(record, v1::EXPERIMENT_STATE_FAILED,
                  absl::StrCat("failed", stage, ": ", status.ToString()));
}

absl::StatusOr<StepOutcome> ExperimentDriver::Bind(const ExperimentRecord& record) {
  auto model = deps_.directory->Resolve(record.study.model());
  if (absl::IsNotFound(model.status())) {
    return SetState(record, v1::EXPERIMENT_STATE_PENDING,
                    absl::StrCat("waiting for a worker: ", model.status().message(),
                                 "; starts by itself when one has it"));
  }
  if (!model.ok()) return StopFor(record, model.status());
  if (const absl::Status fits = deps_.logic->Fits(record.study, *model); !fits.ok()) {
    return StopFor(record, fits);
  }
  auto numerics = deps_.directory->PickClass(model->model_digest());
  if (!numerics.ok()) {
    return SetState(record, v1::EXPERIMENT_STATE_PENDING, std::string(numerics.status().message()));
  }
  auto card = FindJudge(*deps_.judge, record.study.judge());
  if (!card.ok()) return StopFor(record, card.status());

  v1::Report report;
  report.set_experiment_id(id_);
  *report.mutable_study() = record.study;
  *report.mutable_judge_card() = *card;
  v1::Provenance* provenance = report.mutable_provenance();
  *provenance->mutable_model() = *model;
  *provenance->mutable_numerics() = *numerics;
  provenance->set_judge(card->judge());
  provenance->set_judge_version(card->version());
  provenance->set_coordinator_version(deps_.version);
  provenance->set_config_digest(deps_.config_digest);
  provenance->set_study_digest(record.request_digest);
  PLUMB_ASSIGN_OR_RETURN(const ExperimentPrompts prompts, deps_.store->GetPrompts(id_));
  for (const v1::PromptSetSummary& set : prompts.prompt_sets) *provenance->add_prompt_sets() = set;
  PLUMB_RETURN_IF_ERROR(deps_.store->BindExperiment(id_, *model, *numerics, card->version(), report,
                                                    deps_.clock->Now()));
  spdlog::info("experiment {}: model {} ({}), numerics class {}", id_, model->name(),
               model->model_digest().substr(0, 12), numerics->id().substr(0, 12));
  return StepOutcome::kProgress;
}

absl::Status ExperimentDriver::Load(const ExperimentRecord& record) {
  PLUMB_ASSIGN_OR_RETURN(context_, LoadContext(deps_.store, record));
  PLUMB_ASSIGN_OR_RETURN(report_, deps_.store->GetReport(id_));
  stages_ = deps_.logic->Stages(context_.study);
  for (int stage = 0; stage < record.stage_index; ++stage) {
    PLUMB_ASSIGN_OR_RETURN(std::vector<FinishedCell> cells, deps_.store->FinishedCells(id_, stage));
    results_.Add(std::move(cells));
  }
  loaded_ = true;
  return absl::OkStatus();
}

absl::Status ExperimentDriver::AddNeeds(int stage_index, const StageNeeds& needs) {
  const std::string stage = stages_[static_cast<size_t>(stage_index)]->name();
  PLUMB_RETURN_IF_ERROR(deps_.store->AddCells(id_, stage_index, stage, InPromptOrder(needs.cells)));
  for (const v1::CaptureTask& task : needs.captures) {
    PLUMB_RETURN_IF_ERROR(deps_.store->AddCapture(id_, stage_index, task));
  }
  return absl::OkStatus();
}

absl::StatusOr<StepOutcome> ExperimentDriver::Plan(const ExperimentRecord& record) {
  const auto index = static_cast<size_t>(record.stage_index);
  if (index >= stages_.size()) {
    return SetState(record, v1::EXPERIMENT_STATE_FAILED,
                    absl::StrCat("the study has ", stages_.size(), " stages, stage ", index,
                                 " was wanted: it was started by another version; create it anew"));
  }
  if (const absl::Status same = deps_.logic->SameRules(report_); !same.ok()) {
    return StopFor(record, same);
  }
  const absl::Time begun = deps_.clock->Now();
  auto needs = stages_[index]->Needs(context_, report_, results_);
  if (!needs.ok()) return StopFor(record, needs.status());
  PLUMB_RETURN_IF_ERROR(AddNeeds(record.stage_index, *needs));
  if (stages_[index]->NextMayBegin() && index + 1 < stages_.size()) {
    auto next = stages_[index + 1]->Needs(context_, report_, results_);
    if (!next.ok()) return StopFor(record, next.status());
    PLUMB_RETURN_IF_ERROR(AddNeeds(record.stage_index + 1, *next));
  }
  spdlog::info("experiment {}: stage {} planned in {:.0f} ms: {}, {}", id_, stages_[index]->name(),
               absl::ToDoubleMilliseconds(deps_.clock->Now() - begun),
               CountText(needs->cells.size(), "cell"),
               CountText(needs->captures.size(), "capture"));
  needs_ = *std::move(needs);
  planned_stage_ = record.stage_index;
  captured_again_ = 0;
  PLUMB_RETURN_IF_ERROR(SetState(record, v1::EXPERIMENT_STATE_RUNNING, "").status());
  deps_.changed->Notify();
  return StepOutcome::kProgress;
}

absl::StatusOr<StepOutcome> ExperimentDriver::WaitOrConclude(const ExperimentRecord& record) {
  const bool all_well =
      needs_.captures.empty() && deps_.pump->health().ok() &&
      deps_.directory->CountWorkers(record.model.model_digest(), record.numerics.id()) > 0;
  if (all_well) {
    PLUMB_ASSIGN_OR_RETURN(const bool work, deps_.store->StageHasWork(id_, record.stage_index));
    if (work) return SetState(record, v1::EXPERIMENT_STATE_RUNNING, "");
  }
  PLUMB_ASSIGN_OR_RETURN(const std::vector<StageCount> counts, deps_.store->CountStages(id_));
  StageCount count;
  for (const StageCount& stage : counts) {
    if (stage.stage_index == record.stage_index) count = stage;
  }
  std::vector<CaptureRecord> captures;
  bool recorded = true;
  for (const v1::CaptureTask& task : needs_.captures) {
    PLUMB_ASSIGN_OR_RETURN(CaptureRecord capture, deps_.store->GetCapture(task.capture_id()));
    recorded = recorded && capture.state == WorkState::kStored;
    captures.push_back(std::move(capture));
  }
  if (count.finished == count.total && recorded) return Conclude(record);
  auto why = WhyWaiting(record, count, captures);
  if (!why.ok()) return StopFor(record, why.status());
  if (why->empty()) return SetState(record, v1::EXPERIMENT_STATE_RUNNING, "");
  return StopFor(record, absl::UnavailableError(*why));
}

absl::StatusOr<std::string> ExperimentDriver::WhyWaiting(
    const ExperimentRecord& record, const StageCount& count,
    const std::vector<CaptureRecord>& captures) const {
  const uint64_t unjudged = count.stored + count.poisoned - count.finished;
  const absl::Status judge = deps_.pump->health();
  if (unjudged > 0 && !judge.ok()) {
    if (!absl::IsUnavailable(judge)) return judge;
    return absl::StrCat(judge.message(), "; ", CountText(unjudged, "answer"),
                        unjudged == 1 ? " waits for its verdict" : " wait for their verdict");
  }
  bool work_left = count.stored + count.poisoned < count.total;
  for (const CaptureRecord& capture : captures) {
    if (capture.state == WorkState::kPoisoned) {
      return absl::FailedPreconditionError(
          absl::StrCat("capture ", capture.task.capture_id(), ": ", capture.reason));
    }
    if (capture.state == WorkState::kOpen && !capture.reason.empty()) {
      return absl::StrCat("the capture service: ", capture.reason);
    }
    work_left = work_left || capture.state == WorkState::kOpen;
  }
  if (work_left &&
      deps_.directory->CountWorkers(record.model.model_digest(), record.numerics.id()) == 0) {
    PLUMB_ASSIGN_OR_RETURN(const std::vector<QuarantinedWorker> bad, deps_.store->Quarantined());
    return absl::StrCat("a live worker with model ", record.model.name(), " (",
                        record.model.model_digest().substr(0, 12), ") in numerics class ",
                        record.numerics.id().substr(0, 12), " (", record.numerics.text(), "), ",
                        CountText(bad.size(), "worker"), bad.size() == 1 ? " is" : " are",
                        " quarantined");
  }
  return std::string();
}

absl::StatusOr<StepOutcome> ExperimentDriver::CaptureAgain(const absl::Status& lost) {
  ++captured_again_;
  spdlog::warn("experiment {}: {}; captured again", id_, std::string(lost.message()));
  for (const v1::CaptureTask& task : needs_.captures) {
    PLUMB_RETURN_IF_ERROR(deps_.store->ReopenCapture(
        task.capture_id(), absl::StrCat(lost.message(), "; it is captured again")));
  }
  deps_.changed->Notify();
  return StepOutcome::kProgress;
}

absl::Status ExperimentDriver::SomethingRan() const {
  const JudgedCell* last = nullptr;
  for (const PlannedCell& cell : needs_.cells) {
    last = results_.Find(cell.key);
    if (!last->poisoned) return absl::OkStatus();
  }
  if (last == nullptr) return absl::OkStatus();  // the stage asked for nothing
  return absl::FailedPreconditionError(absl::StrCat(
      needs_.cells.size() == 1 ? "the only cell"
                               : absl::StrCat("every one of ", needs_.cells.size(), " cells"),
      " failed, so there is nothing to conclude from; the last: ", last->poison_reason));
}

absl::StatusOr<StepOutcome> ExperimentDriver::Conclude(const ExperimentRecord& record) {
  const absl::Time begun = deps_.clock->Now();
  PLUMB_ASSIGN_OR_RETURN(std::vector<FinishedCell> cells,
                         deps_.store->FinishedCells(id_, record.stage_index));
  results_.Add(std::move(cells));
  const Stage& stage = *stages_[static_cast<size_t>(record.stage_index)];
  for (const PlannedCell& cell : needs_.cells) {
    if (results_.Find(cell.key) == nullptr) {
      return SetState(record, v1::EXPERIMENT_STATE_FAILED,
                      absl::StrCat("stage ", stage.name(), " lost the result of cell ", cell.key));
    }
  }
  // Nothing holds without a baseline; what else could not be measured the planner tells in its
  // place.
  if (record.stage_index == 0) {
    if (const absl::Status status = SomethingRan(); !status.ok()) return StopFor(record, status);
  }
  v1::Report report = report_;
  if (absl::Status status = stage.Conclude(context_, results_, *deps_.peers, &report);
      !status.ok()) {
    const bool lost = absl::IsNotFound(status) && !needs_.captures.empty();
    if (!lost) return StopFor(record, status);
    if (captured_again_ < kMostCapturesAgain) return CaptureAgain(status);
    return StopFor(record, Annotate(status, absl::StrCat("captured ", captured_again_ + 1,
                                                         " times and lost each time")));
  }
  const auto next = static_cast<size_t>(record.stage_index) + 1;
  const std::string next_name = next < stages_.size() ? stages_[next]->name() : std::string();
  PLUMB_RETURN_IF_ERROR(
      deps_.store->ConcludeStage(id_, record.stage_index, report, next_name, deps_.clock->Now()));
  report_ = std::move(report);
  spdlog::info("experiment {}: stage {} concluded in {:.0f} ms", id_, stage.name(),
               absl::ToDoubleMilliseconds(deps_.clock->Now() - begun));
  if (next_name.empty() && deps_.metrics != nullptr) {
    deps_.metrics->Increment(metric::kVerdictFlips, {},
                             static_cast<double>(report_.target().flips()));
  }
  deps_.changed->Notify();
  return next_name.empty() ? StepOutcome::kEnded : StepOutcome::kProgress;
}

}  // namespace plumbline
