// Cells and what experiments want them for.
#include "absl/strings/str_cat.h"
#include "services/common/status_macros.h"
#include "services/store/sqlite/sqlite_store_impl.h"

namespace plumbline {
namespace {

static_assert(static_cast<int>(WorkState::kStored) == 2 &&
              static_cast<int>(WorkState::kPoisoned) == 3 && v1::CELL_KIND_SCORE == 2);

// Turns travel as the only field of a message that holds turns.
Blob TurnsBlob(const v1::CellSpec& spec) {
  v1::CellSpec turns;
  *turns.mutable_turns() = spec.turns();
  return ToBlob(turns);
}

v1::Verdict VerdictFromRow(const Query& row, int label_column) {
  v1::Verdict verdict;
  verdict.set_label(static_cast<v1::VerdictLabel>(row.Int(label_column)));
  verdict.set_judge(row.Text(label_column + 1));
  verdict.set_judge_version(row.Text(label_column + 2));
  verdict.set_evidence(row.Text(label_column + 3));
  return verdict;
}

}  // namespace

// A new experiment must not conclude from a result whose answer is gone: another judge could not
// read it, tokens could not be compared. The cell runs again and gives the same bits; until then
// what is left of the result, its verdicts among it, stays for the experiments that have it.
absl::Status SqliteStore::ReopenPurgedCell(const std::string& cell_key) {
  return db_->Run(
      "UPDATE cells SET state = 0, attempts = 0, not_before_us = 0 WHERE cell_key = ?1 "
      "AND EXISTS (SELECT 1 FROM results WHERE cell_key = ?1 AND digest = '')",
      cell_key);
}

absl::Status SqliteStore::AddCell(const std::string& experiment_id, int stage_index,
                                  const std::string& stage, const CellMember& member) {
  v1::CellSpec without_texts = member.spec;
  without_texts.clear_turns();
  PLUMB_RETURN_IF_ERROR(
      db_->Run("INSERT INTO cells (cell_key, kind, model_digest, numerics_class_id, spec) "
               "VALUES (?1, ?2, ?3, ?4, ?5) ON CONFLICT DO NOTHING",
               member.key, static_cast<int>(member.spec.kind()), member.spec.model_digest(),
               member.spec.numerics_class_id(), ToBlob(without_texts)));
  PLUMB_RETURN_IF_ERROR(ReopenPurgedCell(member.key));
  PLUMB_RETURN_IF_ERROR(
      db_->Run("INSERT INTO cell_texts (cell_key, turns) VALUES (?1, ?2) ON CONFLICT DO NOTHING",
               member.key, TurnsBlob(member.spec)));
  // Shared: stored before this experiment first asked for it.
  return db_->Run(
      "INSERT INTO experiment_cells (experiment_id, cell_key, cell_condition, prompt_id, "
      "prompt_set, "
      "stage_index, stage, position, shared) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, "
      "CASE WHEN EXISTS (SELECT 1 FROM results WHERE cell_key = ?2 AND digest <> '') AND NOT "
      "EXISTS (SELECT 1 FROM "
      "experiment_cells WHERE experiment_id = ?1 AND cell_key = ?2 AND shared = 0) "
      "THEN 1 ELSE 0 END) ON CONFLICT DO NOTHING",
      experiment_id, member.key, member.condition, member.prompt_id, member.prompt_set, stage_index,
      stage, member.position);
}

absl::Status SqliteStore::AddCells(const std::string& experiment_id, int stage_index,
                                   const std::string& stage,
                                   const std::vector<CellMember>& members) {
  std::lock_guard<std::mutex> guard(mutex_);
  Transaction transaction(db_.get());
  PLUMB_RETURN_IF_ERROR(transaction.status());
  PLUMB_RETURN_IF_ERROR(RequireStageAhead(experiment_id, stage_index));
  for (const CellMember& member : members) {
    PLUMB_RETURN_IF_ERROR(AddCell(experiment_id, stage_index, stage, member));
  }
  return transaction.Commit();
}

absl::StatusOr<std::vector<StageCount>> SqliteStore::CountStages(const std::string& experiment_id) {
  std::lock_guard<std::mutex> guard(mutex_);
  int64_t open_stage = 0;
  {
    Query stage(db_.get(), "SELECT stage_index FROM experiments WHERE id = ?1", experiment_id);
    if (stage.Next()) open_stage = stage.Int(0);
    PLUMB_RETURN_IF_ERROR(stage.status());
  }
  ConcludedCounts& concluded = concluded_[experiment_id];
  Query query(
      db_.get(),
      "SELECT stage_index, MIN(stage), COUNT(*), "
      "SUM(CASE WHEN state = 3 OR (state = 2 AND (kind = 2 OR judged = 1)) THEN 1 ELSE 0 END), "
      "SUM(CASE WHEN state = 2 THEN 1 ELSE 0 END), SUM(CASE WHEN state = 3 THEN 1 ELSE 0 END), "
      "SUM(shared) FROM (SELECT m.stage_index AS stage_index, MIN(m.stage) AS stage, "
      "MIN(c.state) AS state, MIN(c.kind) AS kind, MIN(m.shared) AS shared, "
      "MIN(CASE WHEN v.cell_key IS NULL THEN 0 ELSE 1 END) AS judged "
      "FROM experiments e JOIN experiment_cells m ON m.experiment_id = e.id "
      "JOIN cells c ON c.cell_key = m.cell_key LEFT JOIN verdicts v ON v.cell_key = m.cell_key "
      "AND v.judge = e.judge AND v.judge_version = e.judge_version WHERE e.id = ?1 "
      "AND m.stage_index >= ?2 "
      "GROUP BY m.stage_index, m.cell_key) AS one_row_a_cell GROUP BY stage_index "
      "ORDER BY stage_index",
      experiment_id, concluded.stages);
  std::vector<StageCount> counts = concluded.counts;
  while (query.Next()) {
    StageCount count;
    count.stage_index = static_cast<int>(query.Int(0));
    count.stage = query.Text(1);
    count.total = static_cast<uint64_t>(query.Int(2));
    count.finished = static_cast<uint64_t>(query.Int(3));
    count.stored = static_cast<uint64_t>(query.Int(4));
    count.poisoned = static_cast<uint64_t>(query.Int(5));
    count.shared = static_cast<uint64_t>(query.Int(6));
    counts.push_back(std::move(count));
  }
  PLUMB_RETURN_IF_ERROR(query.status());
  concluded.stages = open_stage;
  concluded.counts.clear();
  for (const StageCount& count : counts) {
    if (count.stage_index < open_stage) concluded.counts.push_back(count);
  }
  return counts;
}

// From the last: cells are handed out from the first.
absl::StatusOr<bool> SqliteStore::StageHasWork(const std::string& experiment_id, int stage_index) {
  std::lock_guard<std::mutex> guard(mutex_);
  Query query(db_.get(),
              "SELECT 1 FROM experiment_cells m JOIN cells c ON c.cell_key = m.cell_key WHERE "
              "m.experiment_id = ?1 AND m.stage_index = ?2 AND c.state < 2 "
              "ORDER BY m.position DESC LIMIT 1",
              experiment_id, stage_index);
  const bool work = query.Next();
  PLUMB_RETURN_IF_ERROR(query.status());
  return work;
}

absl::StatusOr<std::vector<FinishedCell>> SqliteStore::FinishedCells(
    const std::string& experiment_id, int stage_index) {
  std::lock_guard<std::mutex> guard(mutex_);
  Query query(
      db_.get(),
      "SELECT c.cell_key, c.state, c.reason, r.result, COALESCE(t.answer, ''), "
      "CASE WHEN v.cell_key IS NULL THEN 0 ELSE 1 END, v.label, v.judge, v.judge_version, "
      "v.evidence "
      "FROM experiments e JOIN cells c ON c.cell_key IN (SELECT cell_key FROM experiment_cells "
      "WHERE experiment_id = ?1 AND stage_index = ?2) "
      "LEFT JOIN results r ON r.cell_key = c.cell_key "
      "LEFT JOIN result_texts t ON t.cell_key = c.cell_key "
      "LEFT JOIN verdicts v ON v.cell_key = c.cell_key AND v.judge = e.judge AND "
      "v.judge_version = e.judge_version WHERE e.id = ?1 AND (c.state = 3 OR (c.state = 2 AND "
      "(c.kind = 2 OR v.cell_key IS NOT NULL))) ORDER BY c.cell_key",
      experiment_id, stage_index);
  std::vector<FinishedCell> cells;
  while (query.Next()) {
    FinishedCell cell;
    cell.cell_key = query.Text(0);
    cell.poisoned = query.Int(1) == static_cast<int>(WorkState::kPoisoned);
    if (cell.poisoned) {
      cell.poison_reason = query.Text(2);
    } else {
      PLUMB_RETURN_IF_ERROR(query.Message(3, &cell.result));
      cell.result.set_text(query.Text(4));
      if (query.Int(5) != 0) cell.verdict = VerdictFromRow(query, 6);
    }
    cells.push_back(std::move(cell));
  }
  PLUMB_RETURN_IF_ERROR(query.status());
  return cells;
}

absl::StatusOr<std::vector<ResultRow>> SqliteStore::ListResults(const std::string& experiment_id,
                                                                const std::string& after_key,
                                                                const std::string& after_condition,
                                                                int limit, bool with_texts) {
  std::lock_guard<std::mutex> guard(mutex_);
  PLUMB_RETURN_IF_ERROR(ReadExperiment(experiment_id).status());
  Query query(
      db_.get(),
      "SELECT m.cell_key, m.cell_condition, m.prompt_id, m.prompt_set, m.stage, c.spec, c.state, "
      "c.reason, r.result, COALESCE(t.answer, ''), COALESCE(x.turns, ''), "
      "CASE WHEN v.cell_key IS NULL THEN 0 ELSE 1 END, v.label, v.judge, v.judge_version, "
      "v.evidence "
      "FROM experiments e JOIN experiment_cells m ON m.experiment_id = e.id "
      "JOIN cells c ON c.cell_key = m.cell_key LEFT JOIN results r ON r.cell_key = m.cell_key "
      "LEFT JOIN result_texts t ON t.cell_key = m.cell_key "
      "LEFT JOIN cell_texts x ON x.cell_key = m.cell_key "
      "LEFT JOIN verdicts v ON v.cell_key = m.cell_key AND v.judge = e.judge AND "
      "v.judge_version = e.judge_version WHERE e.id = ?1 AND (m.cell_key > ?2 OR "
      "(m.cell_key = ?2 AND m.cell_condition > ?3)) ORDER BY m.cell_key, m.cell_condition LIMIT ?4",
      experiment_id, after_key, after_condition, limit);
  std::vector<ResultRow> rows;
  while (query.Next()) {
    ResultRow row;
    row.cell_key = query.Text(0);
    row.condition = query.Text(1);
    row.prompt_id = query.Text(2);
    row.prompt_set = query.Text(3);
    row.stage = query.Text(4);
    PLUMB_RETURN_IF_ERROR(query.Message(5, &row.spec));
    row.state = static_cast<WorkState>(query.Int(6));
    row.poison_reason = query.Text(7);
    if (row.state == WorkState::kStored) PLUMB_RETURN_IF_ERROR(query.Message(8, &row.result));
    if (with_texts) {
      row.result.set_text(query.Text(9));
      v1::CellSpec turns;
      PLUMB_RETURN_IF_ERROR(query.Message(10, &turns));
      *row.spec.mutable_turns() = turns.turns();
    }
    row.has_verdict = query.Int(11) != 0;
    if (row.has_verdict) row.verdict = VerdictFromRow(query, 12);
    rows.push_back(std::move(row));
  }
  PLUMB_RETURN_IF_ERROR(query.status());
  return rows;
}

absl::StatusOr<ExperimentTotals> SqliteStore::GetTotals(const std::string& experiment_id) {
  std::lock_guard<std::mutex> guard(mutex_);
  ExperimentTotals totals;
  Query sums(
      db_.get(),
      "SELECT COUNT(*), COALESCE(SUM(shared), 0), "
      "COALESCE(SUM(CASE WHEN state = 3 THEN 1 ELSE 0 END), 0), "
      "COALESCE(SUM(CASE WHEN shared = 0 THEN tokens ELSE 0 END), 0), "
      "COALESCE(SUM(audited), 0) FROM (SELECT MIN(m.shared) AS shared, "
      "MIN(c.state) AS state, MIN(COALESCE(r.tokens, 0)) AS tokens, "
      "MAX(CASE WHEN a.state >= 2 THEN 1 ELSE 0 END) AS audited FROM experiment_cells m "
      "JOIN cells c ON c.cell_key = m.cell_key LEFT JOIN results r ON r.cell_key = m.cell_key "
      "LEFT JOIN audits a ON a.cell_key = m.cell_key WHERE m.experiment_id = ?1 "
      "GROUP BY m.cell_key) AS one_row_a_cell",
      experiment_id);
  if (sums.Next()) {
    totals.cells = static_cast<uint64_t>(sums.Int(0));
    totals.cells_shared = static_cast<uint64_t>(sums.Int(1));
    totals.cells_poisoned = static_cast<uint64_t>(sums.Int(2));
    totals.tokens_generated = static_cast<uint64_t>(sums.Int(3));
    totals.audited = static_cast<uint64_t>(sums.Int(4));
  }
  PLUMB_RETURN_IF_ERROR(sums.status());
  Query workers(db_.get(),
                "SELECT r.worker_id, COALESCE(i.version, ''), COALESCE(i.machine, ''), COUNT(*) "
                "FROM results r LEFT JOIN incarnations i ON i.incarnation_id = r.incarnation_id "
                "WHERE r.cell_key IN (SELECT cell_key FROM experiment_cells WHERE "
                "experiment_id = ?1) GROUP BY 1, 2, 3 ORDER BY 1, 2, 3",
                experiment_id);
  while (workers.Next()) {
    v1::WorkerSummary& worker = totals.workers.emplace_back();
    worker.set_worker_id(workers.Text(0));
    worker.set_version(workers.Text(1));
    worker.set_machine(workers.Text(2));
    worker.set_cells(static_cast<uint64_t>(workers.Int(3)));
  }
  PLUMB_RETURN_IF_ERROR(workers.status());
  return totals;
}

absl::StatusOr<uint64_t> SqliteStore::CountResultsSince(const std::string& experiment_id,
                                                        int stage_index, absl::Time since) {
  std::lock_guard<std::mutex> guard(mutex_);
  Query query(db_.get(),
              "SELECT COUNT(DISTINCT r.cell_key) FROM experiment_cells m JOIN results r ON "
              "r.cell_key = m.cell_key WHERE m.experiment_id = ?1 AND m.stage_index = ?2 AND "
              "m.shared = 0 AND r.stored_us > ?3",
              experiment_id, stage_index, ToMicros(since));
  uint64_t count = 0;
  if (query.Next()) count = static_cast<uint64_t>(query.Int(0));
  PLUMB_RETURN_IF_ERROR(query.status());
  return count;
}

absl::StatusOr<std::vector<UnjudgedCell>> SqliteStore::UnjudgedCells(
    const std::string& judge, const std::string& judge_version, int limit) {
  std::lock_guard<std::mutex> guard(mutex_);
  Query query(
      db_.get(),
      "SELECT DISTINCT r.cell_key, r.result, COALESCE(t.answer, ''), COALESCE(x.turns, ''), "
      "CASE WHEN t.cell_key IS NULL THEN 1 ELSE 0 END FROM experiments e "
      "JOIN experiment_cells m ON m.experiment_id = e.id AND m.stage_index >= e.stage_index "
      "JOIN cells c ON c.cell_key = m.cell_key AND c.kind = 1 AND c.state = 2 "
      "JOIN results r ON r.cell_key = m.cell_key LEFT JOIN result_texts t ON t.cell_key = "
      "r.cell_key "
      "LEFT JOIN cell_texts x ON x.cell_key = r.cell_key WHERE e.state IN (1, 2, 3) AND e.bound = "
      "1 "
      "AND e.judge = ?1 AND e.judge_version = ?2 AND NOT EXISTS (SELECT 1 FROM verdicts v WHERE "
      "v.cell_key = r.cell_key AND v.judge = ?1 AND v.judge_version = ?2) LIMIT ?3",
      judge, judge_version, limit);
  std::vector<UnjudgedCell> cells;
  while (query.Next()) {
    UnjudgedCell cell;
    cell.cell_key = query.Text(0);
    PLUMB_RETURN_IF_ERROR(query.Message(1, &cell.result));
    cell.result.set_text(query.Text(2));
    v1::CellSpec turns;
    PLUMB_RETURN_IF_ERROR(query.Message(3, &turns));
    cell.turns.assign(turns.turns().begin(), turns.turns().end());
    cell.text_purged = query.Int(4) != 0;
    cells.push_back(std::move(cell));
  }
  PLUMB_RETURN_IF_ERROR(query.status());
  return cells;
}

absl::StatusOr<v1::Verdict> SqliteStore::FindVerdict(const std::string& verdict_key) {
  std::lock_guard<std::mutex> guard(mutex_);
  Query query(db_.get(),
              "SELECT label, judge, judge_version, evidence FROM verdicts WHERE verdict_key = ?1 "
              "LIMIT 1",
              verdict_key);
  if (query.Next()) return VerdictFromRow(query, 0);
  PLUMB_RETURN_IF_ERROR(query.status());
  return absl::NotFoundError(absl::StrCat("no verdict ", verdict_key));
}

absl::Status SqliteStore::PutVerdicts(const std::vector<NewVerdict>& verdicts, bool drop_texts) {
  std::lock_guard<std::mutex> guard(mutex_);
  Transaction transaction(db_.get());
  PLUMB_RETURN_IF_ERROR(transaction.status());
  for (const NewVerdict& item : verdicts) {
    const v1::Verdict& verdict = item.verdict;
    PLUMB_RETURN_IF_ERROR(db_->Run(
        "INSERT INTO verdicts (cell_key, judge, judge_version, verdict_key, label, evidence) "
        "SELECT ?1, ?2, ?3, ?4, ?5, ?6 WHERE EXISTS (SELECT 1 FROM results WHERE cell_key = ?1) "
        "ON CONFLICT DO NOTHING",
        item.cell_key, verdict.judge(), verdict.judge_version(), item.verdict_key,
        static_cast<int>(verdict.label()), verdict.evidence()));
    if (drop_texts) {
      PLUMB_RETURN_IF_ERROR(
          db_->Run("DELETE FROM result_texts WHERE cell_key = ?1", item.cell_key));
    }
  }
  return transaction.Commit();
}

}  // namespace plumbline
