#include "services/report/report.h"

#include <google/protobuf/util/json_util.h>

#include <algorithm>

#include "gtest/gtest.h"
#include "services/report/charts.h"
#include "services/report/format.h"
#include "services/report/html.h"
#include "services/report/sweep.h"
#include "services/report/tables.h"
#include "tests/support/status_matchers.h"
#include "tests/unit/report/sample_report.h"

namespace plumbline::testing {
namespace {

using ::testing::HasSubstr;
using ::testing::Not;

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
  EXPECT_THAT(html, HasSubstr("Do not ship"));
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
              StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr("format")));
}

TEST(ReportTest, EmptyReportRenders) {
  EXPECT_THAT(Render(v1::Report(), v1::REPORT_FORMAT_HTML, false), HasSubstr("</html>"));
}

std::vector<std::string> Names(const std::vector<v1::ConditionResult>& conditions) {
  std::vector<std::string> names;
  for (const v1::ConditionResult& one : conditions) names.push_back(one.name());
  return names;
}

size_t Count(const std::string& text, const std::string& part) {
  size_t count = 0;
  for (size_t at = text.find(part); at != std::string::npos; at = text.find(part, at + 1)) ++count;
  return count;
}

const Table* Find(const std::vector<Table>& tables, const std::string& name) {
  for (const Table& table : tables) {
    if (table.name == name) return &table;
  }
  return nullptr;
}

// The x of every label below a chart's plot area.
std::vector<std::string> TickPlaces(const std::string& svg) {
  std::vector<std::string> places;
  const std::string tick = "<text class=\"tick\" x=\"";
  for (size_t at = svg.find(tick); at != std::string::npos; at = svg.find(tick, at + 1)) {
    const std::string text = svg.substr(at, svg.find("</text>", at) - at);
    if (text.find("middle") == std::string::npos) continue;
    places.push_back(text.substr(tick.size(), text.find('"', tick.size()) - tick.size()) +
                     text.substr(text.find('>')));
  }
  return places;
}

TEST(SweepTest, BitsFallAndOtherFormatsFollow) {
  v1::Report report;
  for (const char* name :
       {"fp8_e4m3", "int2.asym.token", "int8.sym.group64", "int10.asym.token", "int8.asym.token"}) {
    *report.add_sweep() = Condition(name, 1, 10);
  }
  EXPECT_THAT(Names(OrderedSweep(report)),
              ::testing::ElementsAre("int10.asym.token", "int8.sym.group64", "int8.asym.token",
                                     "int2.asym.token", "fp8_e4m3"));
}

TEST(SweepTest, TargetIsShownOnceAtItsBits) {
  v1::Report report = SampleReport();
  EXPECT_THAT(Names(OrderedSweep(report)),
              ::testing::ElementsAre("int8.asym.token", "target", "int3.asym.token"));
  *report.add_sweep() = Condition("int4.asym.token", 14, 100);
  EXPECT_THAT(Names(OrderedSweep(report)),
              ::testing::ElementsAre("int8.asym.token", "int4.asym.token", "int3.asym.token"));
  EXPECT_EQ(Count(FlipsByFormatChart(report), "dot-target"), 1u);
}

TEST(SweepTest, MixedPlansHaveNoBits) {
  EXPECT_EQ(FormatBits("*:int4.asym.token"), 4);
  EXPECT_EQ(FormatBits("*:int4.asym.token,20:fp"), 0);
  EXPECT_EQ(FormatFamily("*:int4.asym.token"), ".asym.token");
}

TEST(NotRunTest, NeitherTableNorChartShowsAFigure) {
  v1::Report report = SampleReport();
  v1::ConditionResult* idle = report.mutable_sweep(1);
  idle->set_cells(0);
  const std::vector<Table> tables = ReportTables(report);
  const Table* table = Find(tables, "sweep");
  ASSERT_NE(table, nullptr);
  EXPECT_EQ(table->rows[2][1], "not run");
  EXPECT_EQ(table->rows[2][2], "-");
  const std::string chart = FlipsByFormatChart(report);
  EXPECT_THAT(chart, HasSubstr(">not run</text>"));
  EXPECT_THAT(chart, Not(HasSubstr("77 of 100")));
  *report.mutable_plans(0)->mutable_test() = v1::ConditionResult();
  const std::vector<Table> with_plans = ReportTables(report);
  const Table* plans = Find(with_plans, "plans");
  EXPECT_EQ(plans->rows[0][4], "not run");
  EXPECT_EQ(plans->rows[0][10], "not run");
}

TEST(NotRunTest, NoPerplexityNoColumnOnThePage) {
  const Table* plans = nullptr;
  const std::vector<Table> tables = ReportTables(SampleReport());
  plans = Find(tables, "plans");
  ASSERT_NE(plans, nullptr);
  EXPECT_THAT(HtmlTable(*plans), Not(HasSubstr("perplexity")));
  EXPECT_THAT(CsvTable(*plans), HasSubstr("perplexity"));
}

TEST(FloorTest, NoiseIsCountedInFlipsAndInVerdicts) {
  v1::Report report = SampleReport();
  v1::ConditionResult* noise = report.mutable_floor()->add_conditions();
  noise->set_name("target");
  noise->set_floor_measured(true);
  noise->set_floor_changes(19);
  noise->set_floor_cells(76);
  noise->set_floor_prompts(38);
  noise->set_floor_flips(5);
  noise->add_replica_flips(7);
  noise->add_replica_flips(4);
  const Table table = FloorTable(report);
  EXPECT_EQ(table.rows[0][1], "5/38");
  EXPECT_EQ(table.rows[0][2], "7, 4");
  EXPECT_EQ(table.rows[0][3], "19/76");
  EXPECT_EQ(table.rows[0][4], "25.0%");
  noise->set_floor_cells(0);
  EXPECT_EQ(FloorTable(report).rows[0][1], "not run");
}

TEST(ConditionTableTest, MostlyDegenerateIsNotCalledSafe) {
  v1::Report report = SampleReport();
  report.mutable_sweep(1)->set_phase(v1::PHASE_SAFE);
  report.mutable_sweep(1)->set_degenerate(51);
  EXPECT_EQ(SweepTable(report).rows[2][3], "mostly degenerate");
  report.mutable_sweep(1)->set_degenerate(50);
  EXPECT_EQ(SweepTable(report).rows[2][3], "safe");
}

TEST(ConditionTableTest, WarningsStandBelowTheirRow) {
  v1::Report report = SampleReport();
  EXPECT_THAT(HtmlTable(SweepTable(report)), Not(HasSubstr("warnings")));
  report.mutable_sweep(1)->add_warnings("2 cells kept failing");
  EXPECT_THAT(HtmlTable(SweepTable(report)),
              HasSubstr("<summary>warnings</summary>2 cells kept failing"));
}

TEST(FirstTokenTest, TablesTellADivergenceOfZeroFromNone) {
  v1::Report report = SampleReport();
  report.mutable_sweep(0)->set_first_token_kl_prompts(100);
  report.mutable_sweep(1)->set_first_token_kl_prompts(98);
  report.mutable_sweep(1)->set_first_token_kl(0.12345);
  const Table sweep = SweepTable(report);
  const size_t column = ColumnOf(sweep, "first-token KL, nats");
  EXPECT_EQ(sweep.rows[0][column], "0");
  EXPECT_EQ(sweep.rows[1][column], "-");  // the target
  EXPECT_EQ(sweep.rows[2][column], "0.123");
  EXPECT_THAT(CsvTable(sweep), HasSubstr("0.123"));
  // A study of older results shows no empty column.
  EXPECT_THAT(HtmlTable(sweep), HasSubstr("first-token KL"));
  EXPECT_THAT(HtmlTable(SweepTable(SampleReport())), Not(HasSubstr("first-token KL")));
}

TEST(FirstTokenTest, PlanShowsItsTestPromptsOnceTheyRan) {
  v1::Report report = SampleReport();
  v1::PlanResult* plan = report.mutable_plans(0);
  const size_t column = ColumnOf(PlanTable(report), "first-token KL, nats");
  EXPECT_EQ(PlanTable(report).rows[0][column], "-");
  plan->mutable_validation()->set_first_token_kl_prompts(60);
  plan->mutable_validation()->set_first_token_kl(0.5);
  EXPECT_EQ(PlanTable(report).rows[0][column], "0.5");
  *plan->mutable_test() = Condition("test", 3, 90);
  plan->mutable_test()->set_first_token_kl_prompts(90);
  plan->mutable_test()->set_first_token_kl(0.25);
  EXPECT_EQ(PlanTable(report).rows[0][column], "0.25");
}

TEST(SampleTest, EveryPictureSaysOnHowManyPromptsItStands) {
  v1::Report report = SampleReport();
  *report.mutable_baseline() = Condition("baseline", 0, 100);
  report.mutable_baseline()->set_cells(150);
  report.mutable_study()->mutable_diagnose()->set_confirm_prompts(72);
  *report.mutable_layers(3)->mutable_confirmed() = Condition("layer", 9, 57);
  report.mutable_baseline()->set_harmless_refused_baseline(8);
  v1::PlanResult* plan = report.mutable_plans(0);
  *plan->mutable_test() = Condition("test", 0, 92);
  plan->mutable_test()->set_prompts("split test");
  plan->set_recovery_on_test(true);
  plan->mutable_recovery()->set_trials(14);
  *report.mutable_channels()->add_conditions() = Condition("all", 2, 49);
  const std::string html = Render(report, v1::REPORT_FORMAT_HTML, false);
  EXPECT_THAT(html, HasSubstr("n = 100 prompts that the baseline refuses, of 150; 8 more that it "
                              "refuses expect an answer: a flip there does no harm and does not "
                              "count."));
  EXPECT_THAT(html, HasSubstr("n = 24 a layer. 1 layer that stood out ran 33 further prompts, so "
                              "that n = 57 there (72 were planned, the split has no more)"));
  EXPECT_THAT(html, HasSubstr("Filled: on n = 92 of split test, of which the target flips 14."));
  EXPECT_THAT(
      html, HasSubstr("n = 49 refused prompts for each row. No layer is shown to be critical; this "
                      "one has the most flips."));
  EXPECT_THAT(html, HasSubstr("Layer 3 comes closest: 9 of 57, p "));
  report.mutable_study()->mutable_diagnose()->set_confirm_prompts(33);
  EXPECT_THAT(Render(report, v1::REPORT_FORMAT_HTML, false), Not(HasSubstr("were planned")));
}

TEST(FirstScreenTest, TellsWhatTheModeMeansAndWhatElseTheTargetChanges) {
  v1::Report report = SampleReport();
  report.mutable_headline()->set_mode(v1::FAILURE_MODE_DILUTION);
  report.mutable_target()->set_degenerate(6);
  report.mutable_target()->set_reverse_flips(28);
  report.mutable_target()->set_baseline_complies(114);
  report.mutable_target()->set_nonfinite(2);
  const std::string html = Render(report, v1::REPORT_FORMAT_HTML, false);
  EXPECT_THAT(html, HasSubstr("<b>multi-layer dilution</b><span>no single layer is to blame"));
  EXPECT_THAT(html,
              HasSubstr("14 of 100; 6 more become degenerate; 2 more break off at numbers that "
                        "are not finite; the other way, 28 of 114 answers become refusals"));
}

TEST(PlansChartTest, PlansAtOnePlaceShareALabel) {
  v1::Report report = SampleReport();
  for (const double recovery : {0.8, 0.1}) {
    *report.add_plans() = report.plans(0);
    report.mutable_plans(report.plans_size() - 1)->mutable_recovery()->set_estimate(recovery);
  }
  const std::string chart = PlansChart(report);
  EXPECT_THAT(chart, HasSubstr(">1, 2</text>"));
  EXPECT_THAT(chart, HasSubstr(">3</text>"));
}

TEST(ModeTest, ABreakdownUnderAllLayersIsNotPassedOver) {
  v1::Report report = SampleReport();
  v1::ConditionResult* all = report.add_combined();
  *all = Condition("all layers", 12, 57);
  report.set_mode_explanation("all layers together flip 12 of 57.");
  all->set_degenerate(28);
  EXPECT_THAT(Render(report, v1::REPORT_FORMAT_HTML, false), Not(HasSubstr("breaks down")));
  all->set_degenerate(44);
  EXPECT_THAT(Render(report, v1::REPORT_FORMAT_HTML, false),
              HasSubstr("turn 44 of these 57 refusals into degenerate text"));
}

TEST(ChartTest, LayersOfBothLayerChartsStandAtTheSamePlaces) {
  v1::Report report = SampleReport();
  for (uint32_t layer = 0; layer < 6; ++layer) {
    v1::FormatError* error = report.add_kv_errors();
    error->set_format("int4.asym.token");
    error->set_layer(layer);
    error->mutable_keys()->set_relative_mse(0.01 * (layer + 1));
  }
  for (const int width : {kChartWide, kChartNarrow}) {
    const std::vector<std::string> flips = TickPlaces(FlipsByLayerChart(report, width));
    EXPECT_EQ(flips.size(), 6u);
    EXPECT_EQ(flips, TickPlaces(KvErrorChart(report, width)));
  }
}

TEST(ChartTest, KeyOutliersOfEveryLayerAreShownAndTabled) {
  v1::Report report = SampleReport();
  EXPECT_EQ(KeyOutlierChart(report), "");
  EXPECT_THAT(Render(report, v1::REPORT_FORMAT_HTML, false), Not(HasSubstr("largest over median")));
  for (uint32_t layer = 0; layer < 6; ++layer) {
    v1::KeyOutliers* keys = report.mutable_channels()->add_key_outliers();
    keys->set_layer(layer);
    keys->set_largest_channel(30 + layer);
    keys->set_largest(12.5);
    if (layer == 5) continue;  // a median of zero has no ratio
    keys->set_median(2.5 / (layer + 1));
    keys->set_largest_over_median(5 * (layer + 1));
  }
  report.mutable_channels()->set_layer(4);
  report.mutable_channels()->mutable_key_outliers(1)->add_outlier_channels(31);
  const std::string chart = KeyOutlierChart(report);
  EXPECT_EQ(TickPlaces(chart), TickPlaces(FlipsByLayerChart(report)));
  EXPECT_EQ(Count(chart, "class=\"bar-critical\""), 1u);
  EXPECT_THAT(chart, HasSubstr("layer 4: channel 34 at 12.5, median 0.5"));
  const std::vector<Table> tables = ReportTables(report);
  const Table* table = Find(tables, "key_outliers");
  ASSERT_NE(table, nullptr);
  ASSERT_EQ(table->rows.size(), 6u);
  EXPECT_EQ(table->rows[1], (std::vector<std::string>{"1", "12.5", "1.25", "10", "31", "31"}));
  EXPECT_EQ(table->rows[5][3], "not defined");
  EXPECT_THAT(Render(report, v1::REPORT_FORMAT_HTML, false), HasSubstr("Key outliers in figures"));
}

TEST(FirstScreenTest, TellsTheJudgesAgreement) {
  v1::Report report = SampleReport();
  report.mutable_judge_card()->set_judge("keyword");
  EXPECT_THAT(Render(report, v1::REPORT_FORMAT_HTML, false), Not(HasSubstr("kappa")));
  v1::JudgeAgreement* agreement = report.mutable_judge_card()->add_agreements();
  agreement->set_against("hand labels");
  agreement->set_answers(200);
  agreement->set_kappa(0.914);
  agreement->set_kappa_low(0.85);
  agreement->set_kappa_high(0.96);
  const std::string html = Render(report, v1::REPORT_FORMAT_HTML, false);
  EXPECT_THAT(html, HasSubstr("judge agrees with hand labels</span><b>kappa 0.91</b>"));
  EXPECT_THAT(html, HasSubstr("[0.85, 0.96], 200 answers"));
}

TEST(FirstScreenTest, RecommendationOpensWithItsSentenceAndFoldsTheRest) {
  v1::Report report = SampleReport();
  report.mutable_headline()->set_sentence("Do not ship: 14 of 100 flip.");
  report.mutable_headline()->set_recommendation(
      "None found. Best measured: p flips 0 of 34 (0.0%). The winner fails: one; two. Floor: 3.");
  const std::string html = Render(report, v1::REPORT_FORMAT_HTML, false);
  EXPECT_THAT(html, HasSubstr("<p>14 of 100 flip.</p>"));
  EXPECT_THAT(html, HasSubstr("<p>None found. Best measured: p flips 0 of 34 (0.0%).</p>"));
  EXPECT_THAT(html, HasSubstr("<li>The winner fails: one</li><li>Two.</li><li>Floor: 3.</li>"));
}

TEST(FirstScreenTest, WithoutARecommendedPlanTheBestOneIsShownAsSuch) {
  v1::Report report = SampleReport();
  report.mutable_plans(0)->set_recommended(false);
  report.mutable_plans(0)->set_winner(true);
  report.mutable_plans(0)->mutable_recovery()->set_defined(false);
  const std::string html = Render(report, v1::REPORT_FORMAT_HTML, false);
  EXPECT_THAT(html, HasSubstr("<b>none found</b><span>best on validation: group-64</span>"));
  EXPECT_THAT(html, HasSubstr("group-64: recovery</span><b>not defined</b>"));
  EXPECT_THAT(html, HasSubstr("group-64: KV memory</span><b>1.02x</b>"));
}

// The provenance table's value; empty where it has no such row.
std::string ProvenanceOf(const v1::Report& report, const std::string& what) {
  for (const Table& table : ReportTables(report)) {
    if (table.name != "provenance") continue;
    for (const auto& row : table.rows) {
      if (row[0] == what) return row[1];
    }
  }
  return "";
}

TEST(ProvenanceTest, TellsOfPromptsThatTheModelWasTrainedOn) {
  const std::string what = "prompts that the model was trained on";
  v1::Report report = SampleReport();
  EXPECT_EQ(ProvenanceOf(report, what), "");
  for (const uint64_t excluded : {3, 4}) {
    report.mutable_provenance()->add_prompt_sets()->set_excluded(excluded);
  }
  for (int i = 0; i < 9; ++i) report.mutable_study()->add_exclude_prompt_sha256("h");
  EXPECT_EQ(ProvenanceOf(report, what), "7 left out; the list names 9 texts");
  report.mutable_study()->set_include_trained_on(true);
  EXPECT_EQ(ProvenanceOf(report, what), "take part, as was asked for");
}

TEST(HtmlReportTest, ThePromptTableTellsTheRepeatedTexts) {
  v1::Report report = SampleReport();
  v1::PromptSetSummary* set = report.mutable_provenance()->add_prompt_sets();
  set->set_name("mine");
  set->set_prompts(97531);
  set->set_excluded(8642);
  set->set_repeated_texts(1357);
  const std::string html = RenderHtml(report);
  const size_t heads = html.find("repeated texts");
  ASSERT_NE(heads, std::string::npos);
  // Its cell comes after those of the prompts and of the excluded ones.
  const size_t excluded = html.find("8642", heads);
  ASSERT_NE(excluded, std::string::npos);
  EXPECT_LT(html.find("97531", heads), excluded);
  EXPECT_GT(html.find("1357", heads), excluded);
  EXPECT_NE(html.find("1357", heads), std::string::npos);
}

TEST(ProvenanceTest, TellsWhatBecomesOfSpecialTokenLookAlikes) {
  v1::Report report = SampleReport();
  EXPECT_EQ(ProvenanceOf(report, "special tokens in prompts"), "stay text");
  report.mutable_study()->mutable_decoding()->set_parse_special(true);
  EXPECT_EQ(ProvenanceOf(report, "special tokens in prompts"), "become special tokens");
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

TEST(LatexTest, RowsNeverFeedTheLineBreakAnArgument) {
  const Table table{"t", "c", {"a", "b"}, {{"*:fp", "1"}, {"[0, 1]", "2"}, {"x", "-"}}};
  const std::string latex = LatexTable(table);
  EXPECT_THAT(latex, HasSubstr("\n{}*:fp & 1 \\\\\n"));
  EXPECT_THAT(latex, HasSubstr("\n{}[0, 1] & 2 \\\\\n"));
  EXPECT_THAT(latex, HasSubstr("\nx & - \\\\\n"));
}

TEST(LatexTest, LongTablesBreakOverPagesAndLongCellsAreCut) {
  Table table{"t", "c", {"a"}, {}};
  for (int i = 0; i < 41; ++i) table.rows.push_back({std::string(100, 'x')});
  EXPECT_THAT(LatexTable(table), HasSubstr("\\begin{longtable}{l}"));
  EXPECT_THAT(LatexTable(table), Not(HasSubstr(std::string(61, 'x'))));
  EXPECT_THAT(LatexTable(table), HasSubstr("x\\ldots{} \\\\"));
  table.rows.resize(40);
  EXPECT_THAT(LatexTable(table), HasSubstr("\\begin{tabular}{l}"));
}

TEST(CsvTest, NoValueIsAnEmptyCell) {
  const Table table{"t", "c", {"a", "b"}, {{"-", "-1"}}};
  EXPECT_EQ(CsvTable(table), "a,b\r\n,-1\r\n");
}

TEST(TableTest, EveryRowHasAsManyCellsAsTheHeader) {
  for (const Table& table : ReportTables(SampleReport())) {
    for (const auto& row : table.rows) EXPECT_EQ(row.size(), table.columns.size()) << table.name;
  }
}

TEST(ReportTest, ACustomStudyShowsNoDecisionAndNoTarget) {
  v1::Report report = SampleReport();
  report.mutable_study()->mutable_custom()->add_plans("*:int8.asym.token");
  report.mutable_study()->set_target("");
  report.mutable_headline()->set_decision(v1::DECISION_UNSPECIFIED);
  report.clear_target();
  report.clear_plans();
  const std::string html = RenderHtml(report);
  EXPECT_THAT(html, HasSubstr(">Measured<"));
  EXPECT_THAT(html, HasSubstr("under 1 plan<"));
  EXPECT_THAT(html, Not(HasSubstr("served with")));
  EXPECT_THAT(html, Not(HasSubstr("recommended plan")));
}

}  // namespace
}  // namespace plumbline::testing
