// A small report for the tests of what reports print.
#pragma once

#include <algorithm>
#include <string>
#include <vector>

#include "gtest/gtest.h"
#include "services/report/report.h"
#include "services/report/tables.h"
#include "tests/support/status_matchers.h"

namespace plumbline::testing {

inline v1::ConditionResult Condition(const std::string& name, uint64_t flips, uint64_t trials) {
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

inline v1::Report SampleReport() {
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
  report.set_pattern(v1::ATTENTION_PATTERN_NONE);
  report.mutable_pcr_paper()->set_defined(true);
  for (int b = 0; b < 50; ++b) report.mutable_pcr_paper()->add_histogram(b == 40 ? 0.9 : 0.002);
  v1::PlanResult* plan = report.add_plans();
  plan->set_name("group-64");
  plan->set_plan("*:int4.asym.group64");
  *plan->mutable_validation() = Condition("validation", 3, 60);
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

inline std::string Render(const v1::Report& report, v1::ReportFormat format, bool texts) {
  absl::StatusOr<std::vector<ReportFile>> files = RenderReport(report, format, texts);
  EXPECT_OK(files);
  std::string all;
  for (const ReportFile& file : *files) all += file.bytes;
  return all;
}

inline size_t ColumnOf(const Table& table, const std::string& name) {
  const auto found = std::find(table.columns.begin(), table.columns.end(), name);
  EXPECT_NE(found, table.columns.end()) << name;
  return static_cast<size_t>(found - table.columns.begin());
}

}  // namespace plumbline::testing
