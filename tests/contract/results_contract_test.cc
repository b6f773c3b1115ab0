// Results: the first one stays, another one is a violation.
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

TEST_P(StoreContract, TheFirstResultWinsWhoeverHoldsTheLease) {
  const std::string id = Create("a");
  AddCells(id, {"k1"});
  ASSERT_OK(store_->GrantLease(Lease("l1", {"k1"}, "w1")));
  EXPECT_EQ(Put("w2", "k1", "d", "an old lease"), PutOutcome::kStored);
  ASSERT_OK_AND_ASSIGN(const auto leases, store_->LeasesOfWorker("w1"));
  EXPECT_THAT(leases, IsEmpty()) << "a stored cell leaves its lease in the same transaction";
  EXPECT_EQ(Put("w1", "k1", "d", "l1"), PutOutcome::kEqual);
  EXPECT_EQ(Put("w1", "unknown", "d"), PutOutcome::kUnknownCell);
  ASSERT_OK_AND_ASSIGN(const auto rows, store_->ListResults(id, "", "", 10, true));
  ASSERT_THAT(rows, SizeIs(1));
  EXPECT_EQ(rows[0].result.worker_id(), "w2");
  EXPECT_EQ(rows[0].result.text(), "answer to k1");
}

TEST_P(StoreContract, ADifferentResultQuarantinesBothWorkersAndFlagsTheStudies) {
  const std::string a = Create("a");
  const std::string b = Create("b");
  AddCells(a, {"k1", "k2"});
  AddCells(b, {"k1"});
  EXPECT_EQ(Put("w1", "k1", "d1"), PutOutcome::kStored);
  ASSERT_OK(store_->GrantLease(Lease("l2", {"k2"}, "w2")));
  EXPECT_EQ(Put("w2", "k1", "d2"), PutOutcome::kConflict);
  Reopen();
  ASSERT_OK_AND_ASSIGN(const auto quarantined, store_->Quarantined());
  ASSERT_THAT(quarantined, SizeIs(2));
  EXPECT_EQ(quarantined[0].worker_id, "w1");
  EXPECT_THAT(quarantined[1].reason, HasSubstr("k1"));
  for (const std::string& id : {a, b}) {
    ASSERT_OK_AND_ASSIGN(const ExperimentRecord record, store_->GetExperiment(id));
    EXPECT_EQ(record.violations, 1u) << id;
  }
  EXPECT_THAT(OpenKeys(a), ElementsAre("k2")) << "a quarantined worker's cells go back";
  ASSERT_OK_AND_ASSIGN(const auto rows, store_->ListResults(a, "", "", 1, false));
  EXPECT_EQ(rows[0].result.worker_id(), "w1") << "the first result stays";
}

TEST_P(StoreContract, ALateResultOfAPoisonedCellIsStored) {
  const std::string id = Create("a");
  AddCells(id, {"k1"});
  ASSERT_OK(store_->GrantLease(Lease("l1", {"k1"})));
  WorkFailure failure;
  failure.max_attempts = 1;
  ASSERT_OK(store_->EndLease("l1", failure));
  EXPECT_EQ(Put("w1", "k1"), PutOutcome::kStored);
  ASSERT_OK_AND_ASSIGN(const auto counts, store_->CountStages(id));
  EXPECT_EQ(counts[0].poisoned, 0u);
  EXPECT_EQ(counts[0].stored, 1u);
}

TEST_P(StoreContract, AnAuditIsGrantedToAnotherWorkerAndCountedWhenEqual) {
  const std::string id = Create("a");
  AddCells(id, {"k1"});
  NewResult audited = Result("k1");
  audited.want_audit = true;
  ASSERT_OK(store_->PutResults("w1", "", {audited}, At(1)).status());
  ASSERT_OK_AND_ASSIGN(auto own, store_->WantedAudits("w1", "m", "c", 10));
  EXPECT_THAT(own, IsEmpty());
  ASSERT_OK_AND_ASSIGN(auto others, store_->WantedAudits("w2", "m", "c", 10));
  EXPECT_THAT(others, ElementsAre("k1"));
  LeaseRecord lease = Lease("l1", {"k1"}, "w2");
  lease.audit = true;
  ASSERT_OK(store_->GrantLease(lease));
  ASSERT_OK_AND_ASSIGN(others, store_->WantedAudits("w2", "m", "c", 10));
  EXPECT_THAT(others, IsEmpty());
  EXPECT_EQ(Put("w2", "k1", "d", "l1"), PutOutcome::kEqual);
  ASSERT_OK_AND_ASSIGN(const auto leases, store_->LeasesOfWorker("w2"));
  EXPECT_THAT(leases, IsEmpty());
  ASSERT_OK_AND_ASSIGN(const ExperimentTotals totals, store_->GetTotals(id));
  EXPECT_EQ(totals.audited, 1u);
}

TEST_P(StoreContract, TotalsNameTheBuildAndTheMachineThatComputed) {
  const std::string id = Create("a");
  AddCells(id, {"k1", "k2", "k3", "k4"});
  ASSERT_OK(store_->PutIncarnation({"i1", "w1", "1.0", "small"}));
  ASSERT_OK(store_->PutIncarnation({"i1", "w1", "9.9", "another"}));  // the first word counts
  ASSERT_OK(store_->PutIncarnation({"i2", "w1", "1.1", "large"}));
  const auto put = [&](const std::string& key, const std::string& incarnation) {
    NewResult result = Result(key);
    result.incarnation_id = incarnation;
    EXPECT_OK(store_->PutResults("w1", "", {result}, At(1)).status());
  };
  put("k1", "i1");
  put("k2", "i1");
  put("k3", "i2");
  put("k4", "unheard of");
  Reopen();
  ASSERT_OK_AND_ASSIGN(const ExperimentTotals totals, store_->GetTotals(id));
  ASSERT_EQ(totals.workers.size(), 3u);
  EXPECT_EQ(totals.workers[0].version(), "");
  EXPECT_EQ(totals.workers[0].cells(), 1u);
  EXPECT_EQ(totals.workers[1].version(), "1.0");
  EXPECT_EQ(totals.workers[1].machine(), "small");
  EXPECT_EQ(totals.workers[1].cells(), 2u);
  EXPECT_EQ(totals.workers[2].version(), "1.1");
  EXPECT_EQ(totals.workers[2].machine(), "large");
  EXPECT_EQ(totals.workers[2].cells(), 1u);
}

TEST_P(StoreContract, AResultThatWasThereBeforeIsShared) {
  const std::string a = Create("a");
  AddCells(a, {"k1"});
  Put("w1", "k1");
  const std::string b = Create("b");
  AddCells(b, {"k1", "k2"});
  ASSERT_OK_AND_ASSIGN(auto counts, store_->CountStages(b));
  EXPECT_EQ(counts[0].shared, 1u);
  EXPECT_EQ(counts[0].stored, 1u);
  Put("w1", "k2");
  AddCells(b, {"k1", "k2"});
  ASSERT_OK_AND_ASSIGN(counts, store_->CountStages(b));
  EXPECT_EQ(counts[0].shared, 1u) << "what the experiment ran itself is not shared";
  ASSERT_OK_AND_ASSIGN(const ExperimentTotals totals, store_->GetTotals(b));
  EXPECT_EQ(totals.cells, 2u);
  EXPECT_EQ(totals.cells_shared, 1u);
  EXPECT_EQ(totals.tokens_generated, 1u);
}

TEST_P(StoreContract, ResultsAreCountedByStageAndTimeWithoutTheSharedOnes) {
  const std::string a = Create("a");
  AddCells(a, {"k1"});
  Put("w1", "k1");
  const std::string b = Create("b");
  AddCells(b, {"k1", "k2"});
  ASSERT_OK(store_->ConcludeStage(b, 0, v1::Report(), "next", At(2)));
  ASSERT_OK(store_->AddCells(b, 1, "next", {Member("k3"), Member("k3", "again")}));
  Put("w1", "k2");
  Put("w1", "k3");
  const auto count = [&](int stage, int since) {
    auto counted = store_->CountResultsSince(b, stage, At(since));
    EXPECT_THAT(counted, IsOk());
    return counted.value_or(99);
  };
  EXPECT_EQ(count(0, 4), 1u) << "k2 alone: k1 was there before";
  EXPECT_EQ(count(1, 4), 1u) << "k3 once, whatever it serves";
  EXPECT_EQ(count(1, 5), 0u) << "all were stored at 5";
}

}  // namespace
}  // namespace plumbline::testing
