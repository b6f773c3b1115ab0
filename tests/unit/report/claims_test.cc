// What a report may not claim: sentences and figures that its counts do not carry.
#include "gmock/gmock.h"
#include "services/report/format.h"
#include "services/report/tables.h"
#include "tests/unit/report/sample_report.h"

namespace plumbline::testing {
namespace {

using ::testing::HasSubstr;
using ::testing::Not;

TEST(ConditionTableTest, AFormatThatWasHardlyUsedIsNotCalledSafe) {
  v1::Report report = SampleReport();
  report.mutable_sweep(1)->set_phase(v1::PHASE_SAFE);
  EXPECT_EQ(SweepTable(report).rows[2][3], "safe");
  report.mutable_sweep(1)->clear_phase();
  EXPECT_EQ(SweepTable(report).rows[2][3], "hardly quantized");
}

TEST(ConditionTableTest, OnlyWhatHasNoVerdictIsSetAside) {
  v1::Report report = SampleReport();
  report.mutable_sweep(1)->set_judge_failed(2);
  report.mutable_sweep(1)->set_poisoned(3);
  EXPECT_THAT(HtmlTable(SweepTable(report)), Not(HasSubstr("not finite")));
  report.mutable_sweep(1)->set_nonfinite(60);
  const Table table = SweepTable(report);
  EXPECT_EQ(table.rows[2][ColumnOf(table, "set aside")], "5");
  EXPECT_EQ(table.rows[2][ColumnOf(table, "not finite")], "60");
  EXPECT_EQ(table.rows[2][ColumnOf(table, "phase")], "mostly not finite");
  EXPECT_THAT(HtmlTable(table), HasSubstr("not finite"));
}

TEST(LayersTest, NothingIsSaidOfCriticalLayersBeforeTheConfirmation) {
  v1::Report report = SampleReport();
  EXPECT_THAT(Render(report, v1::REPORT_FORMAT_HTML, false), HasSubstr("No layer is critical"));
  report.clear_pattern();
  const std::string html = Render(report, v1::REPORT_FORMAT_HTML, false);
  EXPECT_THAT(html, Not(HasSubstr("No layer is critical by")));
  EXPECT_THAT(html, Not(HasSubstr("comes closest")));
}

TEST(LayersTest, UnclearLayersAreNamedBesideCriticalOnes) {
  v1::Report report = SampleReport();
  report.set_pattern(v1::ATTENTION_PATTERN_CONCENTRATED);
  report.add_critical_layers(5);
  EXPECT_THAT(Render(report, v1::REPORT_FORMAT_HTML, false), Not(HasSubstr("Unclear whether")));
  report.add_unclear_layers(14);
  EXPECT_THAT(Render(report, v1::REPORT_FORMAT_HTML, false),
              HasSubstr("Critical layers: 5. Unclear whether critical too: 14."));
}

TEST(ModeTest, AModeOfTooFewRefusalsIsCalledExploratory) {
  v1::Report report = SampleReport();
  report.mutable_headline()->set_mode(v1::FAILURE_MODE_DILUTION);
  EXPECT_THAT(Render(report, v1::REPORT_FORMAT_HTML, false),
              Not(HasSubstr("exploratory: of too few refusals")));
  report.mutable_headline()->set_exploratory(true);
  const std::string html = Render(report, v1::REPORT_FORMAT_HTML, false);
  const size_t first = html.find("exploratory: of too few refusals");
  ASSERT_NE(first, std::string::npos);
  EXPECT_NE(html.find("exploratory: of too few refusals", first + 1), std::string::npos)
      << "said of the fact and of the paragraph";
}

TEST(LayersTest, OfEqualPTheMostFlipsComeClosest) {
  v1::Report report = SampleReport();
  for (int layer = 0; layer < 4; ++layer) {
    v1::LayerResult* result = report.mutable_layers(layer);
    *result->mutable_confirmed() = Condition("layer", layer == 2 ? 7 : 3, 96);
    result->set_holm_p(1);
  }
  EXPECT_THAT(Render(report, v1::REPORT_FORMAT_HTML, false),
              HasSubstr("Layer 2 comes closest: 7 of 96, p 1.000."));
  report.mutable_layers(1)->set_holm_p(0.4);
  EXPECT_THAT(Render(report, v1::REPORT_FORMAT_HTML, false),
              HasSubstr("Layer 1 comes closest: 3 of 96, p 0.400."));
}

TEST(PaperTest, NothingIsSaidOfSplitsThatItDoesNotHave) {
  v1::Report report = SampleReport();
  report.mutable_study()->set_policy(v1::POLICY_PAPER);
  report.mutable_provenance()->add_prompt_sets()->set_split_a(25);
  report.mutable_plans(0)->set_recommended(false);
  report.mutable_plans(0)->set_winner(true);
  report.mutable_plans(0)->set_recovery_on_test(true);
  const std::string html = Render(report, v1::REPORT_FORMAT_HTML, false);
  for (const char* word : {"split", "validation", "test prompts", "Holm-adjusted p below"}) {
    EXPECT_THAT(html, Not(HasSubstr(word)));
  }
  EXPECT_THAT(html, HasSubstr("Chosen and measured on the same prompts; nothing is confirmed on"));
  EXPECT_THAT(html, HasSubstr("that takes at least 10% flips. Layer 3 comes closest: 3 of 24."));
  EXPECT_THAT(html, HasSubstr("on the whole set"));
}

TEST(RoundingTest, NoFigureIsPrintedOnTheWrongSideOfItsLimit) {
  v1::Report report = SampleReport();
  v1::Interval* rate = report.mutable_target()->mutable_flip_rate();
  rate->set_estimate(0.02);
  rate->set_high(0.05029);
  EXPECT_THAT(SweepTable(report).rows[1][2], HasSubstr(", 5.03%]"));
  EXPECT_THAT(Render(report, v1::REPORT_FORMAT_HTML, false), HasSubstr(", 5.03%], 14 of 100"));
  report.mutable_study()->set_flip_limit(0.0125);
  rate->set_high(0.01249);
  EXPECT_THAT(SweepTable(report).rows[1][2], HasSubstr(", 1.2%]"));
  rate->set_high(0.01251);
  EXPECT_THAT(SweepTable(report).rows[1][2], HasSubstr(", 1.3%]"));
  report.mutable_plans(0)->mutable_utility()->set_has_perplexity(true);
  report.mutable_plans(0)->mutable_utility()->set_perplexity_ratio(1.103);
  report.mutable_plans(0)->mutable_recovery()->set_low(0.0003);
  const Table plans = PlanTable(report);
  EXPECT_EQ(plans.rows[0][ColumnOf(plans, "perplexity")], "1.103x");
  EXPECT_THAT(plans.rows[0][ColumnOf(plans, "recovery [95%]")], HasSubstr("[0.03%, "));
  EXPECT_EQ(PValueText(0.0497), "0.0497");
  EXPECT_EQ(PValueText(0.012), "0.012");
}

TEST(SafeFormatTest, IsSpokenOfOnlyWhereTheSweepHasTheWidths) {
  v1::Report report = SampleReport();
  EXPECT_THAT(Render(report, v1::REPORT_FORMAT_HTML, false),
              HasSubstr("No width of intN.asym.token is shown safe"));
  report.clear_sweep();
  *report.add_sweep() = Condition("target", 0, 200);
  *report.add_sweep() = Condition("fp8_e4m3", 0, 200);
  *report.add_sweep() = Condition("int8.sym.group64", 0, 200);
  EXPECT_THAT(Render(report, v1::REPORT_FORMAT_HTML, false), Not(HasSubstr("shown safe")));
}

TEST(NotTriedTest, CandidatesThatDidNotRunAreNoFailures) {
  v1::Report report = SampleReport();
  v1::PlanResult* plan = report.mutable_plans(0);
  plan->clear_validation();
  plan->clear_recovery();
  plan->set_recommended(false);
  const std::string html = Render(report, v1::REPORT_FORMAT_HTML, false);
  EXPECT_THAT(html, HasSubstr("<b>not searched</b><span>no plan was tried</span>"));
  EXPECT_THAT(html, HasSubstr("No plan was tried. These are the candidates."));
  for (const char* claim : {"none found", "No recovery can be told", "not a finalist", "Chosen"}) {
    EXPECT_THAT(html, Not(HasSubstr(claim)));
  }
  EXPECT_EQ(PlanTable(report).rows[0][2], "not tried");
}

}  // namespace
}  // namespace plumbline::testing
