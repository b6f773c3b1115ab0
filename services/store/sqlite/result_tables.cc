// Results, violations and audits.
#include "absl/strings/str_cat.h"
#include "services/common/status_macros.h"
#include "services/store/sqlite/sqlite_store_impl.h"

namespace plumbline {

absl::Status SqliteStore::StoreFirst(const std::string& worker_id, const NewResult& result,
                                     absl::Time now) {
  const std::string& key = result.result.cell_key();
  v1::CellResult without_text = result.result;
  without_text.clear_text();
  without_text.set_worker_id(worker_id);
  PLUMB_RETURN_IF_ERROR(db_->Run(
      "INSERT INTO results (cell_key, result, digest, worker_id, stored_us, finish_reason, tokens, "
      "incarnation_id) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8) ON CONFLICT (cell_key) DO UPDATE "
      "SET "
      "result = ?2, digest = ?3, worker_id = ?4, stored_us = ?5, finish_reason = ?6, tokens = ?7, "
      "incarnation_id = ?8",
      key, ToBlob(without_text), result.digest, worker_id, ToMicros(now),
      static_cast<int>(result.result.finish_reason()), result.result.token_ids_size(),
      result.incarnation_id));
  PLUMB_RETURN_IF_ERROR(
      db_->Run("INSERT INTO result_texts (cell_key, answer) VALUES (?1, ?2) "
               "ON CONFLICT (cell_key) DO UPDATE SET answer = ?2",
               key, result.result.text()));
  PLUMB_RETURN_IF_ERROR(
      db_->Run("UPDATE cells SET state = 2, reason = '' WHERE cell_key = ?1", key));
  PLUMB_RETURN_IF_ERROR(db_->Run("DELETE FROM lease_cells WHERE cell_key = ?1", key));
  if (!result.want_audit) return absl::OkStatus();
  return db_->Run(
      "INSERT INTO audits (cell_key, first_worker) VALUES (?1, ?2) ON CONFLICT DO NOTHING", key,
      worker_id);
}

absl::Status SqliteStore::RecordViolation(const std::string& cell_key,
                                          const std::string& first_worker,
                                          const std::string& first_digest,
                                          const std::string& second_worker,
                                          const std::string& second_digest, absl::Time now) {
  const int64_t micros = ToMicros(now);
  PLUMB_RETURN_IF_ERROR(db_->Run(
      "INSERT INTO violations (number, cell_key, first_worker, first_digest, second_worker, "
      "second_digest, at_us) VALUES ((SELECT COALESCE(MAX(number), 0) + 1 FROM violations), ?1, "
      "?2, "
      "?3, ?4, ?5, ?6)",
      cell_key, first_worker, first_digest, second_worker, second_digest, micros));
  PLUMB_RETURN_IF_ERROR(
      db_->Run("UPDATE experiments SET violations = violations + 1, updated_us = ?2 WHERE id IN "
               "(SELECT experiment_id FROM experiment_cells WHERE cell_key = ?1)",
               cell_key, micros));
  // Without the answers' digests, which a purge takes out of the violations.
  const std::string reason = absl::StrCat("workers ", first_worker, " and ", second_worker,
                                          " gave different results for cell ", cell_key);
  for (const std::string& worker : {first_worker, second_worker}) {
    PLUMB_RETURN_IF_ERROR(
        db_->Run("INSERT INTO quarantine (worker_id, reason, since_us) VALUES (?1, ?2, ?3) "
                 "ON CONFLICT DO NOTHING",
                 worker, reason, micros));
    PLUMB_RETURN_IF_ERROR(EndLeasesOfWorker(worker, reason));
  }
  return absl::OkStatus();
}

absl::StatusOr<PutResultOutcome> SqliteStore::PutResult(const std::string& worker_id,
                                                        const std::string& lease_id,
                                                        const NewResult& result, absl::Time now) {
  const std::string& key = result.result.cell_key();
  {
    Query query(db_.get(), "SELECT state FROM cells WHERE cell_key = ?1", key);
    if (!query.Next()) {
      PLUMB_RETURN_IF_ERROR(query.status());
      return PutResultOutcome{PutOutcome::kUnknownCell, ""};
    }
    // A late result: concluded stages may have counted the cell as set aside.
    if (query.Int(0) == static_cast<int>(WorkState::kPoisoned)) concluded_.clear();
  }
  bool stored = false;
  std::string stored_digest;
  std::string stored_worker;
  {
    // A purged result whose cell runs again is none.
    Query query(
        db_.get(),
        "SELECT r.digest, r.worker_id FROM results r JOIN cells c ON c.cell_key = r.cell_key "
        "WHERE r.cell_key = ?1 AND NOT (r.digest = '' AND c.state < 2)",
        key);
    if (query.Next()) {
      stored = true;
      stored_digest = query.Text(0);
      stored_worker = query.Text(1);
    }
    PLUMB_RETURN_IF_ERROR(query.status());
  }
  if (!stored) {
    PLUMB_RETURN_IF_ERROR(StoreFirst(worker_id, result, now));
    return PutResultOutcome{PutOutcome::kStored, ""};
  }
  // A purged result cannot be compared, and what comes late for it is not kept.
  const bool equal = stored_digest.empty() || stored_digest == result.digest;
  PLUMB_RETURN_IF_ERROR(db_->Run(
      "UPDATE audits SET state = ?2 WHERE cell_key = ?1 AND first_worker <> ?3 AND state < 2", key,
      equal ? 2 : 3, worker_id));
  PLUMB_RETURN_IF_ERROR(
      db_->Run("DELETE FROM lease_cells WHERE lease_id = ?1 AND cell_key = ?2", lease_id, key));
  if (equal) return PutResultOutcome{PutOutcome::kEqual, ""};
  PLUMB_RETURN_IF_ERROR(
      RecordViolation(key, stored_worker, stored_digest, worker_id, result.digest, now));
  return PutResultOutcome{PutOutcome::kConflict, stored_worker};
}

absl::StatusOr<std::vector<PutResultOutcome>> SqliteStore::PutResults(
    const std::string& worker_id, const std::string& lease_id,
    const std::vector<NewResult>& results, absl::Time now) {
  std::lock_guard<std::mutex> guard(mutex_);
  Transaction transaction(db_.get());
  PLUMB_RETURN_IF_ERROR(transaction.status());
  std::vector<PutResultOutcome> outcomes;
  for (const NewResult& result : results) {
    PLUMB_ASSIGN_OR_RETURN(PutResultOutcome outcome, PutResult(worker_id, lease_id, result, now));
    outcomes.push_back(std::move(outcome));
  }
  PLUMB_RETURN_IF_ERROR(DeleteEmptyLeases());
  PLUMB_RETURN_IF_ERROR(transaction.Commit());
  return outcomes;
}

absl::StatusOr<FailOutcome> SqliteStore::FailCell(const std::string& lease_id,
                                                  const std::string& cell_key,
                                                  const WorkFailure& failure) {
  std::lock_guard<std::mutex> guard(mutex_);
  Transaction transaction(db_.get());
  PLUMB_RETURN_IF_ERROR(transaction.status());
  bool held = false;
  bool audit = false;
  WorkState state = WorkState::kOpen;
  {
    Query query(db_.get(),
                "SELECT c.state, CASE WHEN l.lease_id IS NULL THEN 0 ELSE 1 END, "
                "COALESCE(l.audit, 0) FROM cells c LEFT JOIN lease_cells k ON "
                "k.cell_key = c.cell_key AND k.lease_id = ?2 LEFT JOIN leases l ON "
                "l.lease_id = k.lease_id WHERE c.cell_key = ?1",
                cell_key, lease_id);
    if (!query.Next()) {
      PLUMB_RETURN_IF_ERROR(query.status());
      return FailOutcome::kUnknownCell;
    }
    state = static_cast<WorkState>(query.Int(0));
    held = query.Int(1) != 0;
    audit = query.Int(2) != 0;
  }
  FailOutcome outcome = FailOutcome::kRetry;
  if (state == WorkState::kStored) outcome = FailOutcome::kAlreadyStored;
  if (state == WorkState::kPoisoned) outcome = FailOutcome::kPoisoned;
  if (held && audit) {
    PLUMB_RETURN_IF_ERROR(
        db_->Run("DELETE FROM audits WHERE cell_key = ?1 AND state = 1", cell_key));
  } else if (held) {
    PLUMB_ASSIGN_OR_RETURN(outcome, FailLeasedCell(cell_key, failure));
  }
  if (held) {
    PLUMB_RETURN_IF_ERROR(db_->Run("DELETE FROM lease_cells WHERE lease_id = ?1 AND cell_key = ?2",
                                   lease_id, cell_key));
    PLUMB_RETURN_IF_ERROR(DeleteEmptyLeases());
  }
  PLUMB_RETURN_IF_ERROR(transaction.Commit());
  return outcome;
}

}  // namespace plumbline
