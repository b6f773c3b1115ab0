#include "services/store/sqlite/sqlite_store.h"

#include "absl/strings/str_cat.h"
#include "services/common/status_macros.h"
#include "services/store/sqlite/sqlite_store_impl.h"

namespace plumbline {

absl::StatusOr<std::unique_ptr<Store>> OpenSqliteStore(const SqliteOptions& options) {
  std::unique_ptr<LockFile> lock;
  if (options.path != ":memory:" && !options.path.empty()) {
    PLUMB_ASSIGN_OR_RETURN(
        lock, LockFile::Acquire(absl::StrCat(options.path, ".lock"), options.lock_patience));
  }
  PLUMB_ASSIGN_OR_RETURN(std::unique_ptr<Database> db, Database::Open(options));
  return std::make_unique<SqliteStore>(std::move(lock), std::move(db));
}

absl::Status SqliteStore::PutIncarnation(const Incarnation& incarnation) {
  std::lock_guard<std::mutex> guard(mutex_);
  return db_->Run(
      "INSERT INTO incarnations (incarnation_id, worker_id, version, machine) "
      "VALUES (?1, ?2, ?3, ?4) ON CONFLICT DO NOTHING",
      incarnation.incarnation_id, incarnation.worker_id, incarnation.version, incarnation.machine);
}

absl::StatusOr<std::vector<QuarantinedWorker>> SqliteStore::Quarantined() {
  std::lock_guard<std::mutex> guard(mutex_);
  std::vector<QuarantinedWorker> workers;
  Query query(db_.get(), "SELECT worker_id, reason, since_us FROM quarantine ORDER BY worker_id");
  while (query.Next()) {
    workers.push_back({query.Text(0), query.Text(1), FromMicros(query.Int(2))});
  }
  PLUMB_RETURN_IF_ERROR(query.status());
  return workers;
}

}  // namespace plumbline
