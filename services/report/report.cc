#include "services/report/report.h"

#include <google/protobuf/util/json_util.h>

#include <algorithm>

#include "absl/strings/str_cat.h"
#include "services/common/status_macros.h"
#include "services/report/html.h"
#include "services/report/tables.h"

namespace plumbline {
namespace {

// What must not leave unasked: harmful texts, and long inputs that digests stand for.
v1::Report WithoutTexts(v1::Report report, bool show_texts) {
  for (v1::PromptSetRef& ref : *report.mutable_study()->mutable_prompt_sets()) {
    ref.clear_inline_prompts();
  }
  report.mutable_study()->clear_utility_text();
  if (show_texts) return report;
  for (v1::AnswerExample& example : *report.mutable_examples()) {
    example.clear_prompt_text();
    example.clear_baseline_text();
    example.clear_answer_text();
  }
  return report;
}

// What two runs of one study have in common.
v1::Report Canonical(v1::Report report) {
  report.clear_experiment_id();
  v1::Provenance* provenance = report.mutable_provenance();
  provenance->clear_workers();
  provenance->clear_started();
  provenance->clear_ended();
  provenance->clear_cells_run();
  provenance->clear_cells_shared();
  provenance->clear_tokens_generated();
  provenance->clear_audited_cells();
  provenance->clear_config_digest();
  std::sort(report.mutable_cells()->begin(), report.mutable_cells()->end(),
            [](const v1::CanonicalCell& a, const v1::CanonicalCell& b) {
              return a.cell_key() < b.cell_key();
            });
  return report;
}

absl::StatusOr<std::string> ToJson(const v1::Report& report) {
  google::protobuf::util::JsonPrintOptions options;
  options.add_whitespace = true;
  options.preserve_proto_field_names = true;
  std::string json;
  const auto status = google::protobuf::util::MessageToJsonString(report, &json, options);
  if (!status.ok()) {
    return absl::InternalError(absl::StrCat("report to JSON: ", status.ToString()));
  }
  return json;
}

std::vector<ReportFile> TableFiles(const v1::Report& report, const std::string& extension,
                                   std::string (*render)(const Table&)) {
  std::vector<ReportFile> files;
  for (const Table& table : ReportTables(report)) {
    files.push_back({absl::StrCat(table.name, ".", extension), render(table)});
  }
  return files;
}

}  // namespace

absl::StatusOr<std::vector<ReportFile>> RenderReport(const v1::Report& report,
                                                     v1::ReportFormat format, bool show_texts) {
  v1::Report shown = WithoutTexts(report, show_texts);
  if (format != v1::REPORT_FORMAT_CANONICAL) shown.clear_cells();
  switch (format) {
    case v1::REPORT_FORMAT_HTML:
      return std::vector<ReportFile>{{"report.html", RenderHtml(shown)}};
    case v1::REPORT_FORMAT_JSON: {
      PLUMB_ASSIGN_OR_RETURN(std::string json, ToJson(shown));
      return std::vector<ReportFile>{{"report.json", std::move(json)}};
    }
    case v1::REPORT_FORMAT_CSV:
      return TableFiles(shown, "csv", CsvTable);
    case v1::REPORT_FORMAT_LATEX:
      return TableFiles(shown, "tex", LatexTable);
    case v1::REPORT_FORMAT_CANONICAL: {
      PLUMB_ASSIGN_OR_RETURN(std::string json, ToJson(Canonical(std::move(shown))));
      return std::vector<ReportFile>{{"canonical.json", std::move(json)}};
    }
    default:
      return absl::InvalidArgumentError(
          "report format is not set; use HTML, JSON, CSV, LATEX or CANONICAL");
  }
}

}  // namespace plumbline
