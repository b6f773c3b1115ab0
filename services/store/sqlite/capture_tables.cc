// Captures: tasks that a worker sends to the capture service.
#include "absl/strings/str_cat.h"
#include "services/common/status_macros.h"
#include "services/store/sqlite/sqlite_store_impl.h"

namespace plumbline {

absl::Status SqliteStore::AddCapture(const std::string& experiment_id, int stage_index,
                                     const v1::CaptureTask& task) {
  std::lock_guard<std::mutex> guard(mutex_);
  Transaction transaction(db_.get());
  PLUMB_RETURN_IF_ERROR(transaction.status());
  PLUMB_RETURN_IF_ERROR(RequireStageAhead(experiment_id, stage_index));
  PLUMB_RETURN_IF_ERROR(
      db_->Run("INSERT INTO captures (capture_id, model_digest, numerics_class_id, task) "
               "VALUES (?1, ?2, ?3, ?4) ON CONFLICT (capture_id) DO UPDATE SET "
               "task = excluded.task, state = 0, attempts = 0, not_before_us = 0, reason = '' "
               "WHERE state = 3 AND reason = 'purged'",
               task.capture_id(), task.model_digest(), task.numerics_class_id(), ToBlob(task)));
  PLUMB_RETURN_IF_ERROR(
      db_->Run("INSERT INTO experiment_captures (experiment_id, capture_id, stage_index) VALUES "
               "(?1, ?2, ?3) "
               "ON CONFLICT DO NOTHING",
               experiment_id, task.capture_id(), stage_index));
  return transaction.Commit();
}

absl::StatusOr<CaptureRecord> SqliteStore::GetCapture(const std::string& capture_id) {
  std::lock_guard<std::mutex> guard(mutex_);
  Query query(db_.get(),
              "SELECT task, state, attempts, reason, digest, tokens FROM captures "
              "WHERE capture_id = ?1",
              capture_id);
  if (!query.Next()) {
    PLUMB_RETURN_IF_ERROR(query.status());
    return absl::NotFoundError(absl::StrCat("no capture '", capture_id, "'"));
  }
  CaptureRecord record;
  PLUMB_RETURN_IF_ERROR(query.Message(0, &record.task));
  record.state = static_cast<WorkState>(query.Int(1));
  record.attempts = static_cast<int>(query.Int(2));
  record.reason = query.Text(3);
  record.digest = query.Text(4);
  record.tokens = static_cast<uint64_t>(query.Int(5));
  return record;
}

absl::StatusOr<std::vector<v1::CaptureTask>> SqliteStore::OpenCaptures(
    const std::string& model_digest, const std::string& numerics_class_id, absl::Time now,
    int limit) {
  std::lock_guard<std::mutex> guard(mutex_);
  Query query(db_.get(),
              "SELECT task FROM captures c WHERE model_digest = ?1 AND numerics_class_id = ?2 AND "
              "state = 0 AND not_before_us <= ?3 AND EXISTS (SELECT 1 FROM experiment_captures m "
              "JOIN experiments e ON e.id = m.experiment_id WHERE m.capture_id = c.capture_id AND "
              "e.state IN (1, 2, 3)) ORDER BY capture_id LIMIT ?4",
              model_digest, numerics_class_id, ToMicros(now), limit);
  std::vector<v1::CaptureTask> tasks;
  while (query.Next()) PLUMB_RETURN_IF_ERROR(query.Message(0, &tasks.emplace_back()));
  PLUMB_RETURN_IF_ERROR(query.status());
  return tasks;
}

absl::Status SqliteStore::PutCapture(const std::string& capture_id, const std::string& digest,
                                     uint64_t tokens) {
  std::lock_guard<std::mutex> guard(mutex_);
  Transaction transaction(db_.get());
  PLUMB_RETURN_IF_ERROR(transaction.status());
  PLUMB_RETURN_IF_ERROR(
      db_->Run("UPDATE captures SET state = 2, reason = '', digest = ?2, tokens = ?3 WHERE "
               "capture_id = ?1 AND state <> 2",
               capture_id, digest, tokens));
  PLUMB_RETURN_IF_ERROR(db_->Run("DELETE FROM leases WHERE capture_id = ?1", capture_id));
  return transaction.Commit();
}

absl::Status SqliteStore::ReopenCapture(const std::string& capture_id, const std::string& reason) {
  PLUMB_RETURN_IF_ERROR(GetCapture(capture_id).status());
  std::lock_guard<std::mutex> guard(mutex_);
  return db_->Run(
      "UPDATE captures SET state = 0, attempts = 0, not_before_us = 0, reason = ?2, digest = '', "
      "tokens = 0 WHERE capture_id = ?1 AND state = 2",
      capture_id, reason);
}

absl::StatusOr<FailOutcome> SqliteStore::FailCapture(const std::string& lease_id,
                                                     const std::string& capture_id,
                                                     const WorkFailure& failure) {
  std::lock_guard<std::mutex> guard(mutex_);
  Transaction transaction(db_.get());
  PLUMB_RETURN_IF_ERROR(transaction.status());
  PLUMB_RETURN_IF_ERROR(
      db_->Run("DELETE FROM leases WHERE lease_id = ?1 AND capture_id = ?2", lease_id, capture_id));
  if (db_->changes() == 0) return FailOutcome::kRetry;  // a lost lease's word does not count
  PLUMB_ASSIGN_OR_RETURN(const FailOutcome outcome, FailLeasedCapture(capture_id, failure));
  PLUMB_RETURN_IF_ERROR(transaction.Commit());
  return outcome;
}

}  // namespace plumbline
