// What is SQLite's own: file mode, lock, damage, full disk, newer schema, purged bytes.
#include "services/store/sqlite/sqlite_store.h"

#include <sqlite3.h>
#include <sys/stat.h>
#include <unistd.h>

#include <filesystem>
#include <fstream>
#include <string>
#include <thread>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "services/common/files.h"
#include "services/store/migrations/migrations.h"
#include "tests/support/status_matchers.h"

namespace plumbline {
namespace {

using ::testing::HasSubstr;
using ::testing::Not;
using testing::StatusIs;

class SqliteStoreTest : public ::testing::Test {
 protected:
  SqliteStoreTest() {
    std::string folder = (std::filesystem::temp_directory_path() / "plumb-sqlite-XXXXXX").string();
    folder_ = mkdtemp(folder.data());
    path_ = folder_ + "/store.sqlite";
  }
  ~SqliteStoreTest() override { std::filesystem::remove_all(folder_); }

  NewExperiment Study(int i, const std::string& text) const {
    NewExperiment experiment;
    experiment.id = absl::StrCat("exp-", i);
    experiment.request_id = absl::StrCat("request-", i);
    experiment.request_digest = "d";
    experiment.prompts.emplace_back().add_turns()->set_text(text);
    experiment.now = absl::FromUnixSeconds(1);
    return experiment;
  }

  std::string folder_;
  std::string path_;
};

TEST_F(SqliteStoreTest, TheFilesAreReadableByTheirOwnerAlone) {
  ASSERT_OK_AND_ASSIGN(const auto store, OpenSqliteStore({.path = path_}));
  ASSERT_OK(store->CreateExperiment(Study(1, "x")).status());
  for (const auto& entry : std::filesystem::directory_iterator(folder_)) {
    struct stat info {};
    ASSERT_EQ(stat(entry.path().c_str(), &info), 0);
    EXPECT_EQ(info.st_mode & 0777, 0600u) << entry.path();
  }
}

TEST_F(SqliteStoreTest, ASecondCoordinatorOnTheFileIsRefusedWithThePidOfTheFirst) {
  ASSERT_OK_AND_ASSIGN(auto store, OpenSqliteStore({.path = path_}));
  EXPECT_THAT(OpenSqliteStore({.path = path_}),
              StatusIs(absl::StatusCode::kFailedPrecondition, HasSubstr(absl::StrCat(getpid()))));
  store.reset();
  EXPECT_OK(OpenSqliteStore({.path = path_}));
}

TEST_F(SqliteStoreTest, ACoordinatorWaitsForOneThatIsEnding) {
  ASSERT_OK_AND_ASSIGN(auto store, OpenSqliteStore({.path = path_}));
  absl::StatusOr<std::unique_ptr<Store>> successor = absl::UnknownError("not opened");
  std::thread opening(
      [&] { successor = OpenSqliteStore({.path = path_, .lock_patience = absl::Seconds(60)}); });
  store.reset();
  opening.join();
  EXPECT_OK(successor);
  EXPECT_THAT(OpenSqliteStore({.path = path_, .lock_patience = absl::Milliseconds(30)}),
              StatusIs(absl::StatusCode::kFailedPrecondition));
}

TEST_F(SqliteStoreTest, AMissingFolderAndAnEmptyPathAreNamed) {
  EXPECT_THAT(OpenSqliteStore({.path = folder_ + "/no/store.sqlite"}), Not(testing::IsOk()));
  EXPECT_THAT(OpenSqliteStore({}), StatusIs(absl::StatusCode::kInvalidArgument));
}

TEST_F(SqliteStoreTest, ADamagedFileIsReportedAndLeftAlone) {
  const std::string garbage(8192, 'x');
  ASSERT_OK(WriteFileAtomically(path_, garbage));
  EXPECT_THAT(OpenSqliteStore({.path = path_}),
              StatusIs(absl::StatusCode::kDataLoss, HasSubstr(path_)));
  ASSERT_OK_AND_ASSIGN(const std::string bytes, ReadFile(path_));
  EXPECT_EQ(bytes, garbage);
}

TEST_F(SqliteStoreTest, AFullDiskIsReportedAndLosesNothingThatWasStored) {
  int stored = 0;
  {
    ASSERT_OK_AND_ASSIGN(auto store,
                         OpenSqliteStore({.path = path_, .max_pages = 120, .sync_to_disk = false}));
    absl::Status status;
    for (; stored < 1000 && status.ok(); ++stored) {
      status = store->CreateExperiment(Study(stored, std::string(20000, 'y'))).status();
    }
    ASSERT_THAT(status, StatusIs(absl::StatusCode::kResourceExhausted, HasSubstr("free some")));
    --stored;
    ASSERT_GT(stored, 0);
    ASSERT_OK_AND_ASSIGN(const auto list, store->ListExperiments(0, 1000));
    EXPECT_EQ(list.size(), static_cast<size_t>(stored));
  }
  ASSERT_OK_AND_ASSIGN(auto store, OpenSqliteStore({.path = path_}));
  ASSERT_OK_AND_ASSIGN(const auto list, store->ListExperiments(0, 1000));
  EXPECT_EQ(list.size(), static_cast<size_t>(stored));
  EXPECT_OK(store->CreateExperiment(Study(stored, "there is room again")));
}

TEST_F(SqliteStoreTest, AFileOfANewerSchemaIsRefused) {
  { ASSERT_OK(OpenSqliteStore({.path = path_})); }
  sqlite3* db = nullptr;
  ASSERT_EQ(sqlite3_open(path_.c_str(), &db), SQLITE_OK);
  sqlite3_exec(db, "PRAGMA user_version=999", nullptr, nullptr, nullptr);
  sqlite3_close(db);
  EXPECT_THAT(OpenSqliteStore({.path = path_}),
              StatusIs(absl::StatusCode::kFailedPrecondition, HasSubstr("999")));
}

TEST_F(SqliteStoreTest, PurgedTextsAreGoneFromTheFilesBytes) {
  const std::string secret = "a text that must not stay behind";
  ASSERT_OK_AND_ASSIGN(auto store, OpenSqliteStore({.path = path_}));
  ASSERT_OK(store->CreateExperiment(Study(1, secret)).status());
  ASSERT_OK(store->CancelExperiment("exp-1", absl::FromUnixSeconds(2)));
  ASSERT_OK(store->PurgeTexts("exp-1").status());
  for (const auto& entry : std::filesystem::directory_iterator(folder_)) {
    ASSERT_OK_AND_ASSIGN(const std::string bytes, ReadFile(entry.path().string()));
    EXPECT_THAT(bytes, Not(HasSubstr(secret))) << entry.path();
  }
}

TEST_F(SqliteStoreTest, TextsThatLookLikeSqlAreData) {
  ASSERT_OK_AND_ASSIGN(auto store, OpenSqliteStore({.path = path_}));
  NewExperiment experiment = Study(1, "'); DROP TABLE experiments; --");
  experiment.request_id = "' OR 1=1 --";
  ASSERT_OK(store->CreateExperiment(experiment).status());
  EXPECT_THAT(store->GetExperiment("' OR 1=1 --"), StatusIs(absl::StatusCode::kNotFound));
  ASSERT_OK_AND_ASSIGN(const auto prompts, store->GetPrompts("exp-1"));
  EXPECT_EQ(prompts.prompts.at(0).turns(0).text(), "'); DROP TABLE experiments; --");
}

TEST_F(SqliteStoreTest, AFileOfTheFirstSchemaIsBroughtUpToDate) {
  sqlite3* db = nullptr;
  ASSERT_EQ(sqlite3_open(path_.c_str(), &db), SQLITE_OK);
  const std::string old = absl::StrCat(
      Migrations()[0].sql,
      "PRAGMA user_version = 1;"
      "INSERT INTO cells (cell_key, kind, model_digest, numerics_class_id, spec) VALUES "
      "('k', 1, 'm', 'n', x'');"
      "INSERT INTO results VALUES ('k', x'', 'd', 'w', 5, 1, 3);");
  ASSERT_EQ(sqlite3_exec(db, old.c_str(), nullptr, nullptr, nullptr), SQLITE_OK)
      << sqlite3_errmsg(db);
  sqlite3_close(db);
  ASSERT_OK_AND_ASSIGN(auto store, OpenSqliteStore({.path = path_}));
  EXPECT_OK(store->PutIncarnation({"i", "w", "1", "a machine"}));
  ASSERT_EQ(sqlite3_open(path_.c_str(), &db), SQLITE_OK);
  sqlite3_stmt* row = nullptr;
  ASSERT_EQ(
      sqlite3_prepare_v2(db, "SELECT worker_id, incarnation_id FROM results", -1, &row, nullptr),
      SQLITE_OK);
  ASSERT_EQ(sqlite3_step(row), SQLITE_ROW);
  EXPECT_STREQ(reinterpret_cast<const char*>(sqlite3_column_text(row, 0)), "w");
  EXPECT_STREQ(reinterpret_cast<const char*>(sqlite3_column_text(row, 1)), "");
  sqlite3_finalize(row);
  sqlite3_close(db);
}

TEST(MigrationsTest, TheyAreNumberedWithoutGaps) {
  int number = 0;
  for (const Migration& migration : Migrations()) {
    EXPECT_EQ(migration.name.substr(0, 5), absl::StrFormat("%04d_", ++number));
    EXPECT_FALSE(migration.sql.empty());
  }
  EXPECT_GE(number, 1);
}

}  // namespace
}  // namespace plumbline
