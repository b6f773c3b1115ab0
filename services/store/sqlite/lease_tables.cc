// Leases: who runs which cells until when.
#include <algorithm>

#include "absl/container/flat_hash_set.h"
#include "absl/strings/str_cat.h"
#include "services/common/status_macros.h"
#include "services/store/sqlite/sqlite_store_impl.h"

namespace plumbline {
namespace {

#define PLUMB_LEASE_COLUMNS                                                                  \
  "SELECT lease_id, worker_id, incarnation_id, expires_us, resends, audit, capture_id FROM " \
  "leases "

}  // namespace

absl::StatusOr<LeaseRecord> SqliteStore::ReadLease(Query& row) {
  LeaseRecord lease;
  lease.lease_id = row.Text(0);
  lease.worker_id = row.Text(1);
  lease.incarnation_id = row.Text(2);
  lease.expires = FromMicros(row.Int(3));
  lease.resends = static_cast<int>(row.Int(4));
  lease.audit = row.Int(5) != 0;
  lease.capture_id = row.Text(6);
  PLUMB_RETURN_IF_ERROR(ReadLeaseCells(&lease));
  return lease;
}

absl::Status SqliteStore::ReadLeaseCells(LeaseRecord* lease) {
  Query query(db_.get(), "SELECT cell_key FROM lease_cells WHERE lease_id = ?1 ORDER BY position",
              lease->lease_id);
  while (query.Next()) lease->cell_keys.push_back(query.Text(0));
  return query.status();
}

absl::StatusOr<std::vector<LeaseRecord>> SqliteStore::LeasesOfWorker(const std::string& worker_id) {
  std::lock_guard<std::mutex> guard(mutex_);
  std::vector<LeaseRecord> leases;
  Query query(db_.get(), PLUMB_LEASE_COLUMNS "WHERE worker_id = ?1 ORDER BY lease_id", worker_id);
  while (query.Next()) {
    PLUMB_ASSIGN_OR_RETURN(LeaseRecord lease, ReadLease(query));
    leases.push_back(std::move(lease));
  }
  PLUMB_RETURN_IF_ERROR(query.status());
  return leases;
}

absl::StatusOr<std::vector<LeaseRecord>> SqliteStore::ExpiredLeases(absl::Time now) {
  std::lock_guard<std::mutex> guard(mutex_);
  std::vector<LeaseRecord> leases;
  Query query(db_.get(), PLUMB_LEASE_COLUMNS "WHERE expires_us < ?1 ORDER BY lease_id",
              ToMicros(now));
  while (query.Next()) {
    PLUMB_ASSIGN_OR_RETURN(LeaseRecord lease, ReadLease(query));
    leases.push_back(std::move(lease));
  }
  PLUMB_RETURN_IF_ERROR(query.status());
  return leases;
}

absl::StatusOr<std::vector<OpenCell>> SqliteStore::OpenCells(const std::string& experiment_id,
                                                             const std::string& model_digest,
                                                             const std::string& numerics_class_id,
                                                             absl::Time now, int limit) {
  std::lock_guard<std::mutex> guard(mutex_);
  Query query(db_.get(),
              "SELECT c.cell_key, c.attempts FROM experiments e JOIN experiment_cells m ON "
              "m.experiment_id = e.id AND m.stage_index >= e.stage_index "
              "JOIN cells c ON c.cell_key = m.cell_key WHERE e.id = ?1 AND c.state = 0 AND "
              "c.model_digest = ?2 AND c.numerics_class_id = ?3 AND c.not_before_us <= ?4 "
              "ORDER BY m.stage_index, m.position",
              experiment_id, model_digest, numerics_class_id, ToMicros(now));
  std::vector<OpenCell> cells;
  absl::flat_hash_set<std::string> seen;  // a cell may serve several conditions
  while (static_cast<int>(cells.size()) < limit && query.Next()) {
    std::string key = query.Text(0);
    if (!seen.insert(key).second) continue;
    cells.push_back({std::move(key), static_cast<int>(query.Int(1))});
  }
  PLUMB_RETURN_IF_ERROR(query.status());
  return cells;
}

absl::StatusOr<uint64_t> SqliteStore::CountLeasedCells(const std::string& experiment_id) {
  std::lock_guard<std::mutex> guard(mutex_);
  Query query(db_.get(),
              "SELECT COUNT(DISTINCT l.cell_key) FROM lease_cells l JOIN experiment_cells m ON "
              "m.cell_key = l.cell_key WHERE m.experiment_id = ?1",
              experiment_id);
  uint64_t count = 0;
  if (query.Next()) count = static_cast<uint64_t>(query.Int(0));
  PLUMB_RETURN_IF_ERROR(query.status());
  return count;
}

absl::StatusOr<std::vector<std::string>> SqliteStore::WantedAudits(
    const std::string& worker_id, const std::string& model_digest,
    const std::string& numerics_class_id, int limit) {
  std::lock_guard<std::mutex> guard(mutex_);
  Query query(db_.get(),
              "SELECT a.cell_key FROM audits a JOIN cells c ON c.cell_key = a.cell_key "
              "JOIN cell_texts t ON t.cell_key = a.cell_key WHERE a.state = 0 AND "
              "a.first_worker <> ?1 AND c.model_digest = ?2 AND c.numerics_class_id = ?3 "
              "ORDER BY a.cell_key LIMIT ?4",
              worker_id, model_digest, numerics_class_id, limit);
  std::vector<std::string> keys;
  while (query.Next()) keys.push_back(query.Text(0));
  PLUMB_RETURN_IF_ERROR(query.status());
  return keys;
}

absl::Status SqliteStore::GrantCell(const LeaseRecord& lease, const std::string& key,
                                    int64_t position) {
  if (lease.audit) {
    PLUMB_RETURN_IF_ERROR(
        db_->Run("UPDATE audits SET state = 1 WHERE cell_key = ?1 AND state = 0", key));
  } else {
    PLUMB_RETURN_IF_ERROR(db_->Run(
        "UPDATE cells SET state = 1, attempts = attempts + 1 WHERE cell_key = ?1 AND state = 0",
        key));
  }
  if (db_->changes() != 1) {
    return absl::AbortedError(absl::StrCat("cell ", key, " is not open any more"));
  }
  return db_->Run("INSERT INTO lease_cells (lease_id, cell_key, position) VALUES (?1, ?2, ?3)",
                  lease.lease_id, key, position);
}

absl::Status SqliteStore::GrantLease(const LeaseRecord& lease) {
  std::lock_guard<std::mutex> guard(mutex_);
  const WithoutSync without_sync(db_.get());
  Transaction transaction(db_.get());
  PLUMB_RETURN_IF_ERROR(transaction.status());
  PLUMB_RETURN_IF_ERROR(db_->Run(
      "INSERT INTO leases (lease_id, worker_id, incarnation_id, expires_us, audit, capture_id) "
      "VALUES (?1, ?2, ?3, ?4, ?5, ?6)",
      lease.lease_id, lease.worker_id, lease.incarnation_id, ToMicros(lease.expires), lease.audit,
      lease.capture_id));
  int64_t position = 0;
  for (const std::string& key : lease.cell_keys) {
    PLUMB_RETURN_IF_ERROR(GrantCell(lease, key, position++));
  }
  if (!lease.capture_id.empty()) {
    PLUMB_RETURN_IF_ERROR(
        db_->Run("UPDATE captures SET state = 1, attempts = attempts + 1 WHERE capture_id = ?1 AND "
                 "state = 0",
                 lease.capture_id));
    if (db_->changes() != 1) {
      return absl::AbortedError(
          absl::StrCat("capture ", lease.capture_id, " is not open any more"));
    }
  }
  return transaction.Commit();
}

absl::Status SqliteStore::RenewLease(const std::string& lease_id, absl::Time expires, int resends) {
  std::lock_guard<std::mutex> guard(mutex_);
  const WithoutSync without_sync(db_.get());
  return db_->Run("UPDATE leases SET expires_us = ?2, resends = ?3 WHERE lease_id = ?1", lease_id,
                  ToMicros(expires), resends);
}

absl::StatusOr<FailOutcome> SqliteStore::FailLeased(const LeasedWork& work, const std::string& key,
                                                    const WorkFailure& failure) {
  int attempts = 0;
  {
    Query query(db_.get(), work.select, key);
    if (!query.Next()) {
      PLUMB_RETURN_IF_ERROR(query.status());
      return FailOutcome::kUnknownCell;
    }
    const auto state = static_cast<WorkState>(query.Int(0));
    attempts = static_cast<int>(query.Int(1));
    if (state == WorkState::kStored) return FailOutcome::kAlreadyStored;
    if (state == WorkState::kPoisoned) return FailOutcome::kPoisoned;
    if (state == WorkState::kOpen) return FailOutcome::kRetry;
  }
  const bool returned = failure.kind == FailureKind::kReturned;
  const bool poisoned =
      failure.kind == FailureKind::kPermanent || (!returned && attempts >= failure.max_attempts);
  const WorkState next = poisoned ? WorkState::kPoisoned : WorkState::kOpen;
  PLUMB_RETURN_IF_ERROR(db_->Run(work.update, key, static_cast<int>(next),
                                 std::max(0, attempts - (returned ? 1 : 0)),
                                 ToMicros(failure.not_before), failure.reason));
  return poisoned ? FailOutcome::kPoisoned : FailOutcome::kRetry;
}

absl::StatusOr<FailOutcome> SqliteStore::FailLeasedCell(const std::string& key,
                                                        const WorkFailure& failure) {
  static constexpr LeasedWork kCells = {
      .select = "SELECT state, attempts FROM cells WHERE cell_key = ?1",
      .update =
          "UPDATE cells SET state = ?2, attempts = ?3, not_before_us = ?4, reason = ?5 "
          "WHERE cell_key = ?1"};
  return FailLeased(kCells, key, failure);
}

absl::StatusOr<FailOutcome> SqliteStore::FailLeasedCapture(const std::string& capture_id,
                                                           const WorkFailure& failure) {
  static constexpr LeasedWork kCaptures = {
      .select = "SELECT state, attempts FROM captures WHERE capture_id = ?1",
      .update =
          "UPDATE captures SET state = ?2, attempts = ?3, not_before_us = ?4, reason = ?5 "
          "WHERE capture_id = ?1"};
  return FailLeased(kCaptures, capture_id, failure);
}

absl::Status SqliteStore::EndLeaseLocked(const LeaseRecord& lease, const WorkFailure& failure) {
  for (const std::string& key : lease.cell_keys) {
    if (!lease.audit) {
      PLUMB_RETURN_IF_ERROR(FailLeasedCell(key, failure).status());
    } else if (failure.kind == FailureKind::kReturned) {
      PLUMB_RETURN_IF_ERROR(
          db_->Run("UPDATE audits SET state = 0 WHERE cell_key = ?1 AND state = 1", key));
    } else {
      // An audit that failed says nothing about the stored result: it is given up.
      PLUMB_RETURN_IF_ERROR(db_->Run("DELETE FROM audits WHERE cell_key = ?1 AND state = 1", key));
    }
  }
  if (!lease.capture_id.empty()) {
    PLUMB_RETURN_IF_ERROR(FailLeasedCapture(lease.capture_id, failure).status());
  }
  return db_->Run("DELETE FROM leases WHERE lease_id = ?1", lease.lease_id);
}

absl::Status SqliteStore::EndLease(const std::string& lease_id, const WorkFailure& failure) {
  std::lock_guard<std::mutex> guard(mutex_);
  Transaction transaction(db_.get());
  PLUMB_RETURN_IF_ERROR(transaction.status());
  LeaseRecord lease;
  {
    Query query(db_.get(), PLUMB_LEASE_COLUMNS "WHERE lease_id = ?1", lease_id);
    if (!query.Next()) return query.status();
    PLUMB_ASSIGN_OR_RETURN(lease, ReadLease(query));
  }
  PLUMB_RETURN_IF_ERROR(EndLeaseLocked(lease, failure));
  return transaction.Commit();
}

absl::Status SqliteStore::EndLeasesOfWorker(const std::string& worker_id,
                                            const std::string& reason) {
  std::vector<LeaseRecord> leases;
  {
    Query query(db_.get(), PLUMB_LEASE_COLUMNS "WHERE worker_id = ?1", worker_id);
    while (query.Next()) {
      PLUMB_ASSIGN_OR_RETURN(LeaseRecord lease, ReadLease(query));
      leases.push_back(std::move(lease));
    }
    PLUMB_RETURN_IF_ERROR(query.status());
  }
  const WorkFailure returned = {.kind = FailureKind::kReturned, .reason = reason};
  for (const LeaseRecord& lease : leases) {
    PLUMB_RETURN_IF_ERROR(EndLeaseLocked(lease, returned));
  }
  return absl::OkStatus();
}

absl::Status SqliteStore::DeleteEmptyLeases() {
  return db_->Run(
      "DELETE FROM leases WHERE capture_id = '' AND NOT EXISTS (SELECT 1 FROM lease_cells WHERE "
      "lease_cells.lease_id = leases.lease_id)");
}

absl::StatusOr<std::vector<v1::LeasedCell>> SqliteStore::CellsOfLease(const std::string& lease_id) {
  std::lock_guard<std::mutex> guard(mutex_);
  Query query(db_.get(),
              "SELECT c.cell_key, c.spec, c.attempts, COALESCE(t.turns, '') FROM lease_cells l "
              "JOIN cells c ON c.cell_key = l.cell_key LEFT JOIN cell_texts t ON "
              "t.cell_key = l.cell_key WHERE l.lease_id = ?1 ORDER BY l.position",
              lease_id);
  std::vector<v1::LeasedCell> cells;
  while (query.Next()) {
    v1::LeasedCell& cell = cells.emplace_back();
    cell.set_cell_key(query.Text(0));
    PLUMB_RETURN_IF_ERROR(query.Message(1, cell.mutable_spec()));
    cell.set_attempt(static_cast<uint32_t>(query.Int(2)));
    v1::CellSpec turns;
    PLUMB_RETURN_IF_ERROR(query.Message(3, &turns));
    *cell.mutable_spec()->mutable_turns() = turns.turns();
  }
  PLUMB_RETURN_IF_ERROR(query.status());
  return cells;
}

}  // namespace plumbline
