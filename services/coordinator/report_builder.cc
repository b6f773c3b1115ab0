#include "services/coordinator/report_builder.h"

#include <map>
#include <string>
#include <utility>

#include "absl/strings/str_cat.h"
#include "services/common/figures.h"
#include "services/common/status_macros.h"
#include "services/coordinator/experiment_driver.h"
#include "services/rpc/state_word.h"

namespace plumbline {
namespace {

constexpr int kExamples = 40;
constexpr int kPage = 500;

void SetTime(absl::Time time, google::protobuf::Timestamp* out) {
  out->set_seconds(absl::ToUnixSeconds(time));
}

absl::Status AddProvenance(Store* store, const ExperimentRecord& record, v1::Report* report) {
  PLUMB_ASSIGN_OR_RETURN(const ExperimentTotals totals, store->GetTotals(record.id));
  v1::Provenance* provenance = report->mutable_provenance();
  provenance->clear_workers();
  for (const v1::WorkerSummary& worker : totals.workers) *provenance->add_workers() = worker;
  SetTime(record.created, provenance->mutable_started());
  if (record.ended != absl::InfinitePast()) SetTime(record.ended, provenance->mutable_ended());
  provenance->set_cells_run(totals.cells - totals.cells_shared - totals.cells_poisoned);
  provenance->set_cells_shared(totals.cells_shared);
  provenance->set_tokens_generated(totals.tokens_generated);
  provenance->set_audited_cells(totals.audited);
  provenance->set_invariance_violations(record.violations);
  if (totals.cells_poisoned > 0) {
    report->add_warnings(absl::StrCat(CountText(totals.cells_poisoned, "cell"),
                                      totals.cells_poisoned == 1 ? " was" : " were",
                                      " set aside after failing too often"));
  }
  if (record.violations > 0) {
    report->add_warnings(
        absl::StrCat(CountText(record.violations, "cell"),
                     " gave different results on two workers: both are quarantined"));
  }
  return absl::OkStatus();
}

// Calls visit(row) for every row of the experiment.
template <typename Visit>
absl::Status ForEachRow(Store* store, const std::string& id, bool with_texts, Visit visit) {
  std::string key;
  std::string condition;
  while (true) {
    PLUMB_ASSIGN_OR_RETURN(const std::vector<ResultRow> rows,
                           store->ListResults(id, key, condition, kPage, with_texts));
    if (rows.empty()) return absl::OkStatus();
    for (const ResultRow& row : rows) visit(row);
    key = rows.back().cell_key;
    condition = rows.back().condition;
  }
}

absl::Status AddCanonicalCells(Store* store, const std::string& id, v1::Report* report) {
  std::string last;
  return ForEachRow(store, id, /*with_texts=*/false, [&](const ResultRow& row) {
    if (row.cell_key == last) return;  // one cell, several conditions
    last = row.cell_key;
    v1::CanonicalCell* cell = report->add_cells();
    cell->set_cell_key(row.cell_key);
    *cell->mutable_token_ids() = row.result.token_ids();
    cell->set_finish_reason(row.result.finish_reason());
    if (row.has_verdict) cell->set_verdict(row.verdict.label());
    cell->set_nll_sum(row.result.nll_sum());
  });
}

absl::Status AddExampleTexts(Store* store, const std::string& id, v1::Report* report) {
  std::map<std::string, std::string> answers;  // by set, prompt and condition
  const auto name = [](const std::string& set, const std::string& prompt,
                       const std::string& condition) {
    return absl::StrCat(set, "\n", prompt, "\n", condition);
  };
  std::map<std::string, std::string> prompts;
  PLUMB_RETURN_IF_ERROR(ForEachRow(store, id, /*with_texts=*/true, [&](const ResultRow& row) {
    answers[name(row.prompt_set, row.prompt_id, row.condition)] = row.result.text();
    if (row.spec.turns().empty()) return;
    prompts[name(row.prompt_set, row.prompt_id, "")] = row.spec.turns().rbegin()->text();
  }));
  for (v1::AnswerExample& example : *report->mutable_examples()) {
    const auto text = [&](const std::string& condition) {
      return answers[name(example.prompt_set(), example.prompt_id(), condition)];
    };
    example.set_prompt_text(prompts[name(example.prompt_set(), example.prompt_id(), "")]);
    example.set_baseline_text(text("baseline"));
    example.set_answer_text(text(example.condition()));
  }
  return absl::OkStatus();
}

absl::Status AddExamples(Store* store, const StudyLogic& logic, const ExperimentRecord& record,
                         bool show_texts, v1::Report* report) {
  if (record.texts_purged) return absl::OkStatus();
  PLUMB_ASSIGN_OR_RETURN(const StudyContext context, LoadContext(store, record));
  ResultCache results;
  for (int stage = 0; stage < record.stage_index; ++stage) {
    PLUMB_ASSIGN_OR_RETURN(std::vector<FinishedCell> cells, store->FinishedCells(record.id, stage));
    results.Add(std::move(cells));
  }
  report->clear_examples();
  for (v1::AnswerExample& example : logic.Examples(context, *report, results, kExamples)) {
    *report->add_examples() = std::move(example);
  }
  return show_texts ? AddExampleTexts(store, record.id, report) : absl::OkStatus();
}

}  // namespace

absl::StatusOr<v1::Report> BuildReport(Store* store, const StudyLogic& logic,
                                       const ExperimentRecord& record,
                                       const ReportRequest& request) {
  if (record.stage_index == 0) {
    return absl::FailedPreconditionError(absl::StrCat(
        "experiment ", record.id, " has nothing to report yet: its first stage (", record.stage,
        ") is not done; `plumb watch ", record.id, "` shows how far it is"));
  }
  PLUMB_ASSIGN_OR_RETURN(v1::Report report, store->GetReport(record.id));
  PLUMB_RETURN_IF_ERROR(AddProvenance(store, record, &report));
  PLUMB_RETURN_IF_ERROR(AddExamples(store, logic, record, request.show_texts, &report));
  if (record.ended == absl::InfinitePast() || record.state != v1::EXPERIMENT_STATE_SUCCEEDED) {
    report.add_warnings(absl::StrCat("the study is not finished (",
                                     ExperimentStateWord(record.state), ", stage ", record.stage,
                                     "): what follows is what is known so far"));
  }
  if (request.format == v1::REPORT_FORMAT_CANONICAL) {
    PLUMB_RETURN_IF_ERROR(AddCanonicalCells(store, record.id, &report));
  }
  return report;
}

}  // namespace plumbline
