// Leases: who runs which cells until when.
#include <string>

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

TEST_P(StoreContract, ALeaseIsGrantedWholeOrNotAtAll) {
  const std::string id = Create("a");
  AddCells(id, {"k1", "k2"});
  ASSERT_OK(store_->GrantLease(Lease("l1", {"k1"})));
  EXPECT_THAT(store_->GrantLease(Lease("l2", {"k2", "k1"})), StatusIs(absl::StatusCode::kAborted));
  EXPECT_THAT(OpenKeys(id), ElementsAre("k2"));
  ASSERT_OK_AND_ASSIGN(const auto leases, store_->LeasesOfWorker("w1"));
  EXPECT_THAT(leases, SizeIs(1));
}

TEST_P(StoreContract, LeasesSurviveAReopenWithCellsAndAttempts) {
  const std::string id = Create("a");
  AddCells(id, {"k1", "k2"});
  ASSERT_OK(store_->GrantLease(Lease("l1", {"k2", "k1"})));
  Reopen();
  ASSERT_OK_AND_ASSIGN(const auto leases, store_->LeasesOfWorker("w1"));
  ASSERT_THAT(leases, SizeIs(1));
  EXPECT_THAT(leases[0].cell_keys, ElementsAre("k2", "k1"));
  EXPECT_EQ(leases[0].expires, At(30));
  ASSERT_OK_AND_ASSIGN(const auto cells, store_->CellsOfLease("l1"));
  ASSERT_THAT(cells, SizeIs(2));
  EXPECT_EQ(cells[0].attempt(), 1u);
  EXPECT_EQ(cells[0].spec().turns(0).text(), "say k2");
}

TEST_P(StoreContract, AnEndedLeaseGivesItsCellsBackUntilTheirAttemptsAreUsedUp) {
  const std::string id = Create("a");
  AddCells(id, {"k1"});
  WorkFailure failure;
  failure.max_attempts = 2;
  failure.reason = "worker vanished";
  ASSERT_OK(store_->GrantLease(Lease("l1", {"k1"})));
  ASSERT_OK(store_->EndLease("l1", failure));
  EXPECT_OK(store_->EndLease("l1", failure)) << "gone already";
  EXPECT_THAT(OpenKeys(id), ElementsAre("k1"));
  ASSERT_OK(store_->GrantLease(Lease("l2", {"k1"})));
  ASSERT_OK(store_->EndLease("l2", failure));
  EXPECT_THAT(OpenKeys(id), IsEmpty());
  ASSERT_OK_AND_ASSIGN(const auto finished, store_->FinishedCells(id, 0));
  ASSERT_THAT(finished, SizeIs(1));
  EXPECT_TRUE(finished[0].poisoned);
  EXPECT_EQ(finished[0].poison_reason, "worker vanished");
}

TEST_P(StoreContract, AReturnedCellLosesNoAttempt) {
  const std::string id = Create("a");
  AddCells(id, {"k1"});
  WorkFailure returned;
  returned.kind = FailureKind::kReturned;
  returned.max_attempts = 1;
  for (int i = 0; i < 5; ++i) {
    const std::string lease = absl::StrCat("l", i);
    ASSERT_OK(store_->GrantLease(Lease(lease, {"k1"})));
    ASSERT_OK_AND_ASSIGN(const FailOutcome outcome, store_->FailCell(lease, "k1", returned));
    EXPECT_EQ(outcome, FailOutcome::kRetry);
  }
  ASSERT_OK_AND_ASSIGN(const auto open, store_->OpenCells(id, "m", "c", At(0), 1));
  ASSERT_THAT(open, SizeIs(1));
  EXPECT_EQ(open[0].attempts, 0);
}

TEST_P(StoreContract, APermanentFailurePoisonsAtOnceAndABackoffDelays) {
  const std::string id = Create("a");
  AddCells(id, {"k1", "k2"});
  ASSERT_OK(store_->GrantLease(Lease("l1", {"k1", "k2"})));
  WorkFailure permanent;
  permanent.kind = FailureKind::kPermanent;
  ASSERT_OK_AND_ASSIGN(FailOutcome outcome, store_->FailCell("l1", "k1", permanent));
  EXPECT_EQ(outcome, FailOutcome::kPoisoned);
  WorkFailure later;
  later.not_before = At(60);
  ASSERT_OK_AND_ASSIGN(outcome, store_->FailCell("l1", "k2", later));
  EXPECT_EQ(outcome, FailOutcome::kRetry);
  EXPECT_THAT(OpenKeys(id, 10, 59), IsEmpty());
  EXPECT_THAT(OpenKeys(id, 10, 60), ElementsAre("k2"));
  ASSERT_OK_AND_ASSIGN(const auto leases, store_->LeasesOfWorker("w1"));
  EXPECT_THAT(leases, IsEmpty()) << "a lease without cells ends";
}

TEST_P(StoreContract, AFailureOfALostLeaseChangesNothing) {
  const std::string id = Create("a");
  AddCells(id, {"k1"});
  ASSERT_OK(store_->GrantLease(Lease("l1", {"k1"})));
  ASSERT_OK(store_->EndLease("l1", {}));
  ASSERT_OK(store_->GrantLease(Lease("l2", {"k1"}, "w2")));
  WorkFailure permanent;
  permanent.kind = FailureKind::kPermanent;
  ASSERT_OK_AND_ASSIGN(const FailOutcome outcome, store_->FailCell("l1", "k1", permanent));
  EXPECT_EQ(outcome, FailOutcome::kRetry);
  ASSERT_OK_AND_ASSIGN(const auto leases, store_->LeasesOfWorker("w2"));
  ASSERT_THAT(leases, SizeIs(1));
  EXPECT_THAT(leases[0].cell_keys, ElementsAre("k1"));
}

TEST_P(StoreContract, CancellingTakesLeasedCellsBackUnlessAnotherStudyWantsThem) {
  const std::string a = Create("a");
  const std::string b = Create("b");
  AddCells(a, {"k1", "k2"});
  AddCells(b, {"k2"});
  ASSERT_OK(store_->GrantLease(Lease("l1", {"k1", "k2"})));
  ASSERT_OK(store_->CancelExperiment(a, At(2)));
  ASSERT_OK_AND_ASSIGN(auto leases, store_->LeasesOfWorker("w1"));
  ASSERT_THAT(leases, SizeIs(1));
  EXPECT_THAT(leases[0].cell_keys, ElementsAre("k2"));
  ASSERT_OK(store_->CancelExperiment(b, At(2)));
  ASSERT_OK_AND_ASSIGN(leases, store_->LeasesOfWorker("w1"));
  EXPECT_THAT(leases, IsEmpty());
  ASSERT_OK(store_->ResumeExperiment(a, At(3)));
  ASSERT_OK_AND_ASSIGN(const auto open, store_->OpenCells(a, "m", "c", At(3), 10));
  ASSERT_THAT(open, SizeIs(2));
  EXPECT_EQ(open[0].attempts, 0) << "a cancelled lease is no attempt";
}

TEST_P(StoreContract, ExpiredLeasesAreFoundByTime) {
  const std::string id = Create("a");
  AddCells(id, {"k1", "k2"});
  ASSERT_OK(store_->GrantLease(Lease("l1", {"k1"})));
  ASSERT_OK(store_->GrantLease(Lease("l2", {"k2"})));
  ASSERT_OK(store_->RenewLease("l2", At(90), 3));
  ASSERT_OK_AND_ASSIGN(const auto none, store_->ExpiredLeases(At(30)));
  EXPECT_THAT(none, IsEmpty());
  ASSERT_OK_AND_ASSIGN(const auto one, store_->ExpiredLeases(At(31)));
  ASSERT_THAT(one, SizeIs(1));
  EXPECT_EQ(one[0].lease_id, "l1");
  ASSERT_OK_AND_ASSIGN(const auto leases, store_->LeasesOfWorker("w1"));
  EXPECT_EQ(leases[1].resends, 3);
}

}  // namespace
}  // namespace plumbline::testing
