#include "services/coordinator/housekeeper.h"

#include <algorithm>
#include <map>
#include <string>

#include "services/common/logging.h"

namespace plumbline {
namespace {

constexpr absl::Duration kPeriod = absl::Seconds(2);
constexpr int kCounted = 10000;  // experiments in the gauge by state

const std::map<v1::ExperimentState, const char*>& StateLabels() {
  static const auto* const labels = new std::map<v1::ExperimentState, const char*>{
      {v1::EXPERIMENT_STATE_PENDING, "pending"}, {v1::EXPERIMENT_STATE_RUNNING, "running"},
      {v1::EXPERIMENT_STATE_WAITING, "waiting"}, {v1::EXPERIMENT_STATE_SUCCEEDED, "succeeded"},
      {v1::EXPERIMENT_STATE_FAILED, "failed"},   {v1::EXPERIMENT_STATE_CANCELLED, "cancelled"}};
  return *labels;
}

}  // namespace

void Housekeeper::Round() {
  const absl::Time now = clock_->Now();
  if (now < next_round_) return;
  next_round_ = now + kPeriod;
  if (absl::Status status = leases_->ExpireLeases(); !status.ok()) {
    spdlog::error("expiring leases: {}", status.ToString());
  }
  PurgeOld();
  if (metrics_ != nullptr) SetGauges();
}

void Housekeeper::PurgeOld() {
  if (retain_texts_ == absl::ZeroDuration()) return;
  const auto ids = store_->ExperimentsToPurge(clock_->Now() - retain_texts_);
  if (!ids.ok()) return;
  for (const std::string& id : *ids) {
    const auto purged = store_->PurgeTexts(id);
    if (!purged.ok()) {
      spdlog::error("purging {}: {}", id, purged.status().ToString());
      continue;
    }
    spdlog::info("experiment {}: {} texts purged, their time is over", id, purged->texts_removed);
    for (const std::string& capture : purged->captures) {
      const absl::Status deleted = peers_->DeleteCapture(capture);
      if (!deleted.ok()) spdlog::error("capture {}: {}", capture, deleted.ToString());
    }
  }
}

void Housekeeper::SetGauges() {
  const auto experiments = store_->ListExperiments(0, kCounted);
  if (!experiments.ok()) return;
  std::map<v1::ExperimentState, int> states;
  uint64_t pending = 0;
  uint64_t leased = 0;
  uint64_t done = 0;
  uint64_t poisoned = 0;
  for (const ExperimentRecord& experiment : *experiments) {
    ++states[experiment.state];
    if (experiment.ended != absl::InfinitePast()) continue;
    const auto counts = store_->CountStages(experiment.id);
    const auto running = store_->CountLeasedCells(experiment.id);
    if (!counts.ok() || !running.ok()) return;
    leased += *running;
    for (const StageCount& count : *counts) {
      pending += count.total - count.stored - count.poisoned;
      done += count.stored;
      poisoned += count.poisoned;
    }
  }
  for (const auto& [state, label] : StateLabels()) {
    metrics_->Set(metric::kExperiments, {label}, states[state]);
  }
  metrics_->Set(metric::kCells, {"pending"},
                static_cast<double>(pending - std::min(leased, pending)));
  metrics_->Set(metric::kCells, {"leased"}, static_cast<double>(leased));
  metrics_->Set(metric::kCells, {"done"}, static_cast<double>(done));
  metrics_->Set(metric::kCells, {"poisoned"}, static_cast<double>(poisoned));
}

}  // namespace plumbline
