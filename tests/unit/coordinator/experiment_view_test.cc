#include "services/coordinator/experiment_view.h"

#include <algorithm>
#include <string>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "services/coordinator/report_builder.h"
#include "tests/support/status_matchers.h"
#include "tests/unit/coordinator/fakes.h"

namespace plumbline {
namespace {

using ::testing::Contains;
using testing::FakeCluster;
using testing::FakeWorker;
using ::testing::HasSubstr;
using testing::IsOk;

class ExperimentViewTest : public ::testing::Test {
 protected:
  void Start(int prompts) {
    id_ = cluster_.CreateStudy("a", prompts);
    ASSERT_OK(worker_.Sync());
    while (cluster_.Record(id_).state != v1::EXPERIMENT_STATE_RUNNING) cluster_.Drive(id_);
  }

  // Runs so many cells of one lease, `seconds` after whatever came before. Captures that begin
  // beside them are done first.
  void RunCells(size_t count, int seconds) {
    cluster_.clock.Advance(absl::Seconds(seconds));
    ASSERT_OK(worker_.Sync());
    while (!worker_.leases.empty() && worker_.leases.begin()->second.has_capture()) {
      ASSERT_THAT(worker_.RunAndReport(), IsOk());
    }
    ASSERT_THAT(worker_.RunAndReport(count), IsOk());
  }

  v1::Experiment View() {
    auto view = ViewOf(cluster_.store.get(), cluster_.logic, *cluster_.directory, &cluster_.clock,
                       cluster_.Record(id_));
    EXPECT_THAT(view, IsOk());
    return view.value_or(v1::Experiment());
  }

  static LeaseOptions LargeLeases() {
    LeaseOptions options = FakeCluster::DefaultOptions();
    options.cells_per_lease = 64;
    return options;
  }

  FakeCluster cluster_{LargeLeases()};
  FakeWorker worker_{"w", cluster_.manager.get(), &cluster_.peers};
  std::string id_;
};

TEST_F(ExperimentViewTest, ThereIsNoRateBeforeFiveCellsAreDone) {
  Start(30);
  RunCells(4, 10);
  EXPECT_EQ(View().cells_per_second(), 0);
  EXPECT_EQ(View().eta_seconds(), 0);
  RunCells(1, 0);
  EXPECT_DOUBLE_EQ(View().cells_per_second(), 0.5);
  // 25 are under way and half done: 17.5 in 10 s, 12.5 to do.
  EXPECT_DOUBLE_EQ(View().eta_seconds(), 12.5 / 1.75);
}

TEST_F(ExperimentViewTest, CellsOfAnEarlierStageSayNothingOfThisOne) {
  Start(30);
  RunCells(30, 1);
  ASSERT_THAT(cluster_.pump->Step(), IsOk());
  while (cluster_.Record(id_).stage_index == 0) cluster_.Drive(id_);
  cluster_.Drive(id_);
  cluster_.clock.Advance(absl::Seconds(10));
  ASSERT_EQ(View().stage(), "ablation");
  EXPECT_EQ(View().cells_per_second(), 0);
  const auto total = static_cast<double>(View().stages(1).cells_total());
  RunCells(20, 0);
  EXPECT_DOUBLE_EQ(View().cells_per_second(), 2);
  // The worker computes half of the 64 that it may hold at once.
  const double halves = std::min(total - 20, 32.0) / 2;
  EXPECT_DOUBLE_EQ(View().eta_seconds(), (total - 20 - halves) / ((20 + halves) / 10));
}

TEST_F(ExperimentViewTest, TheReportOfAnUnfinishedStudySaysSoInWords) {
  Start(30);
  RunCells(30, 1);
  ASSERT_THAT(cluster_.pump->Step(), IsOk());
  while (cluster_.Record(id_).stage_index == 0) cluster_.Drive(id_);
  const auto warnings = [&] {
    auto report = BuildReport(cluster_.store.get(), cluster_.logic, cluster_.Record(id_), {});
    EXPECT_THAT(report, IsOk());
    return report.value_or(v1::Report()).warnings();
  };
  EXPECT_THAT(warnings(), Contains(HasSubstr("not finished (running, stage ablation)")));
  ASSERT_OK(cluster_.store->CancelExperiment(id_, cluster_.clock.Now()));
  EXPECT_THAT(warnings(), Contains(HasSubstr("not finished (cancelled, stage ablation)")));
}

TEST_F(ExperimentViewTest, LaterInALongStageTheLastMinutesCount) {
  Start(60);
  RunCells(10, 1);
  for (int minute = 0; minute < 10; ++minute) {
    RunCells(1, 30);
    RunCells(1, 30);
  }
  // The last five minutes, and 30 left of which all are under way.
  EXPECT_DOUBLE_EQ(View().cells_per_second(), 10.0 / 300);
  EXPECT_DOUBLE_EQ(View().eta_seconds(), 15 * 30);
}

TEST_F(ExperimentViewTest, ATimeOfWaitingDoesNotCount) {
  Start(60);
  RunCells(10, 10);
  cluster_.clock.Advance(absl::Minutes(4));  // the worker is silent
  while (cluster_.Record(id_).state != v1::EXPERIMENT_STATE_WAITING) cluster_.Drive(id_);
  EXPECT_EQ(View().cells_per_second(), 0);
  ASSERT_OK(worker_.Sync());
  while (cluster_.Record(id_).state != v1::EXPERIMENT_STATE_RUNNING) cluster_.Drive(id_);
  EXPECT_EQ(View().cells_per_second(), 0);
  RunCells(10, 5);
  EXPECT_DOUBLE_EQ(View().cells_per_second(), 2);
}

}  // namespace
}  // namespace plumbline
