// The class behind OpenSqliteStore; its methods are defined in the files of their tables.
#pragma once

#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <vector>

#include "services/store/sqlite/database.h"
#include "services/store/sqlite/lock_file.h"
#include "services/store/store.h"

namespace plumbline {

class SqliteStore final : public Store {
 public:
  SqliteStore(std::unique_ptr<LockFile> lock, std::unique_ptr<Database> db)
      : lock_(std::move(lock)), db_(std::move(db)) {}

  // ---- experiments ----
  absl::StatusOr<ExperimentRecord> CreateExperiment(const NewExperiment& experiment) override;
  absl::StatusOr<ExperimentRecord> GetExperiment(const std::string& id) override;
  absl::StatusOr<std::vector<ExperimentRecord>> ListExperiments(int64_t before_number,
                                                                int limit) override;
  absl::StatusOr<std::vector<ExperimentRecord>> ActiveExperiments() override;
  absl::StatusOr<ExperimentPrompts> GetPrompts(const std::string& id) override;
  absl::Status BindExperiment(const std::string& id, const v1::ModelInfo& model,
                              const v1::NumericsClass& numerics, const std::string& judge_version,
                              const v1::Report& report, absl::Time now) override;
  absl::Status SetState(const std::string& id, v1::ExperimentState state,
                        const std::string& message, absl::Time now) override;
  absl::Status CancelExperiment(const std::string& id, absl::Time now) override;
  absl::Status ResumeExperiment(const std::string& id, absl::Time now) override;
  absl::Status ConcludeStage(const std::string& id, int stage_index, const v1::Report& report,
                             const std::string& next_stage, absl::Time now) override;
  absl::StatusOr<v1::Report> GetReport(const std::string& id) override;

  // ---- cells ----
  absl::Status AddCells(const std::string& experiment_id, int stage_index, const std::string& stage,
                        const std::vector<CellMember>& members) override;
  absl::StatusOr<std::vector<StageCount>> CountStages(const std::string& experiment_id) override;
  absl::StatusOr<bool> StageHasWork(const std::string& experiment_id, int stage_index) override;
  absl::StatusOr<std::vector<FinishedCell>> FinishedCells(const std::string& experiment_id,
                                                          int stage_index) override;
  absl::StatusOr<std::vector<ResultRow>> ListResults(const std::string& experiment_id,
                                                     const std::string& after_key,
                                                     const std::string& after_condition, int limit,
                                                     bool with_texts) override;
  absl::StatusOr<ExperimentTotals> GetTotals(const std::string& experiment_id) override;
  absl::StatusOr<uint64_t> CountResultsSince(const std::string& experiment_id, int stage_index,
                                             absl::Time since) override;

  // ---- verdicts ----
  absl::StatusOr<std::vector<UnjudgedCell>> UnjudgedCells(const std::string& judge,
                                                          const std::string& judge_version,
                                                          int limit) override;
  absl::StatusOr<v1::Verdict> FindVerdict(const std::string& verdict_key) override;
  absl::Status PutVerdicts(const std::vector<NewVerdict>& verdicts, bool drop_texts) override;

  // ---- leases ----
  absl::StatusOr<std::vector<LeaseRecord>> LeasesOfWorker(const std::string& worker_id) override;
  absl::StatusOr<std::vector<LeaseRecord>> ExpiredLeases(absl::Time now) override;
  absl::StatusOr<std::vector<OpenCell>> OpenCells(const std::string& experiment_id,
                                                  const std::string& model_digest,
                                                  const std::string& numerics_class_id,
                                                  absl::Time now, int limit) override;
  absl::StatusOr<uint64_t> CountLeasedCells(const std::string& experiment_id) override;
  absl::StatusOr<std::vector<std::string>> WantedAudits(const std::string& worker_id,
                                                        const std::string& model_digest,
                                                        const std::string& numerics_class_id,
                                                        int limit) override;
  absl::Status GrantLease(const LeaseRecord& lease) override;
  absl::Status RenewLease(const std::string& lease_id, absl::Time expires, int resends) override;
  absl::Status EndLease(const std::string& lease_id, const WorkFailure& failure) override;
  absl::StatusOr<std::vector<v1::LeasedCell>> CellsOfLease(const std::string& lease_id) override;

  // ---- results ----
  absl::StatusOr<std::vector<PutResultOutcome>> PutResults(const std::string& worker_id,
                                                           const std::string& lease_id,
                                                           const std::vector<NewResult>& results,
                                                           absl::Time now) override;
  absl::StatusOr<FailOutcome> FailCell(const std::string& lease_id, const std::string& cell_key,
                                       const WorkFailure& failure) override;

  // ---- captures ----
  absl::Status AddCapture(const std::string& experiment_id, int stage_index,
                          const v1::CaptureTask& task) override;
  absl::StatusOr<CaptureRecord> GetCapture(const std::string& capture_id) override;
  absl::StatusOr<std::vector<v1::CaptureTask>> OpenCaptures(const std::string& model_digest,
                                                            const std::string& numerics_class_id,
                                                            absl::Time now, int limit) override;
  absl::Status PutCapture(const std::string& capture_id, const std::string& digest,
                          uint64_t tokens) override;
  absl::Status ReopenCapture(const std::string& capture_id, const std::string& reason) override;
  absl::StatusOr<FailOutcome> FailCapture(const std::string& lease_id,
                                          const std::string& capture_id,
                                          const WorkFailure& failure) override;

  // ---- workers ----
  absl::Status PutIncarnation(const Incarnation& incarnation) override;
  absl::StatusOr<std::vector<QuarantinedWorker>> Quarantined() override;

  // ---- purge ----
  absl::StatusOr<PurgeOutcome> PurgeTexts(const std::string& id) override;
  absl::StatusOr<PurgeOutcome> PurgeExperiment(const std::string& id) override;
  absl::StatusOr<std::vector<std::string>> ExperimentsToPurge(absl::Time ended_before) override;

 private:
  // The caller holds mutex_ and, where something is written, a transaction.
  absl::StatusOr<ExperimentRecord> ReadExperiment(const std::string& id);
  absl::Status RequireActive(const std::string& id, int stage_index);
  absl::Status RequireStageAhead(const std::string& id, int stage_index);  // the open one counts
  absl::Status AddCell(const std::string& experiment_id, int stage_index, const std::string& stage,
                       const CellMember& member);
  absl::StatusOr<LeaseRecord> ReadLease(Query& row);
  absl::Status ReadLeaseCells(LeaseRecord* lease);
  absl::Status GrantCell(const LeaseRecord& lease, const std::string& key, int64_t position);
  // The statements of a table whose rows go out on leases: (key) -> state, attempts, and (key,
  // state, attempts, not_before_us, reason).
  struct LeasedWork {
    const char* select;
    const char* update;
  };
  absl::StatusOr<FailOutcome> FailLeased(const LeasedWork& work, const std::string& key,
                                         const WorkFailure& failure);
  absl::StatusOr<FailOutcome> FailLeasedCell(const std::string& key, const WorkFailure& failure);
  absl::StatusOr<FailOutcome> FailLeasedCapture(const std::string& capture_id,
                                                const WorkFailure& failure);
  absl::Status EndLeaseLocked(const LeaseRecord& lease, const WorkFailure& failure);
  absl::Status EndLeasesOfWorker(const std::string& worker_id, const std::string& reason);
  absl::Status DeleteEmptyLeases();
  absl::StatusOr<PutResultOutcome> PutResult(const std::string& worker_id,
                                             const std::string& lease_id, const NewResult& result,
                                             absl::Time now);
  absl::Status StoreFirst(const std::string& worker_id, const NewResult& result, absl::Time now);
  absl::Status RecordViolation(const std::string& cell_key, const std::string& first_worker,
                               const std::string& first_digest, const std::string& second_worker,
                               const std::string& second_digest, absl::Time now);
  absl::StatusOr<PurgeOutcome> RemoveTexts(const std::string& id);
  absl::Status RemoveAnswers(const std::string& id);
  absl::Status ReopenPurgedCell(const std::string& cell_key);

  // Of an experiment's first stages, which are concluded: they change no more, and counting their
  // cells again for each report of a few others would take longer than running those.
  struct ConcludedCounts {
    int64_t stages = 0;
    std::vector<StageCount> counts;
  };

  const std::unique_ptr<LockFile> lock_;
  std::mutex mutex_;
  const std::unique_ptr<Database> db_;                // guarded by mutex_
  std::map<std::string, ConcludedCounts> concluded_;  // guarded by mutex_; by experiment
};

inline int64_t ToMicros(absl::Time time) {
  return time == absl::InfinitePast() ? 0 : absl::ToUnixMicros(time);
}
inline absl::Time FromMicros(int64_t micros) {
  return micros == 0 ? absl::InfinitePast() : absl::FromUnixMicros(micros);
}

}  // namespace plumbline
