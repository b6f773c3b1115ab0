#include "services/coordinator/experiment_driver.h"

#include <string>

#include "absl/strings/str_cat.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/support/status_matchers.h"
#include "tests/unit/coordinator/fakes.h"

namespace plumbline {
namespace {

using ::testing::AllOf;
using testing::FakeCluster;
using testing::FakeWorker;
using ::testing::HasSubstr;
using testing::StatusIs;

TEST(ExperimentDriverTest, AStudyRunsThroughItsStages) {
  FakeCluster cluster;
  FakeWorker worker("w", cluster.manager.get(), &cluster.peers);
  const std::string id = cluster.CreateStudy("a", 10);
  ASSERT_EQ(cluster.RunToEnd(id, &worker), v1::EXPERIMENT_STATE_SUCCEEDED)
      << cluster.Record(id).message;
  ASSERT_OK_AND_ASSIGN(const v1::Report report, cluster.store->GetReport(id));
  ASSERT_EQ(report.sweep_size(), 2);
  EXPECT_EQ(report.sweep(0).cells(), 10u);
  EXPECT_EQ(report.sweep(1).cells(), report.sweep(0).baseline_refusals() * 3);
  EXPECT_EQ(report.headline().mode(), v1::FAILURE_MODE_DILUTION);
  EXPECT_FALSE(report.channels().capture_digest().empty());
  EXPECT_EQ(report.provenance().model().name(), "tiny");
  EXPECT_EQ(report.provenance().judge_version(), "v1");
  for (const auto& [key, runs] : worker.runs) EXPECT_EQ(runs, 1) << key;
}

TEST(ExperimentDriverTest, AStudyBegunUnderOtherRulesDoesNotGoOn) {
  FakeCluster cluster;
  FakeWorker worker("w", cluster.manager.get(), &cluster.peers);
  const std::string id = cluster.CreateStudy("a", 6);
  cluster.logic.rules = absl::FailedPreconditionError("begun under the rules plumbline/2");
  EXPECT_EQ(cluster.RunToEnd(id, &worker), v1::EXPERIMENT_STATE_FAILED);
  EXPECT_THAT(cluster.Record(id).message, HasSubstr("begun under the rules plumbline/2"));
}

TEST(ExperimentDriverTest, WithoutTheModelItIsPendingAndSaysWhatIsMissing) {
  FakeCluster cluster;
  const std::string id = cluster.CreateStudy("a", 2);
  cluster.Drive(id);
  EXPECT_EQ(cluster.Record(id).state, v1::EXPERIMENT_STATE_PENDING);
  EXPECT_THAT(cluster.Record(id).message,
              AllOf(HasSubstr("waiting for a worker"), HasSubstr("model 'tiny'"),
                    HasSubstr("none is connected"), HasSubstr("starts by itself")));
  FakeWorker other("other", cluster.manager.get());
  v1::SyncRequest sync = other.MakeSync();
  sync.mutable_capabilities()->mutable_models(0)->set_name("large");
  ASSERT_THAT(cluster.manager->Sync(sync), testing::IsOk());
  cluster.Drive(id);
  EXPECT_EQ(cluster.Record(id).state, v1::EXPERIMENT_STATE_PENDING);
  EXPECT_THAT(cluster.Record(id).message, HasSubstr("those connected offer large (0123456789ab)"));
}

TEST(ExperimentDriverTest, WithTheJudgeAwayItWaitsAndGoesOnByItself) {
  FakeCluster cluster;
  FakeWorker worker("w", cluster.manager.get(), &cluster.peers);
  const std::string id = cluster.CreateStudy("a", 6);
  ASSERT_OK(worker.Sync());
  while (cluster.Record(id).state != v1::EXPERIMENT_STATE_RUNNING) cluster.Drive(id);
  cluster.judge.down = true;
  EXPECT_EQ(cluster.RunToEnd(id, &worker, 30), v1::EXPERIMENT_STATE_WAITING);
  EXPECT_THAT(cluster.Record(id).message,
              AllOf(HasSubstr("(stage baseline)"), HasSubstr("judge at 127.0.0.1:7074"),
                    HasSubstr("6 answers"), HasSubstr("goes on by itself")));
  cluster.judge.down = false;
  EXPECT_EQ(cluster.RunToEnd(id, &worker), v1::EXPERIMENT_STATE_SUCCEEDED);
}

TEST(ExperimentDriverTest, WithTheCaptureServiceAwayItWaitsAndGoesOnByItself) {
  FakeCluster cluster;
  FakeWorker worker("w", cluster.manager.get(), &cluster.peers);
  worker.capture_down = true;
  const std::string id = cluster.CreateStudy("a", 6);
  EXPECT_EQ(cluster.RunToEnd(id, &worker, 60), v1::EXPERIMENT_STATE_WAITING);
  EXPECT_THAT(cluster.Record(id).message,
              AllOf(HasSubstr("(stage outliers)"), HasSubstr("127.0.0.1:7072")));
  worker.capture_down = false;
  EXPECT_EQ(cluster.RunToEnd(id, &worker), v1::EXPERIMENT_STATE_SUCCEEDED);
}

TEST(ExperimentDriverTest, ACaptureThatItsServiceLostIsMadeAgain) {
  FakeCluster cluster;
  FakeWorker worker("w", cluster.manager.get(), &cluster.peers);
  cluster.peers.captures_to_lose = 3;
  const std::string id = cluster.CreateStudy("a", 6);
  EXPECT_EQ(cluster.RunToEnd(id, &worker), v1::EXPERIMENT_STATE_SUCCEEDED)
      << cluster.Record(id).message;
  EXPECT_EQ(cluster.peers.captures_to_lose, 0);
  EXPECT_EQ(worker.captures_run, 4);
}

TEST(ExperimentDriverTest, ACaptureThatIsLostEachTimeFailsTheStudyInTheEnd) {
  FakeCluster cluster;
  FakeWorker worker("w", cluster.manager.get(), &cluster.peers);
  cluster.peers.captures_to_lose = 1000;
  const std::string id = cluster.CreateStudy("a", 6);
  EXPECT_EQ(cluster.RunToEnd(id, &worker), v1::EXPERIMENT_STATE_FAILED);
  EXPECT_THAT(cluster.Record(id).message,
              AllOf(HasSubstr("(stage outliers)"), HasSubstr("captured 4 times"),
                    HasSubstr("no capture capture-")));
  EXPECT_EQ(worker.captures_run, 4);
}

// The fake ablation lets the capture begin; the baseline lets nothing begin.
TEST(ExperimentDriverTest, WorkOfTheNextStageBeginsBesideAStageThatLetsIt) {
  FakeCluster cluster;
  FakeWorker worker("w", cluster.manager.get(), &cluster.peers);
  const std::string id = cluster.CreateStudy("a", 6);
  const auto captured = [&] {
    return cluster.store->GetCapture(
        absl::StrCat("capture-", cluster.Record(id).model.model_digest()));
  };
  while (cluster.Record(id).stage != "ablation") {
    EXPECT_THAT(captured(), StatusIs(absl::StatusCode::kNotFound));
    cluster.RunToEnd(id, &worker, 1);
  }
  cluster.Drive(id);
  ASSERT_EQ(cluster.Record(id).stage, "ablation");
  ASSERT_OK(captured());
  ASSERT_OK(worker.Sync());
  ASSERT_OK(worker.RunAndReport());
  EXPECT_EQ(worker.captures_run, 1);
  EXPECT_EQ(cluster.Record(id).stage, "ablation");
  EXPECT_EQ(cluster.RunToEnd(id, &worker), v1::EXPERIMENT_STATE_SUCCEEDED);
  EXPECT_EQ(worker.captures_run, 1);
}

TEST(ExperimentDriverTest, WithAPeerAwayAtTheConclusionItWaitsAndGoesOnByItself) {
  FakeCluster cluster;
  FakeWorker worker("w", cluster.manager.get(), &cluster.peers);
  cluster.peers.pcr_down = true;
  const std::string id = cluster.CreateStudy("a", 6);
  EXPECT_EQ(cluster.RunToEnd(id, &worker, 60), v1::EXPERIMENT_STATE_WAITING);
  EXPECT_THAT(cluster.Record(id).message, HasSubstr("pcr at 127.0.0.1:7075"));
  cluster.peers.pcr_down = false;
  EXPECT_EQ(cluster.RunToEnd(id, &worker), v1::EXPERIMENT_STATE_SUCCEEDED);
}

TEST(ExperimentDriverTest, WithoutWorkersOfItsClassItWaitsAndNamesTheClass) {
  FakeCluster cluster;
  FakeWorker worker("w", cluster.manager.get(), &cluster.peers);
  const std::string id = cluster.CreateStudy("a", 6);
  ASSERT_OK(worker.Sync());
  for (int i = 0; i < 4; ++i) cluster.Drive(id);
  cluster.clock.Advance(absl::Hours(1));
  cluster.Drive(id);
  EXPECT_EQ(cluster.Record(id).state, v1::EXPERIMENT_STATE_WAITING);
  EXPECT_THAT(cluster.Record(id).message, HasSubstr("class-a"));
}

TEST(ExperimentDriverTest, AnotherJudgeVersionInMidStudyFailsItWithBothVersions) {
  FakeCluster cluster;
  FakeWorker worker("w", cluster.manager.get(), &cluster.peers);
  const std::string id = cluster.CreateStudy("a", 6);
  ASSERT_OK(worker.Sync());
  cluster.Drive(id);
  cluster.judge.version = "v2";
  EXPECT_EQ(cluster.RunToEnd(id, &worker), v1::EXPERIMENT_STATE_FAILED);
  EXPECT_THAT(cluster.Record(id).message, AllOf(HasSubstr("v1"), HasSubstr("v2")));
}

TEST(ExperimentDriverTest, ASecondStudyOfTheSameCellsRunsNothing) {
  FakeCluster cluster;
  FakeWorker worker("w", cluster.manager.get(), &cluster.peers);
  const std::string first = cluster.CreateStudy("a", 8);
  ASSERT_EQ(cluster.RunToEnd(first, &worker), v1::EXPERIMENT_STATE_SUCCEEDED);
  const size_t ran = worker.runs.size();
  const std::string second = cluster.CreateStudy("b", 8);
  ASSERT_EQ(cluster.RunToEnd(second, &worker), v1::EXPERIMENT_STATE_SUCCEEDED);
  EXPECT_EQ(worker.runs.size(), ran);
  ASSERT_OK_AND_ASSIGN(const ExperimentTotals totals, cluster.store->GetTotals(second));
  EXPECT_EQ(totals.cells, ran);
  EXPECT_EQ(totals.cells_shared, ran);
}

TEST(ExperimentDriverTest, ACancelledStudyStopsAndResumesWhereItWas) {
  FakeCluster cluster;
  FakeWorker worker("w", cluster.manager.get(), &cluster.peers);
  const std::string id = cluster.CreateStudy("a", 8);
  cluster.RunToEnd(id, &worker, 4);
  ASSERT_OK(cluster.store->CancelExperiment(id, cluster.clock.Now()));
  EXPECT_EQ(cluster.Drive(id), StepOutcome::kEnded);
  cluster.drivers.clear();
  const size_t ran = worker.runs.size();
  ASSERT_OK(worker.Sync());
  EXPECT_EQ(worker.cells_held(), 0u);
  ASSERT_OK(cluster.store->ResumeExperiment(id, cluster.clock.Now()));
  EXPECT_EQ(cluster.RunToEnd(id, &worker), v1::EXPERIMENT_STATE_SUCCEEDED);
  EXPECT_GT(worker.runs.size(), ran);
  for (const auto& [key, runs] : worker.runs) EXPECT_EQ(runs, 1) << key;
}

// A poisoned cell does not hold the study up.
TEST(ExperimentDriverTest, AStudyFinishesWithoutAPoisonedCellAndSaysSo) {
  FakeCluster cluster;
  FakeWorker worker("w", cluster.manager.get(), &cluster.peers);
  const std::string id = cluster.CreateStudy("a", 4);
  ASSERT_OK(worker.Sync());
  while (cluster.Record(id).state != v1::EXPERIMENT_STATE_RUNNING) cluster.Drive(id);
  ASSERT_OK(worker.Sync());
  v1::ReportRequest request = worker.Run(1);
  request.mutable_results(0)->mutable_status()->set_code(3);
  request.mutable_results(0)->mutable_status()->set_message("prompt too long");
  ASSERT_OK_AND_ASSIGN(const v1::ReportResponse response, cluster.manager->Report(request));
  EXPECT_EQ(response.outcomes(0), v1::REPORT_OUTCOME_POISONED);
  worker.ReportTaken(request);
  EXPECT_EQ(cluster.RunToEnd(id, &worker), v1::EXPERIMENT_STATE_SUCCEEDED);
  ASSERT_OK_AND_ASSIGN(const v1::Report report, cluster.store->GetReport(id));
  EXPECT_EQ(report.sweep(0).poisoned(), 1u);
}

TEST(ExperimentDriverTest, AStudyOfWhichEveryCellFailedFailsWithTheReason) {
  FakeCluster cluster;
  FakeWorker worker("w", cluster.manager.get(), &cluster.peers);
  const std::string id = cluster.CreateStudy("a", 1);
  ASSERT_OK(worker.Sync());
  while (cluster.Record(id).state != v1::EXPERIMENT_STATE_RUNNING) cluster.Drive(id);
  ASSERT_OK(worker.Sync());
  v1::ReportRequest request = worker.Run(1);
  request.mutable_results(0)->mutable_status()->set_code(3);
  request.mutable_results(0)->mutable_status()->set_message("the weights are broken");
  ASSERT_OK(cluster.manager->Report(request).status());
  worker.ReportTaken(request);
  EXPECT_EQ(cluster.RunToEnd(id, &worker), v1::EXPERIMENT_STATE_FAILED);
  EXPECT_THAT(cluster.Record(id).message, HasSubstr("the weights are broken"));
}

// The parts take turns; the coordinator dies after `kill_after` of them and starts anew on its
// file.
std::string RunWithKill(int kill_after, bool worker_dies_too, int* turns_needed) {
  FakeCluster cluster;
  FakeWorker worker("w", cluster.manager.get(), &cluster.peers);
  const std::string id = cluster.CreateStudy("a", 7);
  int turn = 0;
  for (; turn < 600; ++turn) {
    if (turn == kill_after) {
      cluster.Restart();
      FakeWorker old = worker;
      worker = FakeWorker("w", cluster.manager.get(), &cluster.peers);
      worker.runs = old.runs;
      if (worker_dies_too) {
        worker.Restart(cluster.manager.get());
      } else {
        // The worker's process lives on: same incarnation, same leases, later sequence numbers.
        worker.leases = old.leases;
        for (int i = 0; i < turn; ++i) worker.MakeSync();
      }
    }
    if (turn % 4 == 0 && cluster.Drive(id) == StepOutcome::kEnded) break;
    if (turn % 4 == 1) {
      EXPECT_OK(worker.Sync(3));
    } else if (turn % 4 == 2) {
      EXPECT_THAT(worker.RunAndReport(2), testing::IsOk());
    } else if (turn % 4 == 3) {
      EXPECT_THAT(cluster.pump->Step(), testing::IsOk());
    }
    cluster.clock.Advance(absl::Milliseconds(500));
  }
  *turns_needed = turn;
  EXPECT_EQ(cluster.Record(id).state, v1::EXPERIMENT_STATE_SUCCEEDED) << cluster.Record(id).message;
  if (!worker_dies_too) {
    for (const auto& [key, runs] : worker.runs) EXPECT_EQ(runs, 1) << key;
  }
  return cluster.ReportBytes(id);
}

TEST(ExperimentDriverTest, AfterAKillAtAnyTurnTheReportIsTheSameAndNothingRunsTwice) {
  int turns = 0;
  const std::string undisturbed = RunWithKill(-1, false, &turns);
  ASSERT_GT(turns, 20);
  for (int kill_after = 0; kill_after <= turns; kill_after += 3) {
    SCOPED_TRACE(kill_after);
    int unused = 0;
    EXPECT_EQ(RunWithKill(kill_after, /*worker_dies_too=*/false, &unused), undisturbed);
    EXPECT_EQ(RunWithKill(kill_after, /*worker_dies_too=*/true, &unused), undisturbed);
  }
}

// The coordinator dies in the middle of a step, at its Nth write; the worker's process lives on.
std::string RunWithDeathAtWrite(int write, bool* died) {
  FakeCluster cluster;
  FakeWorker worker("w", cluster.manager.get(), &cluster.peers);
  const std::string id = cluster.CreateStudy("a", 5);
  cluster.Restart(write);
  worker.SetManager(cluster.manager.get());
  *died = false;
  for (int turn = 0; turn < 400; ++turn) {
    if (cluster.dead) {
      *died = true;
      cluster.Restart();
      worker.SetManager(cluster.manager.get());
    }
    auto& driver = cluster.drivers[id];
    if (driver == nullptr) driver = std::make_unique<ExperimentDriver>(id, cluster.deps());
    const auto outcome = driver->Step();
    if (outcome.ok() && *outcome == StepOutcome::kEnded) break;
    if (!cluster.dead) (void)worker.Sync(6);
    if (!cluster.dead) (void)worker.RunAndReport(3);
    if (!cluster.dead) (void)cluster.pump->Step();
    cluster.clock.Advance(absl::Milliseconds(500));
  }
  EXPECT_EQ(cluster.Record(id).state, v1::EXPERIMENT_STATE_SUCCEEDED) << cluster.Record(id).message;
  return cluster.ReportBytes(id);
}

TEST(ExperimentDriverTest, AfterADeathAtAnyWriteTheReportIsTheSame) {
  bool died = false;
  const std::string undisturbed = RunWithDeathAtWrite(1000000, &died);
  ASSERT_FALSE(died);
  int write = 0;
  do {
    SCOPED_TRACE(write);
    EXPECT_EQ(RunWithDeathAtWrite(write, &died), undisturbed);
    ++write;
  } while (died && !HasFailure());
  EXPECT_GT(write, 20) << "that many writes were interrupted";
}

}  // namespace
}  // namespace plumbline
