#include "services/cli/progress.h"

#include "gtest/gtest.h"
#include "tests/support/status_matchers.h"

namespace plumbline {
namespace {

using ::testing::EndsWith;
using ::testing::HasSubstr;

TEST(ProgressBarTest, FillsFromEmptyToFull) {
  EXPECT_EQ(ProgressBar(0, 4), "[    ]   0%");
  EXPECT_EQ(ProgressBar(0.5, 4), "[==> ]  50%");
  EXPECT_EQ(ProgressBar(1, 4), "[====] 100%");
  EXPECT_EQ(ProgressBar(7, 4), "[====] 100%");
}

TEST(HumanTest, DurationsAndCountsAreShort) {
  EXPECT_EQ(HumanDuration(4.4), "4s");
  EXPECT_EQ(HumanDuration(185), "3m 05s");
  EXPECT_EQ(HumanDuration(7800), "2h 10m");
  EXPECT_EQ(HumanCount(950), "950");
  EXPECT_EQ(HumanCount(12400), "12.4k");
  EXPECT_EQ(HumanCount(3.1e6), "3.1M");
}

TEST(ProgressLineTest, ShowsStageCellsAndWhyItWaitsWithinTheWidth) {
  v1::Experiment experiment;
  experiment.set_stage("sweep");
  v1::StageProgress* baseline = experiment.add_stages();
  baseline->set_stage("baseline");
  baseline->set_finished(true);
  v1::StageProgress* sweep = experiment.add_stages();
  sweep->set_stage("sweep");
  sweep->set_cells_total(200);
  sweep->set_cells_done(50);
  experiment.set_message("waiting for judge");
  const std::string line = ProgressLine(experiment, 200);
  EXPECT_THAT(line, HasSubstr("2/2 sweep"));
  EXPECT_THAT(line, HasSubstr("50/200 cells"));
  EXPECT_THAT(line, HasSubstr("waiting for judge"));
  EXPECT_EQ(ProgressLine(experiment, 30).size(), 30u);
}

TEST(ProgressLineTest, ShowsARateOnceThereIsOne) {
  v1::Experiment experiment;
  experiment.set_state(v1::EXPERIMENT_STATE_RUNNING);
  experiment.set_stage("sweep");
  v1::StageProgress* sweep = experiment.add_stages();
  sweep->set_stage("sweep");
  sweep->set_cells_total(200);
  sweep->set_cells_done(3);
  EXPECT_THAT(ProgressLine(experiment, 200), EndsWith("3/200 cells, ..."));
  experiment.set_cells_per_second(2);
  experiment.set_eta_seconds(98.5);
  EXPECT_THAT(ProgressLine(experiment, 200), EndsWith("3/200 cells, 2.0/s, stage ends in 1m 39s"));
  experiment.set_cells_per_second(0);
  sweep->set_cells_done(200);
  EXPECT_THAT(ProgressLine(experiment, 200), EndsWith("200/200 cells"));
  sweep->set_cells_total(1);
  sweep->set_cells_done(0);
  EXPECT_THAT(ProgressLine(experiment, 200), EndsWith("0/1 cell, ..."));
}

TEST(WaitNoticeTest, TellsInFullWhatIsWaitedForAndHowToLeave) {
  v1::Experiment experiment;
  experiment.set_id("exp-1");
  experiment.set_state(v1::EXPERIMENT_STATE_PENDING);
  experiment.set_message("waiting for a worker: " + std::string(300, 'x'));
  const std::string notice = WaitNotice(experiment, "--coordinator here:7070");
  EXPECT_THAT(notice, HasSubstr(experiment.message()));
  EXPECT_THAT(notice, HasSubstr("Ctrl-C"));
  EXPECT_THAT(notice, HasSubstr("plumb watch exp-1 --coordinator here:7070\n"));
  EXPECT_THAT(notice, HasSubstr("plumb cancel exp-1 --coordinator here:7070\n"));
  experiment.set_state(v1::EXPERIMENT_STATE_RUNNING);
  EXPECT_EQ(WaitNotice(experiment, ""), "");
}

}  // namespace
}  // namespace plumbline
