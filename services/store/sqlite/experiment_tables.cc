// Experiments, their prompts and their reports.
#include "absl/strings/str_cat.h"
#include "services/common/status_macros.h"
#include "services/store/sqlite/sqlite_store_impl.h"

namespace plumbline {
namespace {

#define PLUMB_EXPERIMENT_COLUMNS                                                               \
  "SELECT id, number, request_id, request_digest, study, state, stage_index, stage, message, " \
  "created_us, updated_us, ended_us, bound, model, numerics, judge_version, violations, "      \
  "texts_purged FROM experiments "

// The states of an experiment that still wants something: pending, running, waiting.
#define PLUMB_ACTIVE_STATES "(1, 2, 3)"
static_assert(v1::EXPERIMENT_STATE_PENDING == 1 && v1::EXPERIMENT_STATE_RUNNING == 2 &&
              v1::EXPERIMENT_STATE_WAITING == 3);

absl::StatusOr<ExperimentRecord> FromRow(const Query& row) {
  ExperimentRecord record;
  record.id = row.Text(0);
  record.number = row.Int(1);
  record.request_id = row.Text(2);
  record.request_digest = row.Text(3);
  PLUMB_RETURN_IF_ERROR(row.Message(4, &record.study));
  record.state = static_cast<v1::ExperimentState>(row.Int(5));
  record.stage_index = static_cast<int>(row.Int(6));
  record.stage = row.Text(7);
  record.message = row.Text(8);
  record.created = FromMicros(row.Int(9));
  record.updated = FromMicros(row.Int(10));
  record.ended = FromMicros(row.Int(11));
  record.bound = row.Int(12) != 0;
  PLUMB_RETURN_IF_ERROR(row.Message(13, &record.model));
  PLUMB_RETURN_IF_ERROR(row.Message(14, &record.numerics));
  record.judge_version = row.Text(15);
  record.violations = static_cast<uint64_t>(row.Int(16));
  record.texts_purged = row.Int(17) != 0;
  return record;
}

absl::StatusOr<std::vector<ExperimentRecord>> FromRows(Query& query) {
  std::vector<ExperimentRecord> records;
  while (query.Next()) {
    PLUMB_ASSIGN_OR_RETURN(ExperimentRecord record, FromRow(query));
    records.push_back(std::move(record));
  }
  PLUMB_RETURN_IF_ERROR(query.status());
  return records;
}

bool IsActive(v1::ExperimentState state) {
  return state == v1::EXPERIMENT_STATE_PENDING || state == v1::EXPERIMENT_STATE_RUNNING ||
         state == v1::EXPERIMENT_STATE_WAITING;
}

bool IsEndState(v1::ExperimentState state) {
  return state == v1::EXPERIMENT_STATE_SUCCEEDED || state == v1::EXPERIMENT_STATE_FAILED ||
         state == v1::EXPERIMENT_STATE_CANCELLED;
}

}  // namespace

absl::StatusOr<ExperimentRecord> SqliteStore::ReadExperiment(const std::string& id) {
  Query query(db_.get(), PLUMB_EXPERIMENT_COLUMNS "WHERE id = ?1", id);
  if (query.Next()) return FromRow(query);
  PLUMB_RETURN_IF_ERROR(query.status());
  return absl::NotFoundError(absl::StrCat("no experiment '", id, "': `plumb list` shows them"));
}

absl::StatusOr<ExperimentRecord> SqliteStore::CreateExperiment(const NewExperiment& experiment) {
  std::lock_guard<std::mutex> guard(mutex_);
  Transaction transaction(db_.get());
  PLUMB_RETURN_IF_ERROR(transaction.status());
  {
    Query query(db_.get(), PLUMB_EXPERIMENT_COLUMNS "WHERE request_id = ?1", experiment.request_id);
    if (query.Next()) {
      PLUMB_ASSIGN_OR_RETURN(ExperimentRecord there, FromRow(query));
      if (there.request_digest == experiment.request_digest) return there;
      return absl::AlreadyExistsError(absl::StrCat("request_id '", experiment.request_id,
                                                   "' made experiment ", there.id,
                                                   " from another study: send a new request_id"));
    }
    PLUMB_RETURN_IF_ERROR(query.status());
  }
  const int64_t now = ToMicros(experiment.now);
  PLUMB_RETURN_IF_ERROR(db_->Run(
      "INSERT INTO experiments (id, number, request_id, request_digest, study, judge, state, "
      "stage, "
      "created_us, updated_us, model, numerics, report) VALUES (?1, "
      "(SELECT COALESCE(MAX(number), 0) + 1 FROM experiments), ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?8, ?9, "
      "?10, ?11)",
      experiment.id, experiment.request_id, experiment.request_digest, ToBlob(experiment.study),
      experiment.study.judge(), static_cast<int>(v1::EXPERIMENT_STATE_PENDING),
      experiment.first_stage, now, ToBlob(v1::ModelInfo()), ToBlob(v1::NumericsClass()),
      ToBlob(v1::Report())));
  int64_t position = 0;
  for (const v1::Prompt& prompt : experiment.prompts) {
    PLUMB_RETURN_IF_ERROR(db_->Run(
        "INSERT INTO experiment_prompts (experiment_id, position, prompt) VALUES (?1, ?2, ?3)",
        experiment.id, position++, ToBlob(prompt)));
  }
  position = 0;
  for (const v1::PromptSetSummary& set : experiment.prompt_sets) {
    PLUMB_RETURN_IF_ERROR(db_->Run(
        "INSERT INTO experiment_prompt_sets (experiment_id, position, summary) VALUES (?1, ?2, ?3)",
        experiment.id, position++, ToBlob(set)));
  }
  PLUMB_RETURN_IF_ERROR(transaction.Commit());
  return ReadExperiment(experiment.id);
}

absl::StatusOr<ExperimentRecord> SqliteStore::GetExperiment(const std::string& id) {
  std::lock_guard<std::mutex> guard(mutex_);
  return ReadExperiment(id);
}

absl::StatusOr<std::vector<ExperimentRecord>> SqliteStore::ListExperiments(int64_t before_number,
                                                                           int limit) {
  std::lock_guard<std::mutex> guard(mutex_);
  Query query(db_.get(),
              PLUMB_EXPERIMENT_COLUMNS "WHERE ?1 = 0 OR number < ?1 ORDER BY number DESC LIMIT ?2",
              before_number, limit);
  return FromRows(query);
}

absl::StatusOr<std::vector<ExperimentRecord>> SqliteStore::ActiveExperiments() {
  std::lock_guard<std::mutex> guard(mutex_);
  Query query(db_.get(),
              PLUMB_EXPERIMENT_COLUMNS "WHERE state IN " PLUMB_ACTIVE_STATES " ORDER BY number");
  return FromRows(query);
}

absl::StatusOr<ExperimentPrompts> SqliteStore::GetPrompts(const std::string& id) {
  std::lock_guard<std::mutex> guard(mutex_);
  PLUMB_RETURN_IF_ERROR(ReadExperiment(id).status());
  ExperimentPrompts out;
  Query prompts(db_.get(),
                "SELECT prompt FROM experiment_prompts WHERE experiment_id = ?1 ORDER BY position",
                id);
  while (prompts.Next()) {
    PLUMB_RETURN_IF_ERROR(prompts.Message(0, &out.prompts.emplace_back()));
  }
  PLUMB_RETURN_IF_ERROR(prompts.status());
  Query sets(
      db_.get(),
      "SELECT summary FROM experiment_prompt_sets WHERE experiment_id = ?1 ORDER BY position", id);
  while (sets.Next()) PLUMB_RETURN_IF_ERROR(sets.Message(0, &out.prompt_sets.emplace_back()));
  PLUMB_RETURN_IF_ERROR(sets.status());
  return out;
}

absl::Status SqliteStore::BindExperiment(const std::string& id, const v1::ModelInfo& model,
                                         const v1::NumericsClass& numerics,
                                         const std::string& judge_version, const v1::Report& report,
                                         absl::Time now) {
  std::lock_guard<std::mutex> guard(mutex_);
  PLUMB_RETURN_IF_ERROR(ReadExperiment(id).status());
  PLUMB_RETURN_IF_ERROR(
      db_->Run("UPDATE experiments SET bound = 1, model = ?2, numerics = ?3, judge_version = ?4, "
               "report = ?5, "
               "updated_us = ?6 WHERE id = ?1 AND bound = 0 AND state IN " PLUMB_ACTIVE_STATES,
               id, ToBlob(model), ToBlob(numerics), judge_version, ToBlob(report), ToMicros(now)));
  if (db_->changes() == 1) return absl::OkStatus();
  return absl::AbortedError(absl::StrCat("experiment ", id, " is bound already or has ended"));
}

absl::Status SqliteStore::SetState(const std::string& id, v1::ExperimentState state,
                                   const std::string& message, absl::Time now) {
  std::lock_guard<std::mutex> guard(mutex_);
  PLUMB_RETURN_IF_ERROR(ReadExperiment(id).status());
  const int64_t micros = ToMicros(now);
  PLUMB_RETURN_IF_ERROR(db_->Run(
      "UPDATE experiments SET state = ?2, message = ?3, updated_us = ?4, ended_us = ?5 "
      "WHERE id = ?1 AND state IN " PLUMB_ACTIVE_STATES,
      id, static_cast<int>(state), message, micros, IsEndState(state) ? micros : int64_t{0}));
  if (db_->changes() == 1) return absl::OkStatus();
  return absl::AbortedError(absl::StrCat("experiment ", id, " has ended"));
}

absl::Status SqliteStore::CancelExperiment(const std::string& id, absl::Time now) {
  std::lock_guard<std::mutex> guard(mutex_);
  Transaction transaction(db_.get());
  PLUMB_RETURN_IF_ERROR(transaction.status());
  PLUMB_ASSIGN_OR_RETURN(const ExperimentRecord record, ReadExperiment(id));
  if (!IsActive(record.state)) return absl::OkStatus();
  const int64_t micros = ToMicros(now);
  PLUMB_RETURN_IF_ERROR(
      db_->Run("UPDATE experiments SET state = ?2, message = '', updated_us = ?3, ended_us = ?3 "
               "WHERE id = ?1",
               id, static_cast<int>(v1::EXPERIMENT_STATE_CANCELLED), micros));
  // Leased cells that nobody active wants go back unrun: the attempt does not count.
  PLUMB_RETURN_IF_ERROR(db_->Run(
      "UPDATE cells SET state = 0, attempts = attempts - 1 WHERE state = 1 AND cell_key IN "
      "(SELECT cell_key FROM experiment_cells WHERE experiment_id = ?1) AND NOT EXISTS "
      "(SELECT 1 FROM experiment_cells m JOIN experiments e ON e.id = m.experiment_id "
      "WHERE m.cell_key = cells.cell_key AND e.state IN " PLUMB_ACTIVE_STATES ")",
      id));
  PLUMB_RETURN_IF_ERROR(
      db_->Run("DELETE FROM lease_cells WHERE cell_key IN (SELECT cell_key FROM cells WHERE "
               "state = 0)"));
  PLUMB_RETURN_IF_ERROR(DeleteEmptyLeases());
  return transaction.Commit();
}

absl::Status SqliteStore::ResumeExperiment(const std::string& id, absl::Time now) {
  std::lock_guard<std::mutex> guard(mutex_);
  concluded_.clear();  // cells that are set aside may belong to concluded stages too
  PLUMB_ASSIGN_OR_RETURN(const ExperimentRecord record, ReadExperiment(id));
  if (IsActive(record.state)) return absl::OkStatus();
  if (record.state == v1::EXPERIMENT_STATE_SUCCEEDED) {
    return absl::FailedPreconditionError(
        absl::StrCat("experiment ", id, " has succeeded: there is nothing to resume"));
  }
  if (record.texts_purged) {
    return absl::FailedPreconditionError(
        absl::StrCat("the prompts of experiment ", id, " were purged: create the study anew"));
  }
  Transaction transaction(db_.get());
  PLUMB_RETURN_IF_ERROR(transaction.status());
  PLUMB_RETURN_IF_ERROR(
      db_->Run("UPDATE experiments SET state = ?2, message = '', updated_us = ?3, ended_us = 0 "
               "WHERE id = ?1",
               id, static_cast<int>(v1::EXPERIMENT_STATE_PENDING), ToMicros(now)));
  // Who resumes has mended something: what was set aside in the open stage gets its attempts back.
  PLUMB_RETURN_IF_ERROR(db_->Run(
      "UPDATE cells SET state = 0, attempts = 0, not_before_us = 0 WHERE state = 3 AND cell_key IN "
      "(SELECT cell_key FROM experiment_cells WHERE experiment_id = ?1 AND stage_index >= ?2)",
      id, record.stage_index));
  PLUMB_RETURN_IF_ERROR(db_->Run(
      "UPDATE captures SET state = 0, attempts = 0, not_before_us = 0, reason = '' WHERE state = 3 "
      "AND capture_id IN (SELECT capture_id FROM experiment_captures WHERE experiment_id = ?1 AND "
      "stage_index >= ?2)",
      id, record.stage_index));
  return transaction.Commit();
}

absl::Status SqliteStore::RequireStageAhead(const std::string& id, int stage_index) {
  PLUMB_ASSIGN_OR_RETURN(const ExperimentRecord record, ReadExperiment(id));
  if (IsActive(record.state) && stage_index >= record.stage_index) return absl::OkStatus();
  return absl::AbortedError(absl::StrCat("experiment ", id, " has ended or is at stage ",
                                         record.stage_index, ", past ", stage_index));
}

absl::Status SqliteStore::RequireActive(const std::string& id, int stage_index) {
  PLUMB_ASSIGN_OR_RETURN(const ExperimentRecord record, ReadExperiment(id));
  if (IsActive(record.state) && record.stage_index == stage_index) return absl::OkStatus();
  return absl::AbortedError(absl::StrCat("experiment ", id, " has ended or is at stage ",
                                         record.stage_index, ", not ", stage_index));
}

absl::Status SqliteStore::ConcludeStage(const std::string& id, int stage_index,
                                        const v1::Report& report, const std::string& next_stage,
                                        absl::Time now) {
  std::lock_guard<std::mutex> guard(mutex_);
  Transaction transaction(db_.get());
  PLUMB_RETURN_IF_ERROR(transaction.status());
  PLUMB_RETURN_IF_ERROR(RequireActive(id, stage_index));
  const bool last = next_stage.empty();
  const int64_t micros = ToMicros(now);
  PLUMB_RETURN_IF_ERROR(db_->Run(
      "UPDATE experiments SET report = ?2, stage_index = ?3, stage = ?4, state = ?5, message = '', "
      "updated_us = ?6, ended_us = ?7 WHERE id = ?1",
      id, ToBlob(report), stage_index + 1, next_stage,
      static_cast<int>(last ? v1::EXPERIMENT_STATE_SUCCEEDED : v1::EXPERIMENT_STATE_RUNNING),
      micros, last ? micros : int64_t{0}));
  return transaction.Commit();
}

absl::StatusOr<v1::Report> SqliteStore::GetReport(const std::string& id) {
  std::lock_guard<std::mutex> guard(mutex_);
  Query query(db_.get(), "SELECT report FROM experiments WHERE id = ?1", id);
  v1::Report report;
  if (query.Next()) {
    PLUMB_RETURN_IF_ERROR(query.Message(0, &report));
    return report;
  }
  PLUMB_RETURN_IF_ERROR(query.status());
  return absl::NotFoundError(absl::StrCat("no experiment '", id, "'"));
}

}  // namespace plumbline
