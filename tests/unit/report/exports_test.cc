// A whole report as CSV and LaTeX: which files there are, and rows of each against what went in.
#include <algorithm>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "absl/strings/strip.h"
#include "gtest/gtest.h"
#include "services/report/report.h"
#include "tests/support/status_matchers.h"
#include "tests/unit/report/sample_report.h"

namespace plumbline {
namespace {

using ::testing::HasSubstr;
using Row = std::vector<std::string>;

v1::ConditionResult Condition(const std::string& name, uint64_t flips, uint64_t trials) {
  v1::ConditionResult condition = testing::Condition(name, flips, trials);
  condition.set_memory_vs_fp(0.28);
  condition.mutable_flip_rate()->set_low(0.125);
  condition.mutable_flip_rate()->set_high(0.25);
  return condition;
}

void AddPlan(v1::Report* report) {
  v1::PlanResult* plan = report->add_plans();
  plan->set_name("group-64");
  plan->set_plan("*:int4.asym.group64");
  *plan->mutable_validation() = Condition("validation", 2, 40);
  plan->mutable_recovery()->set_defined(true);
  plan->mutable_recovery()->set_estimate(0.75);
  plan->set_memory_vs_target(1.02);
  plan->set_recommended(true);
}

// Something in every table.
v1::Report FullReport() {
  v1::Report report;
  report.mutable_study()->set_target("*:int4.asym.token");
  *report.add_sweep() = Condition("int8.asym.token", 1, 100);
  *report.add_sweep() = Condition("int4.asym.token", 14, 100);
  v1::LayerResult* layer = report.add_layers();
  layer->set_layer(19);
  *layer->mutable_screen() = Condition("layer", 9, 24);
  layer->set_critical(true);
  *report.add_combined() = Condition("all layers", 30, 60);
  report.mutable_channels()->set_layer(19);
  *report.mutable_channels()->add_conditions() = Condition("per tensor", 40, 50);
  AddPlan(&report);
  v1::ConditionResult* noise = report.mutable_floor()->add_conditions();
  *noise = Condition("int4.asym.token", 14, 100);
  noise->set_floor_measured(true);
  noise->set_floor_flips(5);
  noise->set_floor_prompts(38);
  noise->set_floor_cells(76);
  noise->set_floor_changes(19);
  v1::FormatError* error = report.add_kv_errors();
  error->set_format("int4.asym.token");
  error->set_layer(19);
  error->mutable_keys()->set_relative_mse(0.0123);
  v1::KeyOutliers* keys = report.mutable_channels()->add_key_outliers();
  keys->set_layer(19);
  keys->set_largest_channel(34);
  keys->set_largest(12.5);
  v1::PromptSetSummary* prompts = report.mutable_provenance()->add_prompt_sets();
  prompts->set_name("refusals");
  prompts->set_prompts(240);
  prompts->set_repeated_texts(6);
  report.mutable_provenance()->set_cells_run(4711);
  return report;
}

const Row& TableNames() {
  static const auto* const names =
      new Row{"sweep", "layers",    "combined",     "channels", "plans",
              "floor", "kv_errors", "key_outliers", "prompts",  "provenance"};
  return *names;
}

Row FileNames(const std::string& extension) {
  Row names;
  for (const std::string& table : TableNames()) names.push_back(absl::StrCat(table, extension));
  return names;
}

// The lines of one file; `columns` and `rows` alike.
struct Parsed {
  Row columns;
  std::vector<Row> rows;

  std::string Cell(size_t row, const std::string& column) const {
    const auto found = std::find(columns.begin(), columns.end(), column);
    if (found == columns.end() || row >= rows.size()) return absl::StrCat("no ", column);
    return rows[row][static_cast<size_t>(found - columns.begin())];
  }
};

// Of RFC 4180 what the cells here need: quoted commas.
Row CsvCells(absl::string_view line) {
  Row cells(1);
  bool quoted = false;
  for (const char c : line) {
    if (c == '"') {
      quoted = !quoted;
    } else if (c == ',' && !quoted) {
      cells.emplace_back();
    } else {
      cells.back() += c;
    }
  }
  return cells;
}

Parsed ParseCsv(const std::string& bytes) {
  Parsed parsed;
  for (absl::string_view line : absl::StrSplit(bytes, "\r\n", absl::SkipEmpty())) {
    Row cells = CsvCells(line);
    if (parsed.columns.empty()) {
      parsed.columns = std::move(cells);
    } else {
      EXPECT_EQ(cells.size(), parsed.columns.size()) << line;
      parsed.rows.push_back(std::move(cells));
    }
  }
  return parsed;
}

Parsed ParseLatex(const std::string& bytes) {
  Parsed parsed;
  for (absl::string_view line : absl::StrSplit(bytes, '\n')) {
    if (!absl::ConsumeSuffix(&line, " \\\\")) continue;
    absl::ConsumePrefix(&line, "{}");
    Row cells = absl::StrSplit(line, " & ");
    if (parsed.columns.empty()) {
      parsed.columns = std::move(cells);
    } else {
      EXPECT_EQ(cells.size(), parsed.columns.size()) << line;
      parsed.rows.push_back(std::move(cells));
    }
  }
  return parsed;
}

std::map<std::string, std::string> Files(v1::ReportFormat format, const Row& names) {
  const auto files = RenderReport(FullReport(), format, /*show_texts=*/false);
  EXPECT_OK(files);
  Row found;
  std::map<std::string, std::string> bytes;
  for (const ReportFile& file : *files) {
    found.push_back(file.name);
    bytes[file.name] = file.bytes;
  }
  EXPECT_EQ(found, names);
  return bytes;
}

TEST(CsvReportTest, EveryTableIsAFileAndItsRowsHoldTheReportsFigures) {
  auto files = Files(v1::REPORT_FORMAT_CSV, FileNames(".csv"));
  const Parsed sweep = ParseCsv(files["sweep.csv"]);
  ASSERT_EQ(sweep.rows.size(), 2u);
  EXPECT_EQ(sweep.Cell(1, "condition"), "int4.asym.token");
  EXPECT_EQ(sweep.Cell(1, "flips"), "14/100");
  EXPECT_EQ(sweep.Cell(1, "flip rate [95%]"), "14.0% [12.5%, 25.0%]");
  EXPECT_EQ(sweep.Cell(1, "KV memory"), "0.28x");
  EXPECT_EQ(sweep.Cell(1, "plan"), "*:int4.asym.token");
  const Parsed layers = ParseCsv(files["layers.csv"]);
  EXPECT_EQ(layers.Cell(0, "layer"), "19");
  EXPECT_EQ(layers.Cell(0, "screen"), "9/24");
  EXPECT_EQ(layers.Cell(0, "critical"), "yes");
  EXPECT_EQ(ParseCsv(files["combined.csv"]).Cell(0, "flips"), "30/60");
  EXPECT_EQ(ParseCsv(files["channels.csv"]).Cell(0, "condition"), "per tensor");
  EXPECT_EQ(ParseCsv(files["channels.csv"]).Cell(0, "flips"), "40/50");
  EXPECT_THAT(files["plans.csv"], HasSubstr("\r\n1,group-64,recommended,2/40,"));
  const Parsed plans = ParseCsv(files["plans.csv"]);
  EXPECT_EQ(plans.Cell(0, "KV memory"), "1.02x");
  EXPECT_EQ(plans.Cell(0, "plan"), "*:int4.asym.group64");
  const Parsed floor = ParseCsv(files["floor.csv"]);
  EXPECT_EQ(floor.Cell(0, "flips undisturbed"), "5/38");
  EXPECT_EQ(floor.Cell(0, "verdicts that change"), "19/76");
  EXPECT_THAT(files["kv_errors.csv"], HasSubstr("0.0123"));
  EXPECT_THAT(files["key_outliers.csv"], HasSubstr("\r\n19,12.5,"));
  EXPECT_EQ(ParseCsv(files["prompts.csv"]).Cell(0, "set"), "refusals");
  EXPECT_EQ(ParseCsv(files["prompts.csv"]).Cell(0, "prompts"), "240");
  EXPECT_EQ(ParseCsv(files["prompts.csv"]).Cell(0, "repeated texts"), "6");
  EXPECT_THAT(files["provenance.csv"], HasSubstr("\r\ncells run,4711\r\n"));
}

TEST(LatexReportTest, EveryTableIsAFileAndItsRowsHoldTheReportsFigures) {
  auto files = Files(v1::REPORT_FORMAT_LATEX, FileNames(".tex"));
  for (const std::string& name : TableNames()) {
    EXPECT_THAT(files[name + ".tex"], HasSubstr("\\label{tab:plumbline-" + name + "}"));
    EXPECT_THAT(files[name + ".tex"], HasSubstr("\\bottomrule"));
  }
  const Parsed sweep = ParseLatex(files["sweep.tex"]);
  ASSERT_EQ(sweep.rows.size(), 2u);
  EXPECT_EQ(sweep.Cell(1, "condition"), "int4.asym.token");
  EXPECT_EQ(sweep.Cell(1, "flips"), "14/100");
  EXPECT_EQ(sweep.Cell(1, "flip rate [95\\%]"), "14.0\\% [12.5\\%, 25.0\\%]");
  EXPECT_EQ(sweep.Cell(1, "plan"), "*:int4.asym.token");
  EXPECT_EQ(ParseLatex(files["layers.tex"]).Cell(0, "screen"), "9/24");
  EXPECT_EQ(ParseLatex(files["combined.tex"]).Cell(0, "flips"), "30/60");
  EXPECT_EQ(ParseLatex(files["channels.tex"]).Cell(0, "flips"), "40/50");
  EXPECT_EQ(ParseLatex(files["plans.tex"]).Cell(0, "verdict"), "recommended");
  EXPECT_EQ(ParseLatex(files["floor.tex"]).Cell(0, "flips undisturbed"), "5/38");
  EXPECT_THAT(files["kv_errors.tex"], HasSubstr("0.0123"));
  EXPECT_THAT(files["key_outliers.tex"], HasSubstr("\n19 & 12.5 & "));
  EXPECT_EQ(ParseLatex(files["prompts.tex"]).Cell(0, "prompts"), "240");
  EXPECT_THAT(files["provenance.tex"], HasSubstr("\ncells run & 4711 "));
}

}  // namespace
}  // namespace plumbline
