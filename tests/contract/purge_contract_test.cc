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

// A result with everything that speaks of its answer.
NewResult FullResult(const std::string& key) {
  NewResult full;
  full.result.set_cell_key(key);
  full.result.add_token_ids(7);
  full.result.set_text("answer to " + key);
  full.result.set_finish_reason(v1::FINISH_REASON_EOS);
  full.result.set_prompt_tokens(3);
  full.result.set_prompt_digest("digest of the prompt's tokens");
  full.result.add_first_tokens()->set_token(7);
  full.digest = "digest of " + key;
  full.want_audit = true;
  return full;
}

TEST_P(StoreContract, APurgeTakesAllOfPromptsAndAnswersAndLeavesVerdicts) {
  const std::string id = Create("a");
  AddCells(id, {"k1"});
  ASSERT_OK(store_->PutResults("w1", "", {FullResult("k1")}, At(1)).status());
  ASSERT_OK(store_->PutVerdicts({Verdict("k1")}, false));
  EXPECT_THAT(store_->PurgeTexts(id), StatusIs(absl::StatusCode::kFailedPrecondition));
  ASSERT_OK(store_->CancelExperiment(id, At(1)));
  ASSERT_OK_AND_ASSIGN(const PurgeOutcome outcome, store_->PurgeTexts(id));
  EXPECT_EQ(outcome.texts_removed, 4u) << "an answer, a prompt of a cell, two prompts of the study";
  ASSERT_OK_AND_ASSIGN(const auto rows, store_->ListResults(id, "", "", 10, true));
  ASSERT_THAT(rows, SizeIs(1));
  EXPECT_EQ(rows[0].result.text(), "");
  EXPECT_EQ(rows[0].spec.turns_size(), 0);
  EXPECT_THAT(rows[0].result.token_ids(), IsEmpty());
  EXPECT_THAT(rows[0].result.first_tokens(), IsEmpty());
  EXPECT_EQ(rows[0].result.prompt_digest(), "");
  EXPECT_EQ(rows[0].result.finish_reason(), v1::FINISH_REASON_EOS);
  EXPECT_EQ(rows[0].result.prompt_tokens(), 3u);
  EXPECT_FALSE(store_->FindVerdict(Verdict("k1").verdict_key).ok())
      << "the verdict's key is a digest of the answer";
  EXPECT_EQ(rows[0].verdict.label(), v1::VERDICT_LABEL_REFUSE);
  EXPECT_THAT(store_->ResumeExperiment(id, At(3)),
              StatusIs(absl::StatusCode::kFailedPrecondition, HasSubstr("purged")));
  ASSERT_OK_AND_ASSIGN(const auto left, store_->ExperimentsToPurge(At(100)));
  EXPECT_THAT(left, IsEmpty());
}

TEST_P(StoreContract, APurgedCellRunsAgainForALaterStudy) {
  const std::string a = Create("a");
  AddCells(a, {"k1"});
  ASSERT_OK(store_->PutResults("w1", "", {FullResult("k1")}, At(1)).status());
  ASSERT_OK(store_->PutVerdicts({Verdict("k1")}, false));
  ASSERT_OK(store_->CancelExperiment(a, At(1)));
  ASSERT_OK(store_->PurgeTexts(a).status());
  // What comes late is neither kept nor a contradiction.
  ASSERT_OK_AND_ASSIGN(const auto late, store_->PutResults("w2", "", {FullResult("k1")}, At(2)));
  EXPECT_EQ(late[0].outcome, PutOutcome::kEqual);
  ASSERT_OK_AND_ASSIGN(auto rows, store_->ListResults(a, "", "", 10, true));
  EXPECT_THAT(rows[0].result.token_ids(), IsEmpty());

  const std::string b = Create("b");
  AddCells(b, {"k1"});
  ASSERT_OK_AND_ASSIGN(auto counts, store_->CountStages(b));
  EXPECT_EQ(counts[0].stored, 0u);
  EXPECT_EQ(counts[0].shared, 0u);
  // Whether or not it ever runs again, the purged study keeps its verdict.
  ASSERT_OK_AND_ASSIGN(rows, store_->ListResults(a, "", "", 10, true));
  ASSERT_THAT(rows, SizeIs(1));
  EXPECT_EQ(rows[0].verdict.label(), v1::VERDICT_LABEL_REFUSE);
  ASSERT_OK_AND_ASSIGN(const auto stored, store_->PutResults("w1", "", {FullResult("k1")}, At(3)));
  EXPECT_EQ(stored[0].outcome, PutOutcome::kStored);
  ASSERT_OK_AND_ASSIGN(rows, store_->ListResults(b, "", "", 10, true));
  EXPECT_THAT(rows[0].result.token_ids(), ElementsAre(7));
  EXPECT_EQ(rows[0].result.text(), "answer to k1");
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
