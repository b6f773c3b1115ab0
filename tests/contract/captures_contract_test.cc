// Captures of activations.
#include <string>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/contract/store_contract.h"
#include "tests/support/status_matchers.h"

namespace plumbline::testing {
namespace {

using ::testing::ElementsAre;
using ::testing::IsEmpty;
using ::testing::SizeIs;

TEST_P(StoreContract, ACaptureIsAskedForOnceAndItsDigestKept) {
  const std::string id = Create("a");
  const v1::CaptureTask task = Capture("cap");
  ASSERT_OK(store_->AddCapture(id, 0, task));
  ASSERT_OK(store_->AddCapture(id, 0, task));
  ASSERT_OK_AND_ASSIGN(auto open, store_->OpenCaptures("m", "c", At(0), 10));
  ASSERT_THAT(open, SizeIs(1));
  LeaseRecord lease = Lease("l1", {});
  lease.capture_id = "cap";
  ASSERT_OK(store_->GrantLease(lease));
  ASSERT_OK_AND_ASSIGN(open, store_->OpenCaptures("m", "c", At(0), 10));
  EXPECT_THAT(open, IsEmpty());
  WorkFailure away;
  away.kind = FailureKind::kReturned;
  away.max_attempts = 1;
  away.reason = "capture service away";
  ASSERT_OK(store_->FailCapture("l1", "cap", away).status());
  ASSERT_OK_AND_ASSIGN(CaptureRecord record, store_->GetCapture("cap"));
  EXPECT_EQ(record.state, WorkState::kOpen);
  EXPECT_EQ(record.reason, "capture service away");
  lease.lease_id = "l2";
  ASSERT_OK(store_->GrantLease(lease));
  ASSERT_OK(store_->PutCapture("cap", "digest", 12));
  Reopen();
  ASSERT_OK_AND_ASSIGN(record, store_->GetCapture("cap"));
  EXPECT_EQ(record.state, WorkState::kStored);
  EXPECT_EQ(record.digest, "digest");
  ASSERT_OK_AND_ASSIGN(const auto leases, store_->LeasesOfWorker("w1"));
  EXPECT_THAT(leases, IsEmpty());
}

TEST_P(StoreContract, ALostCaptureIsOpenAgainWithAllItsAttempts) {
  const std::string id = Create("a");
  ASSERT_OK(store_->AddCapture(id, 0, Capture("cap")));
  LeaseRecord lease = Lease("l1", {});
  lease.capture_id = "cap";
  ASSERT_OK(store_->GrantLease(lease));
  ASSERT_OK(store_->ReopenCapture("cap", "early"));
  ASSERT_OK_AND_ASSIGN(CaptureRecord record, store_->GetCapture("cap"));
  EXPECT_EQ(record.state, WorkState::kLeased) << "nothing was stored yet, so nothing is lost";
  ASSERT_OK(store_->PutCapture("cap", "digest", 12));
  ASSERT_OK(store_->ReopenCapture("cap", "lost"));
  ASSERT_OK_AND_ASSIGN(record, store_->GetCapture("cap"));
  EXPECT_EQ(record.state, WorkState::kOpen);
  EXPECT_EQ(record.attempts, 0);
  EXPECT_EQ(record.reason, "lost");
  EXPECT_EQ(record.digest, "");
  ASSERT_OK_AND_ASSIGN(const auto open, store_->OpenCaptures("m", "c", At(0), 10));
  EXPECT_THAT(open, SizeIs(1));
  EXPECT_THAT(store_->ReopenCapture("other", ""), StatusIs(absl::StatusCode::kNotFound));
}

TEST_P(StoreContract, APurgedCaptureIsMadeAnewForTheNextStudyThatNeedsIt) {
  const std::string a = Create("a");
  ASSERT_OK(store_->AddCapture(a, 0, Capture("cap")));
  ASSERT_OK(store_->PutCapture("cap", "digest", 12));
  ASSERT_OK(store_->CancelExperiment(a, At(1)));
  ASSERT_OK_AND_ASSIGN(const PurgeOutcome purged, store_->PurgeTexts(a));
  EXPECT_THAT(purged.captures, ElementsAre("cap"));
  const std::string b = Create("b");
  ASSERT_OK(store_->AddCapture(b, 0, Capture("cap")));
  ASSERT_OK_AND_ASSIGN(const auto open, store_->OpenCaptures("m", "c", At(2), 10));
  ASSERT_THAT(open, SizeIs(1));
  EXPECT_EQ(open[0].capture_id(), "cap");
}

}  // namespace
}  // namespace plumbline::testing
