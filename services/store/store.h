// Everything the coordinator must remember. Each method is one transaction: it happens whole or not
// at all, and what it returned OK for survives a kill of the process.
//
//   PLUMB_ASSIGN_OR_RETURN(auto store, OpenSqliteStore({.path = "data/plumbline.sqlite"}));
//   PLUMB_RETURN_IF_ERROR(store->AddCells("exp-1", 0, "baseline", members));
//
// Codes: NotFound (unknown id), AlreadyExists, Aborted (another writer was first),
// ResourceExhausted (the disk is full: free some and go on, nothing stored is lost), DataLoss (the
// file is damaged), Unavailable (try again). Thread safety: every method may be called from any
// thread.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "absl/time/time.h"
#include "services/store/records.h"

namespace plumbline {

class Store {
 public:
  virtual ~Store() = default;

  // ---- experiments ----
  // The experiment of this request_id. AlreadyExists when it was made from another study.
  virtual absl::StatusOr<ExperimentRecord> CreateExperiment(const NewExperiment& experiment) = 0;
  virtual absl::StatusOr<ExperimentRecord> GetExperiment(const std::string& id) = 0;
  // Newest first, numbers below `before_number` (0 = from the newest).
  virtual absl::StatusOr<std::vector<ExperimentRecord>> ListExperiments(int64_t before_number,
                                                                        int limit) = 0;
  // Pending, running and waiting ones, oldest first.
  virtual absl::StatusOr<std::vector<ExperimentRecord>> ActiveExperiments() = 0;
  virtual absl::StatusOr<ExperimentPrompts> GetPrompts(const std::string& id) = 0;
  // Pins what a study was waiting for and starts its report. Aborted when it is bound already.
  virtual absl::Status BindExperiment(const std::string& id, const v1::ModelInfo& model,
                                      const v1::NumericsClass& numerics,
                                      const std::string& judge_version, const v1::Report& report,
                                      absl::Time now) = 0;
  // Changes an active experiment's state and message. Aborted when it has ended (a cancel won).
  virtual absl::Status SetState(const std::string& id, v1::ExperimentState state,
                                const std::string& message, absl::Time now) = 0;
  // Cancelled: leases of cells that no other active experiment needs are taken back. OK when ended.
  virtual absl::Status CancelExperiment(const std::string& id, absl::Time now) = 0;
  // Back to pending; poisoned cells and captures of the open stage get their attempts back. OK when
  // active. FailedPrecondition when it succeeded or its prompts were purged.
  virtual absl::Status ResumeExperiment(const std::string& id, absl::Time now) = 0;
  // The report so far with the next stage's index, in one step; an empty next stage ends the
  // experiment as succeeded. Aborted unless the experiment is active and at `stage_index`.
  virtual absl::Status ConcludeStage(const std::string& id, int stage_index,
                                     const v1::Report& report, const std::string& next_stage,
                                     absl::Time now) = 0;
  virtual absl::StatusOr<v1::Report> GetReport(const std::string& id) = 0;

  // ---- cells ----
  // Adds the cells that are not there and the memberships that are not there. Asking twice is once.
  // Aborted unless the experiment is active and at `stage_index` or before it.
  virtual absl::Status AddCells(const std::string& experiment_id, int stage_index,
                                const std::string& stage,
                                const std::vector<CellMember>& members) = 0;
  virtual absl::StatusOr<std::vector<StageCount>> CountStages(const std::string& experiment_id) = 0;
  // Whether some cell of the stage has neither a result nor been set aside. Quick while there is
  // one among the last; counting is not.
  virtual absl::StatusOr<bool> StageHasWork(const std::string& experiment_id, int stage_index) = 0;
  // Finished cells of one stage, each once, by key.
  virtual absl::StatusOr<std::vector<FinishedCell>> FinishedCells(const std::string& experiment_id,
                                                                  int stage_index) = 0;
  // Rows in the order of (key, condition), after the given pair. Texts only when asked for.
  virtual absl::StatusOr<std::vector<ResultRow>> ListResults(const std::string& experiment_id,
                                                             const std::string& after_key,
                                                             const std::string& after_condition,
                                                             int limit, bool with_texts) = 0;
  virtual absl::StatusOr<ExperimentTotals> GetTotals(const std::string& experiment_id) = 0;
  // Results stored after `since` for cells of the experiment's stage that it did not share.
  virtual absl::StatusOr<uint64_t> CountResultsSince(const std::string& experiment_id,
                                                     int stage_index, absl::Time since) = 0;

  // ---- verdicts ----
  // Stored GENERATE cells of active experiments that use this judge and version and have no
  // verdict.
  virtual absl::StatusOr<std::vector<UnjudgedCell>> UnjudgedCells(const std::string& judge,
                                                                  const std::string& judge_version,
                                                                  int limit) = 0;
  // A verdict that equal answers got before. NotFound.
  virtual absl::StatusOr<v1::Verdict> FindVerdict(const std::string& verdict_key) = 0;
  // The first verdict of a cell by a judge and version stays. drop_texts removes the answers'
  // texts.
  virtual absl::Status PutVerdicts(const std::vector<NewVerdict>& verdicts, bool drop_texts) = 0;

  // ---- leases ----
  virtual absl::StatusOr<std::vector<LeaseRecord>> LeasesOfWorker(const std::string& worker_id) = 0;
  virtual absl::StatusOr<std::vector<LeaseRecord>> ExpiredLeases(absl::Time now) = 0;
  // Open cells of the experiment for a worker with this model and numerics class, in stage order.
  virtual absl::StatusOr<std::vector<OpenCell>> OpenCells(const std::string& experiment_id,
                                                          const std::string& model_digest,
                                                          const std::string& numerics_class_id,
                                                          absl::Time now, int limit) = 0;
  virtual absl::StatusOr<uint64_t> CountLeasedCells(const std::string& experiment_id) = 0;
  // Stored cells to run once more, reported by another worker than this one.
  virtual absl::StatusOr<std::vector<std::string>> WantedAudits(
      const std::string& worker_id, const std::string& model_digest,
      const std::string& numerics_class_id, int limit) = 0;
  // Open cells become leased and count an attempt. Aborted when one of them is not open (audit: not
  // wanted) any more.
  virtual absl::Status GrantLease(const LeaseRecord& lease) = 0;
  virtual absl::Status RenewLease(const std::string& lease_id, absl::Time expires, int resends) = 0;
  // The lease ends; what it still held fails with `failure`. OK when it is gone already.
  virtual absl::Status EndLease(const std::string& lease_id, const WorkFailure& failure) = 0;
  // Cells of a lease with their specs and attempts, in lease order, texts included.
  virtual absl::StatusOr<std::vector<v1::LeasedCell>> CellsOfLease(const std::string& lease_id) = 0;

  // ---- results ----
  // First write wins. A stored cell leaves every lease in the same transaction. A result that
  // differs from the stored one is kept as a violation, both workers are quarantined and the
  // experiments of the cell are flagged, all in the same transaction.
  virtual absl::StatusOr<std::vector<PutResultOutcome>> PutResults(
      const std::string& worker_id, const std::string& lease_id,
      const std::vector<NewResult>& results, absl::Time now) = 0;
  // Counts only for the lease that holds the cell; a late failure of a lost lease changes nothing.
  virtual absl::StatusOr<FailOutcome> FailCell(const std::string& lease_id,
                                               const std::string& cell_key,
                                               const WorkFailure& failure) = 0;

  // ---- captures ----
  // Asking twice is once. One that a purge has taken away is open again.
  virtual absl::Status AddCapture(const std::string& experiment_id, int stage_index,
                                  const v1::CaptureTask& task) = 0;
  virtual absl::StatusOr<CaptureRecord> GetCapture(const std::string& capture_id) = 0;
  // Open captures of active experiments for this model and class.
  virtual absl::StatusOr<std::vector<v1::CaptureTask>> OpenCaptures(
      const std::string& model_digest, const std::string& numerics_class_id, absl::Time now,
      int limit) = 0;
  virtual absl::Status PutCapture(const std::string& capture_id, const std::string& digest,
                                  uint64_t tokens) = 0;
  // A stored capture that the capture service no longer has: open again, with all its attempts.
  // Nothing changes when it is not stored. NotFound.
  virtual absl::Status ReopenCapture(const std::string& capture_id, const std::string& reason) = 0;
  virtual absl::StatusOr<FailOutcome> FailCapture(const std::string& lease_id,
                                                  const std::string& capture_id,
                                                  const WorkFailure& failure) = 0;

  // ---- workers ----
  // Kept for the provenance of its results. The first word counts; asking twice is once.
  virtual absl::Status PutIncarnation(const Incarnation& incarnation) = 0;
  virtual absl::StatusOr<std::vector<QuarantinedWorker>> Quarantined() = 0;

  // ---- purge ----
  // Prompts and answers of the experiment (texts, token ids, first-token probabilities, digests of
  // them), except where another experiment still holds the cell. Verdicts and counts stay.
  virtual absl::StatusOr<PurgeOutcome> PurgeTexts(const std::string& id) = 0;
  // The experiment, and the cells that no other experiment has.
  virtual absl::StatusOr<PurgeOutcome> PurgeExperiment(const std::string& id) = 0;
  // Ended before `ended_before`, texts still there.
  virtual absl::StatusOr<std::vector<std::string>> ExperimentsToPurge(absl::Time ended_before) = 0;
};

}  // namespace plumbline
