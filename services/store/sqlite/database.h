// A thin, safe layer over one SQLite connection: statements with bound parameters, transactions,
// migrations, and errors that say what to do. Not thread-safe: the store serializes.
#pragma once

#include <sqlite3.h>

#include <cstdint>
#include <memory>
#include <string>
#include <unordered_map>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "absl/time/time.h"
#include "google/protobuf/message_lite.h"

namespace plumbline {

struct SqliteOptions {
  std::string path;       // ":memory:" = nothing is kept; else the folder must exist
  int64_t max_pages = 0;  // a quota in pages of 4 KiB; 0 = the disk's
  // True: what was answered OK survives a power cut, but for leases, which are granted anew. False:
  // only a kill of the process.
  bool sync_to_disk = true;
  // How long another coordinator on the file may take to end; 0 = it is refused at once.
  absl::Duration lock_patience = absl::ZeroDuration();
};

// Bytes that are bound as BLOB; a std::string is bound as TEXT.
struct Blob {
  std::string bytes;
};
Blob ToBlob(const google::protobuf::MessageLite& message);

class Database;

// One run of a statement. `sql` must be a literal: it keys the statement cache.
//
//   Query query(db, "SELECT id FROM cells WHERE state = ?1", 0);
//   while (query.Next()) Use(query.Text(0));
//   PLUMB_RETURN_IF_ERROR(query.status());
class Query {
 public:
  template <typename... Args>
  Query(Database* db, const char* sql, const Args&... args) : Query(db, sql, Unbound{}) {
    int index = 0;
    (Bind(++index, args), ...);
  }
  ~Query();
  Query(const Query&) = delete;
  Query& operator=(const Query&) = delete;

  bool Next();  // false at the end and on an error
  const absl::Status& status() const { return status_; }
  int64_t Int(int column) const;
  std::string Text(int column) const;  // TEXT and BLOB
  // DataLoss when the bytes are no such message.
  absl::Status Message(int column, google::protobuf::MessageLite* message) const;

 private:
  struct Unbound {};
  Query(Database* db, const char* sql, Unbound);
  void Bind(int index, int64_t value);
  void Bind(int index, int value) { Bind(index, static_cast<int64_t>(value)); }
  void Bind(int index, uint64_t value) { Bind(index, static_cast<int64_t>(value)); }
  void Bind(int index, bool value) { Bind(index, static_cast<int64_t>(value)); }
  void Bind(int index, const std::string& value);
  void Bind(int index, const Blob& value);
  void Check(int code);

  Database* db_;
  const char* sql_;
  sqlite3_stmt* statement_ = nullptr;
  absl::Status status_;
};

class Database {
 public:
  // Opens or creates the file with mode 0600, in WAL mode with foreign keys, and migrates it.
  static absl::StatusOr<std::unique_ptr<Database>> Open(const SqliteOptions& options);
  ~Database();

  // Runs one statement to its end.
  template <typename... Args>
  absl::Status Run(const char* sql, const Args&... args) {
    Query query(this, sql, args...);
    while (query.Next()) {
    }
    return query.status();
  }
  // Rows that the last statement changed.
  int64_t changes() const;
  absl::Status RunScript(const std::string& sql);
  absl::Status ErrorOf(int code) const;

 private:
  friend class Query;
  friend class WithoutSync;
  explicit Database(std::string path) : path_(std::move(path)) {}
  absl::Status Configure(const SqliteOptions& options);
  absl::Status Migrate();

  std::string path_;
  bool sync_to_disk_ = false;
  sqlite3* handle_ = nullptr;
  std::unordered_map<std::string, sqlite3_stmt*> idle_;  // prepared and not in use
};

// While it lives, commits do not wait for the disk: the next one that does takes them along.
// Outside of transactions.
class WithoutSync {
 public:
  explicit WithoutSync(Database* db);
  ~WithoutSync();
  WithoutSync(const WithoutSync&) = delete;
  WithoutSync& operator=(const WithoutSync&) = delete;

 private:
  Database* const db_;
};

// BEGIN IMMEDIATE ... COMMIT; rolled back unless Commit returned OK.
class Transaction {
 public:
  explicit Transaction(Database* db);
  ~Transaction();
  const absl::Status& status() const { return status_; }  // of BEGIN
  absl::Status Commit();

 private:
  Database* db_;
  absl::Status status_;
  bool open_ = false;
};

}  // namespace plumbline
