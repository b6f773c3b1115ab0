#include "services/store/sqlite/database.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>

#include "absl/strings/str_cat.h"
#include "services/common/status_macros.h"
#include "services/store/migrations/migrations.h"

namespace plumbline {
namespace {

constexpr int kBusyTimeoutMs = 10000;

// SQLite creates a missing file with the process's umask; answers must be readable by the owner
// alone. The -wal and -shm files take over the mode of the database file.
absl::Status CreatePrivateFile(const std::string& path) {
  const int fd = open(path.c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0600);
  if (fd < 0) {
    const int error = errno;
    const std::string message =
        absl::StrCat("cannot open the store ", path, ": ", strerror(error),
                     error == ENOENT ? " (create its folder, or mend store.sqlite_file)" : "");
    return error == ENOENT ? absl::NotFoundError(message) : absl::PermissionDeniedError(message);
  }
  const bool private_now = fchmod(fd, 0600) == 0;
  close(fd);
  if (!private_now) {
    return absl::PermissionDeniedError(
        absl::StrCat("cannot set the mode of ", path, " to 0600: it belongs to another user"));
  }
  return absl::OkStatus();
}

}  // namespace

Blob ToBlob(const google::protobuf::MessageLite& message) {
  return Blob{message.SerializeAsString()};
}

Query::Query(Database* db, const char* sql, Unbound) : db_(db), sql_(sql) {
  auto it = db_->idle_.find(sql);
  if (it != db_->idle_.end()) {
    statement_ = it->second;
    db_->idle_.erase(it);
    return;
  }
  Check(sqlite3_prepare_v3(db_->handle_, sql, -1, SQLITE_PREPARE_PERSISTENT, &statement_, nullptr));
}

Query::~Query() {
  if (statement_ == nullptr) return;
  sqlite3_reset(statement_);
  sqlite3_clear_bindings(statement_);
  if (!db_->idle_.emplace(sql_, statement_).second) sqlite3_finalize(statement_);
}

void Query::Check(int code) {
  if (code != SQLITE_OK && status_.ok()) status_ = db_->ErrorOf(code);
}

void Query::Bind(int index, int64_t value) {
  if (status_.ok()) Check(sqlite3_bind_int64(statement_, index, value));
}

void Query::Bind(int index, const std::string& value) {
  if (!status_.ok()) return;
  Check(sqlite3_bind_text64(statement_, index, value.data(), value.size(), SQLITE_TRANSIENT,
                            SQLITE_UTF8));
}

void Query::Bind(int index, const Blob& value) {
  if (!status_.ok()) return;
  Check(sqlite3_bind_blob64(statement_, index, value.bytes.data(), value.bytes.size(),
                            SQLITE_TRANSIENT));
  // An empty blob with a null pointer would be bound as NULL.
  if (value.bytes.empty()) Check(sqlite3_bind_zeroblob(statement_, index, 0));
}

bool Query::Next() {
  if (!status_.ok()) return false;
  const int code = sqlite3_step(statement_);
  if (code == SQLITE_ROW) return true;
  if (code != SQLITE_DONE) Check(code);
  return false;
}

int64_t Query::Int(int column) const { return sqlite3_column_int64(statement_, column); }

std::string Query::Text(int column) const {
  const auto* bytes = static_cast<const char*>(sqlite3_column_blob(statement_, column));
  const int size = sqlite3_column_bytes(statement_, column);
  return bytes == nullptr ? std::string() : std::string(bytes, static_cast<size_t>(size));
}

absl::Status Query::Message(int column, google::protobuf::MessageLite* message) const {
  if (message->ParseFromString(Text(column))) return absl::OkStatus();
  return absl::DataLossError(absl::StrCat("the store holds a damaged ", message->GetTypeName(),
                                          ": restore the file from a backup"));
}

absl::StatusOr<std::unique_ptr<Database>> Database::Open(const SqliteOptions& options) {
  if (options.path.empty()) {
    return absl::InvalidArgumentError("store.sqlite_file is empty: give the database's path");
  }
  if (options.path != ":memory:") PLUMB_RETURN_IF_ERROR(CreatePrivateFile(options.path));
  std::unique_ptr<Database> db(new Database(options.path));
  const int code =
      sqlite3_open_v2(options.path.c_str(), &db->handle_,
                      SQLITE_OPEN_READWRITE | SQLITE_OPEN_CREATE | SQLITE_OPEN_NOMUTEX, nullptr);
  if (code != SQLITE_OK) return db->ErrorOf(code);
  PLUMB_RETURN_IF_ERROR(db->Configure(options));
  PLUMB_RETURN_IF_ERROR(db->Migrate());
  return db;
}

Database::~Database() {
  for (auto& [sql, statement] : idle_) sqlite3_finalize(statement);
  sqlite3_close_v2(handle_);
}

absl::Status Database::Configure(const SqliteOptions& options) {
  sqlite3_extended_result_codes(handle_, 1);
  sqlite3_busy_timeout(handle_, kBusyTimeoutMs);
  // secure_delete overwrites purged texts instead of leaving them in free pages.
  PLUMB_RETURN_IF_ERROR(
      RunScript("PRAGMA journal_mode=WAL; PRAGMA foreign_keys=ON; PRAGMA secure_delete=ON;"));
  sync_to_disk_ = options.sync_to_disk;
  PLUMB_RETURN_IF_ERROR(
      RunScript(options.sync_to_disk ? "PRAGMA synchronous=FULL" : "PRAGMA synchronous=OFF"));
  if (options.max_pages > 0) {
    PLUMB_RETURN_IF_ERROR(RunScript(absl::StrCat("PRAGMA max_page_count=", options.max_pages)));
  }
  return absl::OkStatus();
}

absl::Status Database::Migrate() {
  int64_t version = 0;
  {
    Query query(this, "PRAGMA user_version");
    if (query.Next()) version = query.Int(0);
    PLUMB_RETURN_IF_ERROR(query.status());
  }
  const std::vector<Migration>& migrations = Migrations();
  const auto newest = static_cast<int64_t>(migrations.size());
  if (version > newest) {
    return absl::FailedPreconditionError(absl::StrCat("the store ", path_, " has schema ", version,
                                                      ", this build knows up to ", newest,
                                                      ": run a newer plumb-coordinator"));
  }
  for (int64_t i = version; i < newest; ++i) {
    Transaction transaction(this);
    PLUMB_RETURN_IF_ERROR(transaction.status());
    PLUMB_RETURN_IF_ERROR(Annotate(RunScript(migrations[static_cast<size_t>(i)].sql),
                                   migrations[static_cast<size_t>(i)].name));
    PLUMB_RETURN_IF_ERROR(RunScript(absl::StrCat("PRAGMA user_version=", i + 1)));
    PLUMB_RETURN_IF_ERROR(transaction.Commit());
  }
  return absl::OkStatus();
}

int64_t Database::changes() const { return sqlite3_changes64(handle_); }

absl::Status Database::RunScript(const std::string& sql) {
  const int code = sqlite3_exec(handle_, sql.c_str(), nullptr, nullptr, nullptr);
  return code == SQLITE_OK ? absl::OkStatus() : ErrorOf(code);
}

absl::Status Database::ErrorOf(int code) const {
  const std::string message = absl::StrCat("store ", path_, ": ", sqlite3_errmsg(handle_));
  switch (code & 0xff) {
    case SQLITE_FULL:
      return absl::ResourceExhaustedError(
          absl::StrCat(message, ": free some space; what was stored is kept and work goes on"));
    case SQLITE_CORRUPT:
    case SQLITE_NOTADB:
      return absl::DataLossError(absl::StrCat(
          message, ": the file is damaged; restore a backup, or move it away to start empty"));
    case SQLITE_READONLY:
    case SQLITE_PERM:
    case SQLITE_AUTH:
    case SQLITE_CANTOPEN:
      return absl::PermissionDeniedError(message);
    case SQLITE_BUSY:
    case SQLITE_LOCKED:
      return absl::UnavailableError(
          absl::StrCat(message, ": another process holds the database; close it"));
    case SQLITE_IOERR:
      return absl::UnavailableError(message);
    case SQLITE_CONSTRAINT:
      return absl::AlreadyExistsError(message);
    default:
      return absl::InternalError(absl::StrCat(message, " (SQLite code ", code, ")"));
  }
}

// Where a pragma fails, commits wait as before, or the next use sets it right.
WithoutSync::WithoutSync(Database* db) : db_(db) {
  if (db_->sync_to_disk_) (void)db_->RunScript("PRAGMA synchronous=NORMAL");
}

WithoutSync::~WithoutSync() {
  if (db_->sync_to_disk_) (void)db_->RunScript("PRAGMA synchronous=FULL");
}

Transaction::Transaction(Database* db) : db_(db), status_(db->Run("BEGIN IMMEDIATE")) {
  open_ = status_.ok();
}

Transaction::~Transaction() {
  if (open_) (void)db_->Run("ROLLBACK");
}

absl::Status Transaction::Commit() {
  PLUMB_RETURN_IF_ERROR(db_->Run("COMMIT"));
  open_ = false;
  return absl::OkStatus();
}

}  // namespace plumbline
