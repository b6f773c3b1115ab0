// Taking texts and whole experiments away. A purged result has an empty digest: its verdict counts
// for the experiments that have it, and a later experiment computes the cell anew (AddCell).
#include "absl/strings/str_cat.h"
#include "services/common/status_macros.h"
#include "services/store/sqlite/sqlite_store_impl.h"

namespace plumbline {
namespace {

// Cells of experiment ?1 that no other experiment with texts holds.
#define PLUMB_OWN_CELLS                                                                   \
  "(SELECT m.cell_key FROM experiment_cells m WHERE m.experiment_id = ?1 AND NOT EXISTS " \
  "(SELECT 1 FROM experiment_cells o JOIN experiments e ON e.id = o.experiment_id WHERE " \
  "o.cell_key = m.cell_key AND o.experiment_id <> ?1 AND e.texts_purged = 0))"
#define PLUMB_OWN_CAPTURES                                                                     \
  "(SELECT m.capture_id FROM experiment_captures m WHERE m.experiment_id = ?1 AND NOT EXISTS " \
  "(SELECT 1 FROM experiment_captures o JOIN experiments e ON e.id = o.experiment_id WHERE "   \
  "o.capture_id = m.capture_id AND o.experiment_id <> ?1 AND e.texts_purged = 0))"

// What a result says of the work, without anything of prompt or answer: no token, no probability of
// one, no digest that a guess could be held against.
v1::CellResult WithoutAnswer(v1::CellResult result) {
  result.clear_text();
  result.clear_token_ids();
  result.clear_first_tokens();
  result.clear_prompt_digest();
  return result;
}

v1::Study WithoutTexts(v1::Study study) {
  for (v1::PromptSetRef& set : *study.mutable_prompt_sets()) {
    for (v1::Prompt& prompt : *set.mutable_inline_prompts()) prompt.clear_turns();
  }
  study.clear_system_prompt();
  study.clear_utility_text();
  return study;
}

v1::Report WithoutTexts(v1::Report report) {
  *report.mutable_study() = WithoutTexts(report.study());
  for (v1::AnswerExample& example : *report.mutable_examples()) {
    example.clear_prompt_text();
    example.clear_baseline_text();
    example.clear_answer_text();
  }
  return report;
}

absl::Status RequireEnded(const ExperimentRecord& record) {
  if (record.ended != absl::InfinitePast()) return absl::OkStatus();
  return absl::FailedPreconditionError(
      absl::StrCat("experiment ", record.id, " is still running: cancel it first"));
}

}  // namespace

absl::Status SqliteStore::RemoveAnswers(const std::string& id) {
  std::vector<std::pair<std::string, v1::CellResult>> results;
  {
    Query query(db_.get(),
                "SELECT cell_key, result FROM results WHERE cell_key IN " PLUMB_OWN_CELLS, id);
    while (query.Next()) {
      results.emplace_back().first = query.Text(0);
      PLUMB_RETURN_IF_ERROR(query.Message(1, &results.back().second));
    }
    PLUMB_RETURN_IF_ERROR(query.status());
  }
  for (auto& [key, result] : results) {
    PLUMB_RETURN_IF_ERROR(
        db_->Run("UPDATE results SET result = ?2, digest = '' WHERE cell_key = ?1", key,
                 ToBlob(WithoutAnswer(std::move(result)))));
  }
  // A verdict stays with its cell; its key, a digest of the answer, does not.
  PLUMB_RETURN_IF_ERROR(db_->Run(
      "UPDATE verdicts SET verdict_key = 'cell:' || cell_key WHERE cell_key IN " PLUMB_OWN_CELLS,
      id));
  PLUMB_RETURN_IF_ERROR(
      db_->Run("UPDATE violations SET first_digest = '', second_digest = '' WHERE cell_key "
               "IN " PLUMB_OWN_CELLS,
               id));
  // A second run has nothing left to be compared with.
  return db_->Run("DELETE FROM audits WHERE state < 2 AND cell_key IN " PLUMB_OWN_CELLS, id);
}

absl::StatusOr<PurgeOutcome> SqliteStore::RemoveTexts(const std::string& id) {
  PLUMB_ASSIGN_OR_RETURN(const ExperimentRecord record, ReadExperiment(id));
  PLUMB_RETURN_IF_ERROR(RequireEnded(record));
  PurgeOutcome outcome;
  {
    Query query(db_.get(),
                "SELECT capture_id FROM captures WHERE capture_id IN " PLUMB_OWN_CAPTURES, id);
    while (query.Next()) outcome.captures.push_back(query.Text(0));
    PLUMB_RETURN_IF_ERROR(query.status());
  }
  PLUMB_RETURN_IF_ERROR(RemoveAnswers(id));
  PLUMB_RETURN_IF_ERROR(
      db_->Run("DELETE FROM result_texts WHERE cell_key IN " PLUMB_OWN_CELLS, id));
  outcome.texts_removed += static_cast<uint64_t>(db_->changes());
  PLUMB_RETURN_IF_ERROR(db_->Run("DELETE FROM cell_texts WHERE cell_key IN " PLUMB_OWN_CELLS, id));
  outcome.texts_removed += static_cast<uint64_t>(db_->changes());
  PLUMB_RETURN_IF_ERROR(db_->Run("DELETE FROM experiment_prompts WHERE experiment_id = ?1", id));
  outcome.texts_removed += static_cast<uint64_t>(db_->changes());
  for (const std::string& capture : outcome.captures) {
    PLUMB_RETURN_IF_ERROR(db_->Run(
        "UPDATE captures SET task = ?2, state = 3, reason = 'purged' WHERE capture_id = ?1",
        capture, ToBlob(v1::CaptureTask())));
  }
  v1::Report report;
  {
    Query query(db_.get(), "SELECT report FROM experiments WHERE id = ?1", id);
    if (query.Next()) PLUMB_RETURN_IF_ERROR(query.Message(0, &report));
    PLUMB_RETURN_IF_ERROR(query.status());
  }
  PLUMB_RETURN_IF_ERROR(
      db_->Run("UPDATE experiments SET study = ?2, report = ?3, texts_purged = 1 WHERE id = ?1", id,
               ToBlob(WithoutTexts(record.study)), ToBlob(WithoutTexts(std::move(report)))));
  return outcome;
}

absl::StatusOr<PurgeOutcome> SqliteStore::PurgeTexts(const std::string& id) {
  std::lock_guard<std::mutex> guard(mutex_);
  PurgeOutcome outcome;
  {
    Transaction transaction(db_.get());
    PLUMB_RETURN_IF_ERROR(transaction.status());
    PLUMB_ASSIGN_OR_RETURN(outcome, RemoveTexts(id));
    PLUMB_RETURN_IF_ERROR(transaction.Commit());
  }
  // The write-ahead log still holds the old pages until it is truncated.
  PLUMB_RETURN_IF_ERROR(db_->Run("PRAGMA wal_checkpoint(TRUNCATE)"));
  return outcome;
}

absl::StatusOr<PurgeOutcome> SqliteStore::PurgeExperiment(const std::string& id) {
  std::lock_guard<std::mutex> guard(mutex_);
  concluded_.clear();
  PurgeOutcome outcome;
  {
    Transaction transaction(db_.get());
    PLUMB_RETURN_IF_ERROR(transaction.status());
    PLUMB_ASSIGN_OR_RETURN(outcome, RemoveTexts(id));
    // Deleting the experiment takes its memberships along.
    PLUMB_RETURN_IF_ERROR(db_->Run("DELETE FROM experiments WHERE id = ?1", id));
    PLUMB_RETURN_IF_ERROR(
        db_->Run("DELETE FROM lease_cells WHERE NOT EXISTS (SELECT 1 FROM experiment_cells m WHERE "
                 "m.cell_key = lease_cells.cell_key)"));
    PLUMB_RETURN_IF_ERROR(
        db_->Run("DELETE FROM cells WHERE NOT EXISTS (SELECT 1 FROM experiment_cells m WHERE "
                 "m.cell_key = cells.cell_key)"));
    outcome.cells_removed = static_cast<uint64_t>(db_->changes());
    PLUMB_RETURN_IF_ERROR(
        db_->Run("DELETE FROM captures WHERE NOT EXISTS (SELECT 1 FROM experiment_captures m WHERE "
                 "m.capture_id = captures.capture_id)"));
    PLUMB_RETURN_IF_ERROR(DeleteEmptyLeases());
    PLUMB_RETURN_IF_ERROR(transaction.Commit());
  }
  PLUMB_RETURN_IF_ERROR(db_->Run("PRAGMA wal_checkpoint(TRUNCATE)"));
  return outcome;
}

absl::StatusOr<std::vector<std::string>> SqliteStore::ExperimentsToPurge(absl::Time ended_before) {
  std::lock_guard<std::mutex> guard(mutex_);
  Query query(db_.get(),
              "SELECT id FROM experiments WHERE ended_us > 0 AND ended_us < ?1 AND "
              "texts_purged = 0 ORDER BY number",
              ToMicros(ended_before));
  std::vector<std::string> ids;
  while (query.Next()) ids.push_back(query.Text(0));
  PLUMB_RETURN_IF_ERROR(query.status());
  return ids;
}

}  // namespace plumbline
