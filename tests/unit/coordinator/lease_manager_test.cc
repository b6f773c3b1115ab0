#include "services/coordinator/lease_manager.h"

#include <string>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/support/status_matchers.h"
#include "tests/unit/coordinator/fakes.h"

namespace plumbline {
namespace {

using ::testing::AllOf;
using ::testing::Each;
using ::testing::ElementsAre;
using testing::FakeCluster;
using testing::FakeWorker;
using ::testing::HasSubstr;
using testing::StatusIs;

class LeaseManagerTest : public ::testing::Test {
 protected:
  static LeaseOptions Options() {
    LeaseOptions options = FakeCluster::DefaultOptions();
    options.cells_per_lease = 4;
    return options;
  }

  // An experiment whose baseline cells are open.
  std::string Start(FakeCluster& cluster, const std::string& name, int prompts) {
    const std::string id = cluster.CreateStudy(name, prompts);
    v1::NumericsClass numerics = testing::TestNumerics();
    EXPECT_OK(cluster.store->BindExperiment(id, testing::TestModel(), numerics, "v1", v1::Report(),
                                            cluster.clock.Now()));
    cluster.Drive(id);
    EXPECT_EQ(cluster.Record(id).state, v1::EXPERIMENT_STATE_RUNNING);
    return id;
  }

  v1::ReportOutcome ReportOne(FakeCluster& cluster, FakeWorker& worker, int code) {
    v1::ReportRequest request = worker.Run(1);
    request.mutable_results(0)->mutable_status()->set_code(code);
    request.mutable_results(0)->mutable_status()->set_message("it broke");
    const auto response = cluster.manager->Report(request);
    EXPECT_THAT(response, testing::IsOk());
    worker.ReportTaken(request);
    return response->outcomes(0);
  }

  FakeCluster cluster_{Options()};
  FakeWorker worker_{"w1", cluster_.manager.get()};
  FakeWorker other_{"w2", cluster_.manager.get()};
};

TEST_F(LeaseManagerTest, LeasesAreBoundedInSizeAndByTheRoomOfTheWorker) {
  Start(cluster_, "a", 20);
  ASSERT_OK(worker_.Sync(10));
  EXPECT_EQ(worker_.cells_held(), 10u);
  ASSERT_EQ(worker_.leases.size(), 3u);
  for (const auto& [id, lease] : worker_.leases) EXPECT_LE(lease.cells_size(), 4) << id;
  ASSERT_OK(worker_.Sync(0));
  EXPECT_EQ(worker_.cells_held(), 10u);
  EXPECT_THAT(worker_.attempts, Each(1u));
}

TEST_F(LeaseManagerTest, AGrantedLeaseMissingFromTheNextSyncIsSentAgain) {
  Start(cluster_, "a", 4);
  ASSERT_OK_AND_ASSIGN(const v1::SyncResponse lost, cluster_.manager->Sync(worker_.MakeSync(4)));
  ASSERT_EQ(lost.start_size(), 1);
  ASSERT_OK_AND_ASSIGN(const v1::SyncResponse again, cluster_.manager->Sync(worker_.MakeSync(4)));
  ASSERT_EQ(again.start_size(), 1);
  EXPECT_EQ(again.start(0).SerializeAsString(), lost.start(0).SerializeAsString());
  EXPECT_EQ(again.start(0).cells(0).attempt(), 1u) << "sending again is no new attempt";
}

TEST_F(LeaseManagerTest, ARepeatedSyncGrantsNothingBeyondTheRoom) {
  Start(cluster_, "a", 20);
  const v1::SyncRequest request = worker_.MakeSync(4);
  ASSERT_OK_AND_ASSIGN(const v1::SyncResponse first, cluster_.manager->Sync(request));
  ASSERT_OK_AND_ASSIGN(const v1::SyncResponse second, cluster_.manager->Sync(request));
  ASSERT_EQ(second.start_size(), 1);
  EXPECT_EQ(second.start(0).lease_id(), first.start(0).lease_id());
}

TEST_F(LeaseManagerTest, ALateSyncIsAbortedAndChangesNothing) {
  Start(cluster_, "a", 8);
  const v1::SyncRequest late = worker_.MakeSync(4);
  ASSERT_OK(worker_.Sync(4));
  EXPECT_THAT(cluster_.manager->Sync(late), StatusIs(absl::StatusCode::kAborted));
  ASSERT_OK_AND_ASSIGN(const auto leases, cluster_.store->LeasesOfWorker("w1"));
  EXPECT_EQ(leases.size(), 1u);
}

TEST_F(LeaseManagerTest, AReplacedIncarnationIsAborted) {
  Start(cluster_, "a", 8);
  const v1::SyncRequest old = worker_.MakeSync(4);
  ASSERT_OK(worker_.Sync(4));
  worker_.Restart(cluster_.manager.get());
  ASSERT_OK(worker_.Sync(4));
  EXPECT_THAT(cluster_.manager->Sync(old), StatusIs(absl::StatusCode::kAborted));
}

TEST_F(LeaseManagerTest, CellsOfARestartedWorkerGoOutAgainWithAttemptPlusOne) {
  Start(cluster_, "a", 4);
  ASSERT_OK(worker_.Sync(4));
  worker_.Restart(cluster_.manager.get());
  cluster_.clock.Advance(absl::Seconds(1));
  ASSERT_OK(worker_.Sync(4));
  EXPECT_EQ(worker_.cells_held(), 4u);
  EXPECT_THAT(worker_.attempts, ElementsAre(1, 1, 1, 1, 2, 2, 2, 2));
}

TEST_F(LeaseManagerTest, ExpiredLeaseGoesToTheNextWorkerWithAttemptPlusOne) {
  Start(cluster_, "a", 4);
  ASSERT_OK(worker_.Sync(4));
  ASSERT_OK(other_.Sync(4));
  EXPECT_EQ(other_.cells_held(), 0u);
  cluster_.clock.Advance(absl::Seconds(31));
  ASSERT_OK(other_.Sync(4));
  EXPECT_EQ(other_.cells_held(), 4u);
  EXPECT_THAT(other_.attempts, Each(2u));
  ASSERT_OK(worker_.Sync(0));
  EXPECT_EQ(worker_.cells_held(), 0u) << "the first worker is told to drop what it lost";
}

TEST_F(LeaseManagerTest, ALeaseThatIsRenewedInTimeDoesNotExpire) {
  Start(cluster_, "a", 4);
  ASSERT_OK(worker_.Sync(4));
  for (int i = 0; i < 10; ++i) {
    cluster_.clock.Advance(absl::Seconds(20));
    ASSERT_OK(worker_.Sync(0));
    ASSERT_OK(other_.Sync(4));
  }
  EXPECT_EQ(worker_.cells_held(), 4u);
  EXPECT_EQ(other_.cells_held(), 0u);
}

TEST_F(LeaseManagerTest, ACoordinatorsOwnAbsenceExpiresNoLease) {
  Start(cluster_, "a", 4);
  ASSERT_OK(worker_.Sync(4));
  cluster_.clock.Advance(absl::Hours(1));
  cluster_.Restart();
  worker_.SetManager(cluster_.manager.get());
  other_.SetManager(cluster_.manager.get());
  ASSERT_OK(other_.Sync(4));
  EXPECT_EQ(other_.cells_held(), 0u);
  ASSERT_OK(worker_.Sync(0));
  EXPECT_EQ(worker_.cells_held(), 4u);
}

TEST_F(LeaseManagerTest, ACellWhoseLeaseKeepsExpiringIsPoisonedWithItsReason) {
  const std::string id = Start(cluster_, "a", 1);
  for (int attempt = 1; attempt <= 3; ++attempt) {
    ASSERT_OK(worker_.Sync(4));
    ASSERT_EQ(worker_.cells_held(), 1u) << attempt;
    worker_.leases.clear();
    cluster_.clock.Advance(absl::Seconds(31));
    ASSERT_OK(cluster_.manager->ExpireLeases());
  }
  ASSERT_OK(worker_.Sync(4));
  EXPECT_EQ(worker_.cells_held(), 0u);
  ASSERT_OK_AND_ASSIGN(const auto finished, cluster_.store->FinishedCells(id, 0));
  ASSERT_EQ(finished.size(), 1u);
  EXPECT_TRUE(finished[0].poisoned);
  EXPECT_THAT(finished[0].poison_reason, AllOf(HasSubstr("w1"), HasSubstr("not heard from")));
}

TEST_F(LeaseManagerTest, ALeaseThatItsWorkerNeverListsIsTakenBack) {
  Start(cluster_, "a", 1);
  int sent = 0;
  for (int i = 0; i < 9; ++i) {
    ASSERT_OK_AND_ASSIGN(const auto response, cluster_.manager->Sync(worker_.MakeSync(0)));
    sent += response.start_size();
    if (i == 0) {
      ASSERT_OK_AND_ASSIGN(const auto first, cluster_.manager->Sync(worker_.MakeSync(4)));
      sent += first.start_size();
    }
  }
  EXPECT_EQ(sent, 9);
  cluster_.clock.Advance(absl::Seconds(1));
  ASSERT_OK_AND_ASSIGN(const auto last, cluster_.manager->Sync(worker_.MakeSync(0)));
  EXPECT_EQ(last.start_size(), 0);
  ASSERT_OK(other_.Sync(4));
  EXPECT_EQ(other_.cells_held(), 1u);
}

TEST_F(LeaseManagerTest, ADrainingWorkerGetsNothingAndKeepsWhatItRuns) {
  Start(cluster_, "a", 12);
  ASSERT_OK(worker_.Sync(4));
  ASSERT_OK(cluster_.manager->Sync(worker_.MakeSync(4)).status());  // its answer is lost
  worker_.draining = true;
  ASSERT_OK(worker_.Sync(8));
  EXPECT_EQ(worker_.cells_held(), 4u);
  ASSERT_OK(other_.Sync(64));
  EXPECT_EQ(other_.cells_held(), 8u) << "what never reached the draining worker is free again";
  EXPECT_THAT(other_.attempts, Each(1u));
}

TEST_F(LeaseManagerTest, AWorkerOfAnotherClassOrModelGetsNothing) {
  Start(cluster_, "a", 4);
  v1::SyncRequest request = worker_.MakeSync(4);
  request.mutable_capabilities()->mutable_numerics()->set_id("class-b");
  ASSERT_OK_AND_ASSIGN(auto response, cluster_.manager->Sync(request));
  EXPECT_EQ(response.start_size(), 0);
  request = other_.MakeSync(4);
  request.mutable_capabilities()->mutable_models(0)->set_model_digest("another");
  ASSERT_OK_AND_ASSIGN(response, cluster_.manager->Sync(request));
  EXPECT_EQ(response.start_size(), 0);
}

TEST_F(LeaseManagerTest, TwoStudiesShareAWorker) {
  Start(cluster_, "a", 40);
  // Other prompts, so that the studies have no cells in common.
  const std::string b = cluster_.CreateStudy("b", 0);
  ASSERT_OK(cluster_.store->BindExperiment(b, testing::TestModel(), testing::TestNumerics(), "v1",
                                           v1::Report(), cluster_.clock.Now()));
  std::vector<CellMember> members;
  for (int i = 0; i < 40; ++i) {
    CellMember& member = members.emplace_back();
    member.key = absl::StrCat("b", i);
    member.spec.set_kind(v1::CELL_KIND_GENERATE);
    member.spec.set_model_digest(testing::TestModel().model_digest());
    member.spec.set_numerics_class_id("class-a");
    member.condition = "baseline";
    member.position = i;
  }
  ASSERT_OK(cluster_.store->AddCells(b, 0, "baseline", members));
  ASSERT_OK(worker_.Sync(32));
  int of_b = 0;
  for (const auto& [id, lease] : worker_.leases) {
    for (const auto& cell : lease.cells())
      of_b += cell.cell_key()[0] == 'b' && cell.cell_key().size() < 10;
  }
  EXPECT_EQ(of_b, 16);
}

TEST_F(LeaseManagerTest, TheLastCellsAreSharedBetweenWorkers) {
  Start(cluster_, "a", 8);
  ASSERT_OK(worker_.Sync(0));
  ASSERT_OK(other_.Sync(0));
  ASSERT_OK(worker_.Sync(64));
  EXPECT_EQ(worker_.cells_held(), 4u);
  ASSERT_OK(other_.Sync(64));
  EXPECT_GE(other_.cells_held(), 2u);
}

TEST_F(LeaseManagerTest, AResultIsStoredOnceAndEqualAfterwardsWhoeverReports) {
  Start(cluster_, "a", 1);
  ASSERT_OK(worker_.Sync(4));
  const v1::ReportRequest report = worker_.Run();
  ASSERT_OK_AND_ASSIGN(v1::ReportResponse response, cluster_.manager->Report(report));
  EXPECT_THAT(response.outcomes(), ElementsAre(v1::REPORT_OUTCOME_STORED));
  ASSERT_OK_AND_ASSIGN(response, cluster_.manager->Report(report));
  EXPECT_THAT(response.outcomes(), ElementsAre(v1::REPORT_OUTCOME_EQUAL));
  v1::ReportRequest late = report;
  late.set_worker_id("w2");
  late.set_lease_id("long gone");
  ASSERT_OK_AND_ASSIGN(response, cluster_.manager->Report(late));
  EXPECT_THAT(response.outcomes(), ElementsAre(v1::REPORT_OUTCOME_EQUAL));
  late.mutable_results(0)->set_cell_key("no such cell");
  ASSERT_OK_AND_ASSIGN(response, cluster_.manager->Report(late));
  EXPECT_THAT(response.outcomes(), ElementsAre(v1::REPORT_OUTCOME_UNKNOWN_CELL));
}

TEST_F(LeaseManagerTest, ADifferentResultQuarantinesBothWorkers) {
  const std::string id = Start(cluster_, "a", 4);
  ASSERT_OK(worker_.Sync(4));
  const v1::ReportRequest report = worker_.Run(1);
  ASSERT_OK(cluster_.manager->Report(report).status());
  v1::ReportRequest wrong = report;
  wrong.set_worker_id("w2");
  wrong.mutable_results(0)->add_token_ids(99);
  ASSERT_OK_AND_ASSIGN(const auto response, cluster_.manager->Report(wrong));
  EXPECT_THAT(response.outcomes(), ElementsAre(v1::REPORT_OUTCOME_CONFLICT));
  EXPECT_THAT(cluster_.manager->Sync(worker_.MakeSync()),
              StatusIs(absl::StatusCode::kFailedPrecondition, HasSubstr("quarantined")));
  EXPECT_THAT(cluster_.manager->Sync(other_.MakeSync()),
              StatusIs(absl::StatusCode::kFailedPrecondition));
  EXPECT_THAT(cluster_.manager->Report(report), StatusIs(absl::StatusCode::kFailedPrecondition));
  EXPECT_EQ(cluster_.Record(id).violations, 1u);
  FakeWorker third("w3", cluster_.manager.get());
  ASSERT_OK(third.Sync(64));
  EXPECT_EQ(third.cells_held(), 3u) << "the quarantined worker's other cells are free";
}

TEST_F(LeaseManagerTest, AnInvalidCellIsPoisonedAtOnce) {
  Start(cluster_, "a", 1);
  ASSERT_OK(worker_.Sync(4));
  EXPECT_EQ(ReportOne(cluster_, worker_, 3), v1::REPORT_OUTCOME_POISONED);
}

TEST_F(LeaseManagerTest, AnExhaustedWorkerIsTriedAgainAfterAPauseUntilTheAttemptsAreUsedUp) {
  Start(cluster_, "a", 1);
  for (int attempt = 1; attempt <= 3; ++attempt) {
    ASSERT_OK(worker_.Sync(4));
    ASSERT_EQ(worker_.cells_held(), 1u) << attempt;
    EXPECT_EQ(ReportOne(cluster_, worker_, attempt == 2 ? 14 : 8),
              attempt < 3 ? v1::REPORT_OUTCOME_RETRY : v1::REPORT_OUTCOME_POISONED);
    ASSERT_OK(worker_.Sync(4));
    EXPECT_EQ(worker_.cells_held(), 0u) << "not at once";
    cluster_.clock.Advance(absl::Seconds(5));
  }
}

TEST_F(LeaseManagerTest, AReturnedCellLosesNoAttempt) {
  Start(cluster_, "a", 1);
  for (int i = 0; i < 6; ++i) {
    ASSERT_OK(worker_.Sync(4));
    ASSERT_EQ(worker_.cells_held(), 1u) << i;
    EXPECT_EQ(ReportOne(cluster_, worker_, 1), v1::REPORT_OUTCOME_RETRY);
    cluster_.clock.Advance(absl::Seconds(5));
  }
  EXPECT_THAT(worker_.attempts, Each(1u));
}

TEST_F(LeaseManagerTest, AMalformedReportIsRefusedWhole) {
  Start(cluster_, "a", 1);
  ASSERT_OK(worker_.Sync(4));
  v1::ReportRequest request = worker_.Run();
  request.add_results()->set_cell_key("");
  EXPECT_THAT(cluster_.manager->Report(request), StatusIs(absl::StatusCode::kInvalidArgument));
  request.mutable_results(1)->set_cell_key("x");
  request.mutable_results(1)->mutable_status()->set_code(99);
  EXPECT_THAT(cluster_.manager->Report(request),
              StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr("99")));
  v1::SyncRequest sync = worker_.MakeSync();
  sync.clear_incarnation_id();
  EXPECT_THAT(cluster_.manager->Sync(sync), StatusIs(absl::StatusCode::kInvalidArgument));
}

TEST(LeaseManagerAuditTest, AnAuditedCellRunsOnceMoreOnAnotherWorkerAndOnlyThere) {
  LeaseOptions options = FakeCluster::DefaultOptions();
  options.audit_fraction = 1;
  FakeCluster cluster(options);
  FakeWorker first("w1", cluster.manager.get(), &cluster.peers);
  FakeWorker second("w2", cluster.manager.get(), &cluster.peers);
  const std::string id = cluster.CreateStudy("a", 3);
  ASSERT_EQ(cluster.RunToEnd(id, &first), v1::EXPERIMENT_STATE_SUCCEEDED);
  for (const auto& [key, runs] : first.runs) EXPECT_EQ(runs, 1) << key;
  for (int i = 0; i < 12; ++i) {
    ASSERT_OK(second.Sync(64));
    ASSERT_THAT(second.RunAndReport(), testing::IsOk());
  }
  EXPECT_EQ(second.runs.size(), first.runs.size());
  for (const auto& [key, runs] : second.runs) EXPECT_EQ(runs, 1) << key;
  ASSERT_OK_AND_ASSIGN(const ExperimentTotals totals, cluster.store->GetTotals(id));
  EXPECT_EQ(totals.audited, first.runs.size());
}

}  // namespace
}  // namespace plumbline
