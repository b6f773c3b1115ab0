#include "services/coordinator/experiment_view.h"

#include <algorithm>

#include "services/common/status_macros.h"

namespace plumbline {
namespace {

// Long against one answer of a slow model, short against a stage.
constexpr absl::Duration kRateWindow = absl::Minutes(5);
constexpr uint64_t kFewestForARate = 5;

void SetTime(absl::Time time, google::protobuf::Timestamp* out) {
  const int64_t seconds = absl::ToUnixSeconds(time);
  out->set_seconds(seconds);
  out->set_nanos(
      static_cast<int32_t>(absl::ToInt64Nanoseconds(time - absl::FromUnixSeconds(seconds))));
}

bool Ended(const ExperimentRecord& record) { return record.ended != absl::InfinitePast(); }

absl::Status AddStages(Store* store, const StudyLogic& logic, const ExperimentRecord& record,
                       v1::Experiment* out, uint64_t* left) {
  PLUMB_ASSIGN_OR_RETURN(const std::vector<StageCount> counts, store->CountStages(record.id));
  const auto stages = logic.Stages(record.study);
  for (size_t i = 0; i < stages.size(); ++i) {
    v1::StageProgress* progress = out->add_stages();
    progress->set_stage(stages[i]->name());
    progress->set_finished(static_cast<int>(i) < record.stage_index);
  }
  for (const StageCount& count : counts) {
    if (count.stage_index >= out->stages_size()) continue;
    v1::StageProgress* progress = out->mutable_stages(count.stage_index);
    progress->set_cells_total(count.total);
    progress->set_cells_done(count.finished);
    progress->set_cells_shared(count.shared);
    out->set_cells_poisoned(out->cells_poisoned() + count.poisoned);
    if (count.stage_index == record.stage_index) {
      *left = count.total - count.stored - count.poisoned;
    }
  }
  return absl::OkStatus();
}

// `left`: cells of the stage without a result.
absl::Status AddRate(Store* store, const ModelDirectory& directory, absl::Time now,
                     const ExperimentRecord& record, uint64_t left, v1::Experiment* out) {
  // `updated` is when this stage began, or when the study last went on after a wait within it.
  const bool whole = record.updated >= now - kRateWindow;
  const absl::Time since = whole ? record.updated : now - kRateWindow;
  PLUMB_ASSIGN_OR_RETURN(const uint64_t recent,
                         store->CountResultsSince(record.id, record.stage_index, since));
  if (recent < kFewestForARate || now <= since) return absl::OkStatus();
  const double seconds = absl::ToDoubleSeconds(now - since);
  out->set_cells_per_second(static_cast<double>(recent) / seconds);
  // Cells run side by side, so those under way are half done on average. None was when the stage
  // began; in the middle of one as many were half done then as are now.
  PLUMB_ASSIGN_OR_RETURN(const uint64_t leased, store->CountLeasedCells(record.id));
  const uint64_t at_once = directory.CellsAtOnce(record.model.model_digest(), record.numerics.id());
  const double halves = static_cast<double>(std::min({leased, at_once, left})) / 2;
  const double done = static_cast<double>(recent) + (whole ? halves : 0);
  out->set_eta_seconds((static_cast<double>(left) - halves) * seconds / done);
  return absl::OkStatus();
}

}  // namespace

absl::StatusOr<v1::Experiment> ViewOf(Store* store, const StudyLogic& logic,
                                      const ModelDirectory& directory, Clock* clock,
                                      const ExperimentRecord& record) {
  v1::Experiment out;
  out.set_id(record.id);
  out.set_request_id(record.request_id);
  *out.mutable_study() = record.study;
  out.mutable_study()->clear_utility_text();
  out.set_state(record.state);
  out.set_stage(record.stage);
  out.set_message(record.message);
  SetTime(record.created, out.mutable_created());
  SetTime(record.updated, out.mutable_updated());
  if (Ended(record)) SetTime(record.ended, out.mutable_ended());
  out.set_invariance_violations(record.violations);
  uint64_t left = 0;
  PLUMB_RETURN_IF_ERROR(AddStages(store, logic, record, &out, &left));
  if (!record.bound) return out;
  *out.mutable_model() = record.model;
  *out.mutable_numerics() = record.numerics;
  if (Ended(record)) return out;
  if (record.state == v1::EXPERIMENT_STATE_RUNNING) {
    PLUMB_RETURN_IF_ERROR(AddRate(store, directory, clock->Now(), record, left, &out));
  }
  return out;
}

}  // namespace plumbline
