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

}  // namespace

absl::StatusOr<v1::Experiment> ViewOf(Store* store, const StudyLogic& logic, Clock* clock,
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
  if (record.state != v1::EXPERIMENT_STATE_RUNNING) return out;
  // `updated` is when this stage began, or when the study last went on after a wait within it.
  const absl::Time now = clock->Now();
  const absl::Time since = std::max(record.updated, now - kRateWindow);
  PLUMB_ASSIGN_OR_RETURN(const uint64_t recent,
                         store->CountResultsSince(record.id, record.stage_index, since));
  if (recent < kFewestForARate || now <= since) return out;
  const double rate = static_cast<double>(recent) / absl::ToDoubleSeconds(now - since);
  out.set_cells_per_second(rate);
  out.set_eta_seconds(static_cast<double>(left) / rate);
  return out;
}

}  // namespace plumbline
