// Taking texts and whole experiments away.
#include <string>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/contract/store_contract.h"
#include "tests/support/status_matchers.h"

namespace plumbline::testing {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using ::testing::SizeIs;

TEST_P(StoreContract, APurgeTakesTextsAndLeavesTokensAndVerdicts) {
  const std::string id = Create("a");
  AddCells(id, {"k1"});
  Put("w1", "k1");
  ASSERT_OK(store_->PutVerdicts({Verdict("k1")}, false));
  EXPECT_THAT(store_->PurgeTexts(id), StatusIs(absl::StatusCode::kFailedPrecondition));
  ASSERT_OK(store_->CancelExperiment(id, At(1)));
  ASSERT_OK_AND_ASSIGN(const PurgeOutcome outcome, store_->PurgeTexts(id));
  EXPECT_EQ(outcome.texts_removed, 4u) << "an answer, a prompt of a cell, two prompts of the study";
  ASSERT_OK_AND_ASSIGN(const auto rows, store_->ListResults(id, "", "", 10, true));
  ASSERT_THAT(rows, SizeIs(1));
  EXPECT_EQ(rows[0].result.text(), "");
  EXPECT_EQ(rows[0].spec.turns_size(), 0);
  EXPECT_THAT(rows[0].result.token_ids(), ElementsAre(7));
  EXPECT_EQ(rows[0].verdict.label(), v1::VERDICT_LABEL_REFUSE);
  EXPECT_THAT(store_->ResumeExperiment(id, At(3)),
              StatusIs(absl::StatusCode::kFailedPrecondition, HasSubstr("purged")));
  ASSERT_OK_AND_ASSIGN(const auto left, store_->ExperimentsToPurge(At(100)));
  EXPECT_THAT(left, IsEmpty());
}

TEST_P(StoreContract, APurgeSparesWhatAnotherStudyHolds) {
  const std::string a = Create("a");
  const std::string b = Create("b");
  AddCells(a, {"k1", "k2"});
  AddCells(b, {"k1"});
  Put("w1", "k1");
  Put("w1", "k2");
  ASSERT_OK(store_->CancelExperiment(a, At(1)));
  ASSERT_OK_AND_ASSIGN(const auto old, store_->ExperimentsToPurge(At(2)));
  EXPECT_THAT(old, ElementsAre(a));
  ASSERT_OK_AND_ASSIGN(const PurgeOutcome outcome, store_->PurgeExperiment(a));
  EXPECT_EQ(outcome.cells_removed, 1u);
  EXPECT_THAT(store_->GetExperiment(a), StatusIs(absl::StatusCode::kNotFound));
  ASSERT_OK_AND_ASSIGN(const auto rows, store_->ListResults(b, "", "", 10, true));
  ASSERT_THAT(rows, SizeIs(1));
  EXPECT_EQ(rows[0].result.text(), "answer to k1");
}

}  // namespace
}  // namespace plumbline::testing
