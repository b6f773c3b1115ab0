// Experiments: created once, bound once, concluded stage by stage.
#include <string>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/contract/store_contract.h"
#include "tests/support/status_matchers.h"

namespace plumbline::testing {
namespace {

using ::testing::HasSubstr;
using ::testing::SizeIs;

TEST_P(StoreContract, TheSameRequestAnswersTheSameExperiment) {
  ASSERT_OK_AND_ASSIGN(const ExperimentRecord first, store_->CreateExperiment(Study("a")));
  ASSERT_OK_AND_ASSIGN(const ExperimentRecord again, store_->CreateExperiment(Study("a")));
  EXPECT_EQ(first.id, again.id);
  EXPECT_EQ(first.number, again.number);
  NewExperiment other = Study("a");
  other.request_digest = "another study";
  EXPECT_THAT(store_->CreateExperiment(other),
              StatusIs(absl::StatusCode::kAlreadyExists, HasSubstr("request-a")));
}

TEST_P(StoreContract, AnExperimentComesBackAsItWasStored) {
  const std::string id = Create("a");
  Reopen();
  ASSERT_OK_AND_ASSIGN(const ExperimentRecord record, store_->GetExperiment(id));
  EXPECT_EQ(record.study.name(), "a");
  EXPECT_EQ(record.state, v1::EXPERIMENT_STATE_RUNNING);
  EXPECT_EQ(record.model.model_digest(), "m");
  EXPECT_EQ(record.numerics.id(), "c");
  EXPECT_EQ(record.judge_version, "v1");
  EXPECT_EQ(record.created, At(0));
  EXPECT_EQ(record.ended, absl::InfinitePast());
  ASSERT_OK_AND_ASSIGN(const ExperimentPrompts prompts, store_->GetPrompts(id));
  ASSERT_THAT(prompts.prompts, SizeIs(2));
  EXPECT_EQ(prompts.prompts[1].id(), "p1");
  EXPECT_THAT(prompts.prompt_sets, SizeIs(1));
  EXPECT_THAT(store_->GetExperiment("nope"), StatusIs(absl::StatusCode::kNotFound));
}

TEST_P(StoreContract, ListsAreNewestFirstInPages) {
  for (const char* name : {"a", "b", "c"}) Create(name);
  ASSERT_OK_AND_ASSIGN(const auto page, store_->ListExperiments(0, 2));
  ASSERT_THAT(page, SizeIs(2));
  EXPECT_EQ(page[0].id, "exp-c");
  EXPECT_EQ(page[1].id, "exp-b");
  ASSERT_OK_AND_ASSIGN(const auto rest, store_->ListExperiments(page[1].number, 2));
  ASSERT_THAT(rest, SizeIs(1));
  EXPECT_EQ(rest[0].id, "exp-a");
}

TEST_P(StoreContract, BindingHappensOnce) {
  const std::string id = Create("a");
  EXPECT_THAT(
      store_->BindExperiment(id, v1::ModelInfo(), v1::NumericsClass(), "v2", v1::Report(), At(1)),
      StatusIs(absl::StatusCode::kAborted));
}

TEST_P(StoreContract, AnEndedExperimentKeepsItsState) {
  const std::string id = Create("a");
  ASSERT_OK(store_->CancelExperiment(id, At(3)));
  EXPECT_THAT(store_->SetState(id, v1::EXPERIMENT_STATE_RUNNING, "", At(4)),
              StatusIs(absl::StatusCode::kAborted));
  EXPECT_THAT(store_->ConcludeStage(id, 0, v1::Report(), "next", At(4)),
              StatusIs(absl::StatusCode::kAborted));
  EXPECT_OK(store_->CancelExperiment(id, At(5)));
  ASSERT_OK_AND_ASSIGN(const ExperimentRecord record, store_->GetExperiment(id));
  EXPECT_EQ(record.state, v1::EXPERIMENT_STATE_CANCELLED);
  EXPECT_EQ(record.ended, At(3));
}

TEST_P(StoreContract, CellsComeForTheOpenStageAndLaterOnesAndForNoPastOne) {
  const std::string id = Create("a");
  ASSERT_OK(store_->ConcludeStage(id, 0, v1::Report(), "sweep", At(2)));
  EXPECT_OK(store_->AddCells(id, 1, "sweep", {}));
  EXPECT_OK(store_->AddCells(id, 2, "screen", {}));
  EXPECT_THAT(store_->AddCells(id, 0, "baseline", {}), StatusIs(absl::StatusCode::kAborted));
}

TEST_P(StoreContract, AStageConcludesOnceWithItsReport) {
  const std::string id = Create("a");
  v1::Report report;
  report.set_lowest_safe_format("int8");
  ASSERT_OK(store_->ConcludeStage(id, 0, report, "sweep", At(2)));
  EXPECT_THAT(store_->ConcludeStage(id, 0, v1::Report(), "sweep", At(3)),
              StatusIs(absl::StatusCode::kAborted));
  Reopen();
  ASSERT_OK_AND_ASSIGN(const ExperimentRecord record, store_->GetExperiment(id));
  EXPECT_EQ(record.stage_index, 1);
  EXPECT_EQ(record.stage, "sweep");
  ASSERT_OK_AND_ASSIGN(const v1::Report back, store_->GetReport(id));
  EXPECT_EQ(back.lowest_safe_format(), "int8");
  ASSERT_OK(store_->ConcludeStage(id, 1, report, "", At(9)));
  ASSERT_OK_AND_ASSIGN(const ExperimentRecord ended, store_->GetExperiment(id));
  EXPECT_EQ(ended.state, v1::EXPERIMENT_STATE_SUCCEEDED);
  EXPECT_EQ(ended.ended, At(9));
  EXPECT_THAT(store_->ResumeExperiment(id, At(10)),
              StatusIs(absl::StatusCode::kFailedPrecondition));
}

}  // namespace
}  // namespace plumbline::testing
