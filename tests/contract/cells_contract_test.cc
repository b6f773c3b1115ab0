// Cells and their verdicts.
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/contract/store_contract.h"
#include "tests/support/status_matchers.h"

namespace plumbline::testing {
namespace {

using ::testing::ElementsAre;
using ::testing::IsEmpty;
using ::testing::SizeIs;

TEST_P(StoreContract, AddingCellsTwiceIsOnce) {
  const std::string id = Create("a");
  AddCells(id, {"k1", "k2"});
  AddCells(id, {"k1", "k2"});
  ASSERT_OK_AND_ASSIGN(const auto counts, store_->CountStages(id));
  ASSERT_THAT(counts, SizeIs(1));
  EXPECT_EQ(counts[0].total, 2u);
  EXPECT_EQ(counts[0].finished, 0u);
  EXPECT_THAT(OpenKeys(id), ElementsAre("k1", "k2"));
}

TEST_P(StoreContract, ACellOfTwoConditionsIsHandedOutOnceAndListedTwice) {
  const std::string id = Create("a");
  ASSERT_OK(store_->AddCells(id, 0, "s", {Member("k1", "one"), Member("k1", "two")}));
  EXPECT_THAT(OpenKeys(id), ElementsAre("k1"));
  ASSERT_OK_AND_ASSIGN(const auto rows, store_->ListResults(id, "", "", 10, false));
  EXPECT_THAT(rows, SizeIs(2));
}

TEST_P(StoreContract, AStageHasWorkUntilItsLastCellHasAResult) {
  const std::string id = Create("a");
  const auto has_work = [&](int stage) {
    const absl::StatusOr<bool> work = store_->StageHasWork(id, stage);
    EXPECT_OK(work.status());
    return work.ok() && *work;
  };
  EXPECT_FALSE(has_work(0));
  AddCells(id, {"k1", "k2"});
  EXPECT_TRUE(has_work(0));
  EXPECT_FALSE(has_work(1));
  ASSERT_OK(store_->GrantLease(Lease("l1", {"k1", "k2"})));
  Put("w1", "k2");
  EXPECT_TRUE(has_work(0)) << "k1 is under lease";
  WorkFailure failure;
  failure.max_attempts = 1;
  ASSERT_OK(store_->EndLease("l1", failure));
  EXPECT_FALSE(has_work(0)) << "k1 is set aside";
}

TEST_P(StoreContract, CountsOfConcludedStagesStayTrue) {
  const std::string id = Create("a");
  AddCells(id, {"k1", "k2"});
  ASSERT_OK(store_->GrantLease(Lease("l1", {"k2"})));
  WorkFailure failure;
  failure.max_attempts = 1;
  ASSERT_OK(store_->EndLease("l1", failure));
  Put("w1", "k1");
  ASSERT_OK(store_->PutVerdicts({Verdict("k1")}, false));
  ASSERT_OK(store_->ConcludeStage(id, 0, v1::Report(), "next", At(2)));
  ASSERT_OK(store_->AddCells(id, 1, "next", {Member("k1", "again"), Member("k3")}));
  for (const bool first : {true, false}) {
    ASSERT_OK_AND_ASSIGN(const auto counts, store_->CountStages(id));
    ASSERT_THAT(counts, SizeIs(2)) << first;
    EXPECT_EQ(counts[0].total, 2u);
    EXPECT_EQ(counts[0].finished, 2u);
    EXPECT_EQ(counts[0].poisoned, 1u);
    EXPECT_EQ(counts[1].total, 2u);
    EXPECT_EQ(counts[1].stored, 1u);
  }
  Put("w1", "k3");
  Put("w2", "k2");  // late, after it was set aside
  ASSERT_OK_AND_ASSIGN(auto counts, store_->CountStages(id));
  EXPECT_EQ(counts[0].poisoned, 0u);
  EXPECT_EQ(counts[0].stored, 2u);
  EXPECT_EQ(counts[1].stored, 2u);
  ASSERT_OK(store_->CancelExperiment(id, At(3)));
  ASSERT_OK(store_->PurgeExperiment(id).status());
  ASSERT_EQ(Create("a"), id);
  ASSERT_OK_AND_ASSIGN(counts, store_->CountStages(id));
  EXPECT_THAT(counts, IsEmpty());
}

TEST_P(StoreContract, OnlyOpenCellsOfTheRightModelAndClassAreHandedOut) {
  const std::string id = Create("a");
  AddCells(id, {"k1", "k2", "k3"});
  ASSERT_OK(store_->GrantLease(Lease("l1", {"k1"})));
  Put("w9", "k2");
  EXPECT_THAT(OpenKeys(id), ElementsAre("k3"));
  ASSERT_OK_AND_ASSIGN(const auto other_model, store_->OpenCells(id, "m2", "c", At(0), 10));
  EXPECT_THAT(other_model, IsEmpty());
  ASSERT_OK_AND_ASSIGN(const auto other_class, store_->OpenCells(id, "m", "c2", At(0), 10));
  EXPECT_THAT(other_class, IsEmpty());
}

TEST_P(StoreContract, ACellIsFinishedOnceItsVerdictIsThere) {
  const std::string id = Create("a");
  AddCells(id, {"k1"});
  Put("w1", "k1");
  ASSERT_OK_AND_ASSIGN(auto unjudged, store_->UnjudgedCells("keyword", "v1", 10));
  ASSERT_THAT(unjudged, SizeIs(1));
  EXPECT_EQ(unjudged[0].result.text(), "answer to k1");
  EXPECT_EQ(unjudged[0].turns.at(0).text(), "say k1");
  ASSERT_OK_AND_ASSIGN(auto finished, store_->FinishedCells(id, 0));
  EXPECT_THAT(finished, IsEmpty());
  ASSERT_OK(store_->PutVerdicts({Verdict("k1")}, false));
  ASSERT_OK(store_->PutVerdicts({Verdict("k1", v1::VERDICT_LABEL_COMPLY)}, false));
  ASSERT_OK_AND_ASSIGN(unjudged, store_->UnjudgedCells("keyword", "v1", 10));
  EXPECT_THAT(unjudged, IsEmpty());
  ASSERT_OK_AND_ASSIGN(finished, store_->FinishedCells(id, 0));
  ASSERT_THAT(finished, SizeIs(1));
  EXPECT_EQ(finished[0].verdict.label(), v1::VERDICT_LABEL_REFUSE) << "the first verdict stays";
  ASSERT_OK_AND_ASSIGN(const v1::Verdict known, store_->FindVerdict("vk-k1"));
  EXPECT_EQ(known.label(), v1::VERDICT_LABEL_REFUSE);
  EXPECT_THAT(store_->FindVerdict("other"), StatusIs(absl::StatusCode::kNotFound));
}

TEST_P(StoreContract, AScoreCellNeedsNoVerdict) {
  const std::string id = Create("a");
  CellMember member = Member("k1");
  member.spec.set_kind(v1::CELL_KIND_SCORE);
  ASSERT_OK(store_->AddCells(id, 0, "s", {member}));
  Put("w1", "k1");
  ASSERT_OK_AND_ASSIGN(const auto unjudged, store_->UnjudgedCells("keyword", "v1", 10));
  EXPECT_THAT(unjudged, IsEmpty());
  ASSERT_OK_AND_ASSIGN(const auto finished, store_->FinishedCells(id, 0));
  EXPECT_THAT(finished, SizeIs(1));
}

TEST_P(StoreContract, VerdictsOnlyDropsTheTextOnceJudged) {
  const std::string id = Create("a");
  AddCells(id, {"k1"});
  Put("w1", "k1");
  ASSERT_OK(store_->PutVerdicts({Verdict("k1")}, /*drop_texts=*/true));
  ASSERT_OK_AND_ASSIGN(const auto rows, store_->ListResults(id, "", "", 10, true));
  EXPECT_EQ(rows.at(0).result.text(), "");
  EXPECT_TRUE(rows[0].has_verdict);
}

TEST_P(StoreContract, ResultsArePagedByKeyAndCondition) {
  const std::string id = Create("a");
  ASSERT_OK(
      store_->AddCells(id, 0, "s", {Member("k2", "x"), Member("k1", "y"), Member("k1", "x")}));
  std::vector<std::string> seen;
  std::string key;
  std::string condition;
  while (true) {
    ASSERT_OK_AND_ASSIGN(const auto rows, store_->ListResults(id, key, condition, 1, false));
    if (rows.empty()) break;
    key = rows[0].cell_key;
    condition = rows[0].condition;
    seen.push_back(absl::StrCat(key, condition));
  }
  EXPECT_THAT(seen, ElementsAre("k1x", "k1y", "k2x"));
}

}  // namespace
}  // namespace plumbline::testing
