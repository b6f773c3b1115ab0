// A Store that passes everything on; a subclass decides whether the process is still alive.
#pragma once

#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "services/common/status_macros.h"
#include "services/store/store.h"

namespace plumbline::testing {

class ForwardingStore : public Store {
 public:
  explicit ForwardingStore(std::unique_ptr<Store> inner) : inner_(std::move(inner)) {}

  absl::StatusOr<ExperimentRecord> CreateExperiment(const NewExperiment& experiment) override {
    PLUMB_RETURN_IF_ERROR(BeforeWrite());
    return inner_->CreateExperiment(experiment);
  }
  absl::StatusOr<ExperimentRecord> GetExperiment(const std::string& id) override {
    PLUMB_RETURN_IF_ERROR(BeforeRead());
    return inner_->GetExperiment(id);
  }
  absl::StatusOr<std::vector<ExperimentRecord>> ListExperiments(int64_t before_number,
                                                                int limit) override {
    PLUMB_RETURN_IF_ERROR(BeforeRead());
    return inner_->ListExperiments(before_number, limit);
  }
  absl::StatusOr<std::vector<ExperimentRecord>> ActiveExperiments() override {
    PLUMB_RETURN_IF_ERROR(BeforeRead());
    return inner_->ActiveExperiments();
  }
  absl::StatusOr<ExperimentPrompts> GetPrompts(const std::string& id) override {
    PLUMB_RETURN_IF_ERROR(BeforeRead());
    return inner_->GetPrompts(id);
  }
  absl::Status BindExperiment(const std::string& id, const v1::ModelInfo& model,
                              const v1::NumericsClass& numerics, const std::string& judge_version,
                              const v1::Report& report, absl::Time now) override {
    PLUMB_RETURN_IF_ERROR(BeforeWrite());
    return inner_->BindExperiment(id, model, numerics, judge_version, report, now);
  }
  absl::Status SetState(const std::string& id, v1::ExperimentState state,
                        const std::string& message, absl::Time now) override {
    PLUMB_RETURN_IF_ERROR(BeforeWrite());
    return inner_->SetState(id, state, message, now);
  }
  absl::Status CancelExperiment(const std::string& id, absl::Time now) override {
    PLUMB_RETURN_IF_ERROR(BeforeWrite());
    return inner_->CancelExperiment(id, now);
  }
  absl::Status ResumeExperiment(const std::string& id, absl::Time now) override {
    PLUMB_RETURN_IF_ERROR(BeforeWrite());
    return inner_->ResumeExperiment(id, now);
  }
  absl::Status ConcludeStage(const std::string& id, int stage_index, const v1::Report& report,
                             const std::string& next_stage, absl::Time now) override {
    PLUMB_RETURN_IF_ERROR(BeforeWrite());
    return inner_->ConcludeStage(id, stage_index, report, next_stage, now);
  }
  absl::StatusOr<v1::Report> GetReport(const std::string& id) override {
    PLUMB_RETURN_IF_ERROR(BeforeRead());
    return inner_->GetReport(id);
  }
  absl::Status AddCells(const std::string& experiment_id, int stage_index, const std::string& stage,
                        const std::vector<CellMember>& members) override {
    PLUMB_RETURN_IF_ERROR(BeforeWrite());
    return inner_->AddCells(experiment_id, stage_index, stage, members);
  }
  absl::StatusOr<bool> StageHasWork(const std::string& experiment_id, int stage_index) override {
    PLUMB_RETURN_IF_ERROR(BeforeRead());
    return inner_->StageHasWork(experiment_id, stage_index);
  }
  absl::StatusOr<std::vector<StageCount>> CountStages(const std::string& experiment_id) override {
    PLUMB_RETURN_IF_ERROR(BeforeRead());
    return inner_->CountStages(experiment_id);
  }
  absl::StatusOr<std::vector<FinishedCell>> FinishedCells(const std::string& experiment_id,
                                                          int stage_index) override {
    PLUMB_RETURN_IF_ERROR(BeforeRead());
    return inner_->FinishedCells(experiment_id, stage_index);
  }
  absl::StatusOr<std::vector<ResultRow>> ListResults(const std::string& experiment_id,
                                                     const std::string& after_key,
                                                     const std::string& after_condition, int limit,
                                                     bool with_texts) override {
    PLUMB_RETURN_IF_ERROR(BeforeRead());
    return inner_->ListResults(experiment_id, after_key, after_condition, limit, with_texts);
  }
  absl::StatusOr<ExperimentTotals> GetTotals(const std::string& experiment_id) override {
    PLUMB_RETURN_IF_ERROR(BeforeRead());
    return inner_->GetTotals(experiment_id);
  }
  absl::StatusOr<uint64_t> CountResultsSince(const std::string& experiment_id, int stage_index,
                                             absl::Time since) override {
    PLUMB_RETURN_IF_ERROR(BeforeRead());
    return inner_->CountResultsSince(experiment_id, stage_index, since);
  }
  absl::StatusOr<std::vector<UnjudgedCell>> UnjudgedCells(const std::string& judge,
                                                          const std::string& judge_version,
                                                          int limit) override {
    PLUMB_RETURN_IF_ERROR(BeforeRead());
    return inner_->UnjudgedCells(judge, judge_version, limit);
  }
  absl::StatusOr<v1::Verdict> FindVerdict(const std::string& verdict_key) override {
    PLUMB_RETURN_IF_ERROR(BeforeRead());
    return inner_->FindVerdict(verdict_key);
  }
  absl::Status PutVerdicts(const std::vector<NewVerdict>& verdicts, bool drop_texts) override {
    PLUMB_RETURN_IF_ERROR(BeforeWrite());
    return inner_->PutVerdicts(verdicts, drop_texts);
  }
  absl::StatusOr<std::vector<LeaseRecord>> LeasesOfWorker(const std::string& worker_id) override {
    PLUMB_RETURN_IF_ERROR(BeforeRead());
    return inner_->LeasesOfWorker(worker_id);
  }
  absl::StatusOr<std::vector<LeaseRecord>> ExpiredLeases(absl::Time now) override {
    PLUMB_RETURN_IF_ERROR(BeforeRead());
    return inner_->ExpiredLeases(now);
  }
  absl::StatusOr<std::vector<OpenCell>> OpenCells(const std::string& experiment_id,
                                                  const std::string& model_digest,
                                                  const std::string& numerics_class_id,
                                                  absl::Time now, int limit) override {
    PLUMB_RETURN_IF_ERROR(BeforeRead());
    return inner_->OpenCells(experiment_id, model_digest, numerics_class_id, now, limit);
  }
  absl::StatusOr<uint64_t> CountLeasedCells(const std::string& experiment_id) override {
    PLUMB_RETURN_IF_ERROR(BeforeRead());
    return inner_->CountLeasedCells(experiment_id);
  }
  absl::StatusOr<std::vector<std::string>> WantedAudits(const std::string& worker_id,
                                                        const std::string& model_digest,
                                                        const std::string& numerics_class_id,
                                                        int limit) override {
    PLUMB_RETURN_IF_ERROR(BeforeRead());
    return inner_->WantedAudits(worker_id, model_digest, numerics_class_id, limit);
  }
  absl::Status GrantLease(const LeaseRecord& lease) override {
    PLUMB_RETURN_IF_ERROR(BeforeWrite());
    return inner_->GrantLease(lease);
  }
  absl::Status RenewLease(const std::string& lease_id, absl::Time expires, int resends) override {
    PLUMB_RETURN_IF_ERROR(BeforeWrite());
    return inner_->RenewLease(lease_id, expires, resends);
  }
  absl::Status EndLease(const std::string& lease_id, const WorkFailure& failure) override {
    PLUMB_RETURN_IF_ERROR(BeforeWrite());
    return inner_->EndLease(lease_id, failure);
  }
  absl::StatusOr<std::vector<v1::LeasedCell>> CellsOfLease(const std::string& lease_id) override {
    PLUMB_RETURN_IF_ERROR(BeforeRead());
    return inner_->CellsOfLease(lease_id);
  }
  absl::Status PutIncarnation(const Incarnation& incarnation) override {
    PLUMB_RETURN_IF_ERROR(BeforeWrite());
    return inner_->PutIncarnation(incarnation);
  }
  absl::StatusOr<std::vector<PutResultOutcome>> PutResults(const std::string& worker_id,
                                                           const std::string& lease_id,
                                                           const std::vector<NewResult>& results,
                                                           absl::Time now) override {
    PLUMB_RETURN_IF_ERROR(BeforeWrite());
    return inner_->PutResults(worker_id, lease_id, results, now);
  }
  absl::StatusOr<FailOutcome> FailCell(const std::string& lease_id, const std::string& cell_key,
                                       const WorkFailure& failure) override {
    PLUMB_RETURN_IF_ERROR(BeforeWrite());
    return inner_->FailCell(lease_id, cell_key, failure);
  }
  absl::Status AddCapture(const std::string& experiment_id, int stage_index,
                          const v1::CaptureTask& task) override {
    PLUMB_RETURN_IF_ERROR(BeforeWrite());
    return inner_->AddCapture(experiment_id, stage_index, task);
  }
  absl::StatusOr<CaptureRecord> GetCapture(const std::string& capture_id) override {
    PLUMB_RETURN_IF_ERROR(BeforeRead());
    return inner_->GetCapture(capture_id);
  }
  absl::StatusOr<std::vector<v1::CaptureTask>> OpenCaptures(const std::string& model_digest,
                                                            const std::string& numerics_class_id,
                                                            absl::Time now, int limit) override {
    PLUMB_RETURN_IF_ERROR(BeforeRead());
    return inner_->OpenCaptures(model_digest, numerics_class_id, now, limit);
  }
  absl::Status PutCapture(const std::string& capture_id, const std::string& digest,
                          uint64_t tokens) override {
    PLUMB_RETURN_IF_ERROR(BeforeWrite());
    return inner_->PutCapture(capture_id, digest, tokens);
  }
  absl::Status ReopenCapture(const std::string& capture_id, const std::string& reason) override {
    PLUMB_RETURN_IF_ERROR(BeforeWrite());
    return inner_->ReopenCapture(capture_id, reason);
  }
  absl::StatusOr<FailOutcome> FailCapture(const std::string& lease_id,
                                          const std::string& capture_id,
                                          const WorkFailure& failure) override {
    PLUMB_RETURN_IF_ERROR(BeforeWrite());
    return inner_->FailCapture(lease_id, capture_id, failure);
  }
  absl::StatusOr<std::vector<QuarantinedWorker>> Quarantined() override {
    PLUMB_RETURN_IF_ERROR(BeforeRead());
    return inner_->Quarantined();
  }
  absl::StatusOr<PurgeOutcome> PurgeTexts(const std::string& id) override {
    PLUMB_RETURN_IF_ERROR(BeforeWrite());
    return inner_->PurgeTexts(id);
  }
  absl::StatusOr<PurgeOutcome> PurgeExperiment(const std::string& id) override {
    PLUMB_RETURN_IF_ERROR(BeforeWrite());
    return inner_->PurgeExperiment(id);
  }
  absl::StatusOr<std::vector<std::string>> ExperimentsToPurge(absl::Time ended_before) override {
    PLUMB_RETURN_IF_ERROR(BeforeRead());
    return inner_->ExperimentsToPurge(ended_before);
  }

 protected:
  virtual absl::Status BeforeRead() { return absl::OkStatus(); }
  virtual absl::Status BeforeWrite() { return absl::OkStatus(); }

 private:
  const std::unique_ptr<Store> inner_;
};

// Dies at its Nth write: that one does not happen, nor anything after it.
class DyingStore final : public ForwardingStore {
 public:
  DyingStore(std::unique_ptr<Store> inner, int writes_to_live, bool* dead)
      : ForwardingStore(std::move(inner)), writes_left_(writes_to_live), dead_(dead) {}

 protected:
  absl::Status BeforeRead() override { return Alive(); }
  absl::Status BeforeWrite() override {
    if (writes_left_-- <= 0) *dead_ = true;
    return Alive();
  }

 private:
  absl::Status Alive() const {
    return *dead_ ? absl::UnavailableError("the process was killed") : absl::OkStatus();
  }

  int writes_left_;
  bool* const dead_;
};

}  // namespace plumbline::testing
