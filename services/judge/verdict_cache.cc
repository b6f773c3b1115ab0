#include "services/judge/verdict_cache.h"

#include <fcntl.h>
#include <sqlite3.h>
#include <unistd.h>

#include <mutex>
#include <unordered_map>

#include "absl/strings/str_cat.h"
#include "services/common/digest.h"
#include "services/common/status_macros.h"

namespace plumbline {
namespace {

constexpr int kSchemaVersion = 1;

class Memory final : public VerdictCache {
 public:
  explicit Memory(size_t max_entries) : max_entries_(max_entries) {}
  absl::StatusOr<std::optional<Judgement>> Find(const std::string& key) override {
    std::lock_guard<std::mutex> lock(mutex_);
    const auto found = entries_.find(key);
    if (found == entries_.end()) return std::nullopt;
    return found->second;
  }
  absl::Status Put(const std::string& key, const Judgement& judgement) override {
    std::lock_guard<std::mutex> lock(mutex_);
    if (entries_.size() >= max_entries_) entries_.clear();
    entries_[key] = judgement;
    return absl::OkStatus();
  }

 private:
  const size_t max_entries_;
  std::mutex mutex_;
  std::unordered_map<std::string, Judgement> entries_;  // guarded by mutex_
};

class Sqlite final : public VerdictCache {
 public:
  explicit Sqlite(std::string path) : path_(std::move(path)) {}
  ~Sqlite() override {
    sqlite3_finalize(find_);
    sqlite3_finalize(put_);
    sqlite3_close(db_);
  }
  absl::Status Open();
  absl::StatusOr<std::optional<Judgement>> Find(const std::string& key) override;
  absl::Status Put(const std::string& key, const Judgement& judgement) override;

 private:
  absl::Status Error(absl::string_view what) const {
    return absl::UnavailableError(
        absl::StrCat("verdict cache ", path_, ": cannot ", what, ": ", sqlite3_errmsg(db_)));
  }
  absl::Status Run(const char* sql, absl::string_view what) {
    return sqlite3_exec(db_, sql, nullptr, nullptr, nullptr) == SQLITE_OK ? absl::OkStatus()
                                                                          : Error(what);
  }
  absl::StatusOr<int> UserVersion();
  absl::Status Prepare(const char* sql, sqlite3_stmt** statement) {
    return sqlite3_prepare_v2(db_, sql, -1, statement, nullptr) == SQLITE_OK ? absl::OkStatus()
                                                                             : Error("prepare");
  }

  const std::string path_;
  std::mutex mutex_;  // one connection; statements are not reentrant
  sqlite3* db_ = nullptr;
  sqlite3_stmt* find_ = nullptr;
  sqlite3_stmt* put_ = nullptr;
};

absl::StatusOr<int> Sqlite::UserVersion() {
  sqlite3_stmt* statement = nullptr;
  PLUMB_RETURN_IF_ERROR(Prepare("PRAGMA user_version", &statement));
  const bool row = sqlite3_step(statement) == SQLITE_ROW;
  const int version = row ? sqlite3_column_int(statement, 0) : 0;
  sqlite3_finalize(statement);
  if (!row) return Error("read the schema's version");
  return version;
}

absl::Status Sqlite::Open() {
  // Created here, so that it is never readable for others, not even for a moment.
  const int fd = open(path_.c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0600);
  if (fd < 0) {
    return absl::UnavailableError(absl::StrCat(
        "verdict cache ", path_, ": cannot open it for writing (does the folder ", "exist?)"));
  }
  close(fd);
  if (sqlite3_open_v2(path_.c_str(), &db_, SQLITE_OPEN_READWRITE, nullptr) != SQLITE_OK) {
    return Error("open");
  }
  sqlite3_busy_timeout(db_, 5000);
  PLUMB_ASSIGN_OR_RETURN(const int version, UserVersion());
  if (version != 0 && version != kSchemaVersion) {
    return absl::FailedPreconditionError(
        absl::StrCat("verdict cache ", path_, " has schema ", version, ", this build knows ",
                     kSchemaVersion, ": delete the file, verdicts are made again"));
  }
  PLUMB_RETURN_IF_ERROR(Run("PRAGMA journal_mode=WAL", "set WAL"));
  PLUMB_RETURN_IF_ERROR(Run("PRAGMA synchronous=NORMAL", "set synchronous"));
  PLUMB_RETURN_IF_ERROR(
      Run("CREATE TABLE IF NOT EXISTS verdicts(key TEXT PRIMARY KEY, "
          "label INTEGER NOT NULL, evidence TEXT NOT NULL) WITHOUT ROWID",
          "create the table"));
  PLUMB_RETURN_IF_ERROR(
      Run(absl::StrCat("PRAGMA user_version=", kSchemaVersion).c_str(), "set the version"));
  PLUMB_RETURN_IF_ERROR(Prepare("SELECT label, evidence FROM verdicts WHERE key = ?1", &find_));
  return Prepare("INSERT OR REPLACE INTO verdicts(key, label, evidence) VALUES (?1, ?2, ?3)",
                 &put_);
}

absl::StatusOr<std::optional<Judgement>> Sqlite::Find(const std::string& key) {
  std::lock_guard<std::mutex> lock(mutex_);
  sqlite3_bind_text(find_, 1, key.data(), static_cast<int>(key.size()), SQLITE_TRANSIENT);
  const int step = sqlite3_step(find_);
  std::optional<Judgement> found;
  if (step == SQLITE_ROW) {
    found = Judgement{static_cast<VerdictLabel>(sqlite3_column_int(find_, 0)),
                      reinterpret_cast<const char*>(sqlite3_column_text(find_, 1))};
  }
  const absl::Status status =
      step == SQLITE_ROW || step == SQLITE_DONE ? absl::OkStatus() : Error("read");
  sqlite3_reset(find_);
  if (!status.ok()) return status;
  return found;
}

absl::Status Sqlite::Put(const std::string& key, const Judgement& judgement) {
  std::lock_guard<std::mutex> lock(mutex_);
  sqlite3_bind_text(put_, 1, key.data(), static_cast<int>(key.size()), SQLITE_TRANSIENT);
  sqlite3_bind_int(put_, 2, static_cast<int>(judgement.label));
  sqlite3_bind_text(put_, 3, judgement.evidence.data(), static_cast<int>(judgement.evidence.size()),
                    SQLITE_TRANSIENT);
  const absl::Status status = sqlite3_step(put_) == SQLITE_DONE ? absl::OkStatus() : Error("write");
  sqlite3_reset(put_);
  return status;
}

}  // namespace

std::string VerdictCacheKey(const std::string& judge_version, const Answer& answer) {
  const absl::string_view ids(reinterpret_cast<const char*>(answer.token_ids.data()),
                              answer.token_ids.size() * sizeof(int32_t));
  return DigestBuilder("verdict/1")
      .Add("judge", absl::string_view(judge_version))
      .Add("text", answer.text)
      .Add("tokens", ids)
      .Add("nonfinite", static_cast<int>(answer.nonfinite))
      .Finish();
}

std::unique_ptr<VerdictCache> MemoryVerdictCache(size_t max_entries) {
  return std::make_unique<Memory>(max_entries);
}

absl::StatusOr<std::unique_ptr<VerdictCache>> SqliteVerdictCache(const std::string& path) {
  auto cache = std::make_unique<Sqlite>(path);
  PLUMB_RETURN_IF_ERROR(cache->Open());
  return std::unique_ptr<VerdictCache>(std::move(cache));
}

}  // namespace plumbline
