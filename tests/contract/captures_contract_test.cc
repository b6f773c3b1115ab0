// Captures of activations.
#include <string>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/contract/store_contract.h"
#include "tests/support/status_matchers.h"

namespace plumbline::testing {
namespace {

using ::testing::IsEmpty;
using ::testing::SizeIs;

TEST_P(StoreContract, ACaptureIsAskedForOnceAndItsDigestKept) {
  const std::string id = Create("a");
  v1::CaptureTask task;
  task.set_capture_id("cap");
  task.set_model_digest("m");
  task.set_numerics_class_id("c");
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

}  // namespace
}  // namespace plumbline::testing
