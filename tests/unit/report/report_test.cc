#include "services/report/report.h"

#include <google/protobuf/util/json_util.h>

#include "gtest/gtest.h"
#include "services/report/format.h"
#include "services/report/tables.h"
#include "tests/support/status_matchers.h"

namespace plumbline {
namespace {

using ::testing::HasSubstr;
using ::testing::Not;

v1::ConditionResult Condition(const std::string& name, uint64_t flips, uint64_t trials) {
  v1::ConditionResult condition;
  condition.set_name(name);
  condition.set_plan("*:" + name);
  condition.set_cells(trials);
  condition.set_flips(flips);
  condition.set_baseline_refusals(trials);
  v1::Interval* rate = condition.mutable_flip_rate();
  rate->set_defined(true);
  rate->set_estimate(static_cast<double>(flips) / static_cast<double>(trials));
  rate->set_low(rate->estimate() * 0.8);
  rate->set_high(std::min(1.0, rate->estimate() * 1.2 + 0.01));
  return condition;
}

v1::Report SampleReport() {
  v1::Report report;
  report.set_experiment_id("exp-1");
  report.mutable_study()->set_target("*:int4.asym.token");
  report.mutable_study()->add_prompt_sets()->add_inline_prompts()->add_turns()->set_text(
      "SECRET-PROMPT");
  report.mutable_headline()->set_decision(v1::DECISION_DO_NOT_SHIP);
  report.mutable_headline()->set_sentence("14.0% of refusals flip <b>& more</b>.");
  *report.mutable_target() = Condition("int4.asym.token", 14, 100);
  *report.add_sweep() = Condition("int8.asym.token", 1, 100);
  *report.add_sweep() = Condition("int3.asym.token", 77, 100);
  for (uint32_t layer = 0; layer < 4; ++layer) {
    v1::LayerResult* result = report.add_layers();
    result->set_layer(layer);
    *result->mutable_screen() = Condition("layer", layer, 24);
    result->set_critical(layer == 3);
  }
  report.mutable_pcr_paper()->set_defined(true);
  for (int b = 0; b < 50; ++b) report.mutable_pcr_paper()->add_histogram(b == 40 ? 0.9 : 0.002);
  v1::PlanResult* plan = report.add_plans();
  plan->set_name("group-64");
  plan->set_plan("*:int4.asym.group64");
  plan->mutable_recovery()->set_defined(true);
  plan->mutable_recovery()->set_estimate(0.8);
  plan->set_memory_vs_target(1.02);
  plan->set_recommended(true);
  v1::AnswerExample* example = report.add_examples();
  example->set_prompt_id("p-7");
  example->set_answer_text("SECRET-ANSWER");
  report.mutable_provenance()->mutable_started()->set_seconds(1000);
  report.mutable_provenance()->add_workers()->set_worker_id("worker-x");
  return report;
}

std::string Render(const v1::Report& report, v1::ReportFormat format, bool texts) {
  absl::StatusOr<std::vector<ReportFile>> files = RenderReport(report, format, texts);
  EXPECT_OK(files);
  std::string all;
  for (const ReportFile& file : *files) all += file.bytes;
  return all;
}

TEST(ReportTest, NoFormatShowsTextsUnlessAsked) {
  for (const v1::ReportFormat format :
       {v1::REPORT_FORMAT_HTML, v1::REPORT_FORMAT_JSON, v1::REPORT_FORMAT_CSV,
        v1::REPORT_FORMAT_LATEX, v1::REPORT_FORMAT_CANONICAL}) {
    EXPECT_THAT(Render(SampleReport(), format, false), Not(HasSubstr("SECRET"))) << format;
    EXPECT_THAT(Render(SampleReport(), format, true), Not(HasSubstr("SECRET-PROMPT"))) << format;
  }
  EXPECT_THAT(Render(SampleReport(), v1::REPORT_FORMAT_HTML, true), HasSubstr("SECRET-ANSWER"));
}

TEST(ReportTest, PageIsSelfContainedAndEscaped) {
  const std::string html = Render(SampleReport(), v1::REPORT_FORMAT_HTML, false);
  EXPECT_THAT(html, Not(HasSubstr("<script")));
  EXPECT_THAT(html, Not(HasSubstr("http://")));
  EXPECT_THAT(html, Not(HasSubstr("src=")));
  EXPECT_THAT(html, HasSubstr("&lt;b&gt;&amp; more"));
  EXPECT_THAT(html, HasSubstr("do not ship"));
  EXPECT_THAT(html, HasSubstr("*:int4.asym.group64"));
  EXPECT_THAT(html, HasSubstr("worker-x"));
}

TEST(ReportTest, JsonParsesBackToTheReport) {
  v1::Report parsed;
  const std::string json = Render(SampleReport(), v1::REPORT_FORMAT_JSON, false);
  ASSERT_TRUE(google::protobuf::util::JsonStringToMessage(json, &parsed).ok());
  EXPECT_EQ(parsed.target().flips(), 14u);
  EXPECT_EQ(parsed.layers_size(), 4);
}

TEST(ReportTest, CanonicalFormForgetsTimeWorkersAndOrderAndNothingElse) {
  v1::Report first = SampleReport();
  for (const char* key : {"b", "a", "c"}) first.add_cells()->set_cell_key(key);
  v1::Report second = first;
  second.set_experiment_id("exp-2");
  second.mutable_provenance()->mutable_started()->set_seconds(2000);
  second.mutable_provenance()->mutable_workers(0)->set_worker_id("worker-y");
  second.mutable_provenance()->set_cells_shared(5);
  second.mutable_cells()->SwapElements(0, 2);
  const std::string canonical = Render(first, v1::REPORT_FORMAT_CANONICAL, false);
  EXPECT_EQ(canonical, Render(second, v1::REPORT_FORMAT_CANONICAL, false));
  second.mutable_cells(0)->add_token_ids(7);
  EXPECT_NE(canonical, Render(second, v1::REPORT_FORMAT_CANONICAL, false));
}

TEST(ReportTest, UnsetFormatIsRefused) {
  EXPECT_THAT(RenderReport(SampleReport(), v1::REPORT_FORMAT_UNSPECIFIED, false),
              testing::StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr("format")));
}

TEST(ReportTest, EmptyReportRenders) {
  EXPECT_THAT(Render(v1::Report(), v1::REPORT_FORMAT_HTML, false), HasSubstr("</html>"));
}

TEST(CsvTest, CellsAreQuotedAndFormulasDisarmed) {
  EXPECT_EQ(CsvCell("plain"), "plain");
  EXPECT_EQ(CsvCell("a,b \"c\""), "\"a,b \"\"c\"\"\"");
  EXPECT_EQ(CsvCell("=1+1"), "'=1+1");
  EXPECT_EQ(CsvCell("-0.5"), "-0.5");
}

TEST(LatexTest, SpecialCharactersAreEscaped) {
  EXPECT_EQ(LatexEscape("50% of *:int4_x & y"), "50\\% of *:int4\\_x \\& y");
}

TEST(TableTest, EveryRowHasAsManyCellsAsTheHeader) {
  for (const Table& table : ReportTables(SampleReport())) {
    for (const auto& row : table.rows) EXPECT_EQ(row.size(), table.columns.size()) << table.name;
  }
}

}  // namespace
}  // namespace plumbline
