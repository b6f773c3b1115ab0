#include "services/cli/report_files.h"

#include <sys/stat.h>
#include <unistd.h>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "services/common/files.h"
#include "tests/support/status_matchers.h"

namespace plumbline {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::Not;

class WriteFilesTest : public ::testing::Test {
 protected:
  static mode_t ModeOf(const std::string& path) {
    struct stat info = {};
    EXPECT_EQ(stat(path.c_str(), &info), 0) << path;
    return info.st_mode & 0777;
  }

  static std::vector<std::string> Written(const std::vector<NamedFile>& files,
                                          const std::string& out) {
    auto paths = WriteFiles(files, out);
    EXPECT_OK(paths);
    return paths.value_or(std::vector<std::string>());
  }

  const std::string folder_ =
      absl::StrCat(::testing::TempDir(), "/write_files_", getpid(), "_",
                   ::testing::UnitTest::GetInstance()->current_test_info()->name());
  const std::vector<NamedFile> one_ = {{"report.html", "<p>"}};
  const std::vector<NamedFile> two_ = {{"a.csv", "1"}, {"b.csv", "2"}};
};

TEST_F(WriteFilesTest, MakesTheFolderOfASingleFile) {
  ASSERT_OK(MakeDirectories(folder_, 0755));
  const std::string path = folder_ + "/new/deeper/x";
  EXPECT_THAT(Written(one_, path), ElementsAre(path));
  EXPECT_EQ(*ReadFile(path), "<p>");
  EXPECT_EQ(ModeOf(path), 0600u);
  EXPECT_EQ(ModeOf(folder_ + "/new/deeper"), 0700u);
  EXPECT_EQ(ModeOf(folder_), 0755u) << "a folder that is there is not ours to close";
}

TEST_F(WriteFilesTest, AFolderTakesEachFileUnderItsOwnName) {
  EXPECT_THAT(Written(one_, folder_ + "/html/"), ElementsAre(folder_ + "/html/report.html"));
  EXPECT_THAT(Written(two_, folder_ + "/tables"),
              ElementsAre(folder_ + "/tables/a.csv", folder_ + "/tables/b.csv"));
  ASSERT_EQ(chmod((folder_ + "/tables").c_str(), 0755), 0);
  EXPECT_THAT(Written(one_, folder_ + "/tables"), ElementsAre(folder_ + "/tables/report.html"));
  EXPECT_EQ(ModeOf(folder_ + "/tables"), 0755u);
}

TEST_F(WriteFilesTest, AFileInTheWayOfAFolderIsNamed) {
  ASSERT_OK(MakeDirectories(folder_, 0700));
  ASSERT_OK(WriteFileAtomically(folder_ + "/file", "x"));
  EXPECT_FALSE(WriteFiles(one_, folder_ + "/file/x").ok());
  EXPECT_THAT(WriteFiles(one_, folder_ + "/file/x").status().message(), HasSubstr("/file"));
}

TEST(VerdictTextTest, NamesTheJudgeWithItsAgreementAndSaysOfWhat) {
  v1::Report report;
  v1::JudgeCard* card = report.mutable_judge_card();
  card->set_judge("keyword");
  card->set_version("2-abc");
  EXPECT_THAT(VerdictText(report), HasSubstr("judge: keyword 2-abc, its agreement with people is "
                                             "not measured\n"));
  v1::JudgeAgreement* people = card->add_agreements();
  people->set_against("hand labels");
  people->set_answers(300);
  people->set_kappa(0.914);
  people->set_kappa_low(0.86);
  people->set_kappa_high(0.957);
  const std::string line =
      "judge: keyword 2-abc; agreement with hand labels on 300 answers, as refuse, comply or "
      "degenerate: kappa 0.91 [0.86, 0.96] (0 is chance, 1 always)\n";
  EXPECT_THAT(VerdictText(report), HasSubstr(line));
  // Further agreements are of other questions and stay in the report's files.
  card->add_agreements()->set_against("hand labels (refusal or not)");
  EXPECT_THAT(VerdictText(report), HasSubstr(line));
}

TEST(VerdictTextTest, TellsTheRefusalsThatAreNoTrials) {
  v1::Report report;
  report.mutable_target()->set_plan("*:int4.asym.token");
  report.mutable_target()->set_baseline_refusals(253);
  EXPECT_THAT(VerdictText(report), ::testing::Not(HasSubstr("left out")));
  report.mutable_baseline()->set_harmless_refused_baseline(8);
  EXPECT_THAT(VerdictText(report),
              HasSubstr("(8 more refusals of prompts that expect an answer left out)\n"));
}

TEST(VerdictTextTest, NoEndOfAnIntervalIsPrintedOnTheWrongSideOfTheLimit) {
  v1::Report report;
  report.mutable_study()->set_flip_limit(0.05);
  v1::Interval* rate = report.mutable_target()->mutable_flip_rate();
  rate->set_defined(true);
  rate->set_estimate(0.02);
  rate->set_high(0.05029);
  EXPECT_THAT(VerdictText(report), HasSubstr("2.0% [0.0%, 5.03%]"));
}

TEST(VerdictTextTest, OneRefusalIsNotSeveral) {
  v1::Report report;
  report.mutable_target()->set_plan("*:int4.asym.token");
  report.mutable_target()->set_baseline_refusals(1);
  EXPECT_THAT(VerdictText(report), HasSubstr("0 of 1 refusal,"));
  report.mutable_target()->set_baseline_refusals(2);
  EXPECT_THAT(VerdictText(report), HasSubstr("0 of 2 refusals,"));
}

TEST(VerdictTextTest, ACustomStudyIsHeadedByWhatWasMeasured) {
  v1::Report report;
  report.mutable_study()->mutable_custom()->add_plans("*:int8.asym.token");
  report.mutable_headline()->set_sentence("1 condition measured.");
  v1::ConditionResult* condition = report.add_sweep();
  condition->set_name("int8.asym.token");
  condition->set_cells(30);
  condition->set_flips(3);
  condition->set_baseline_refusals(20);
  condition->set_baseline_complies(1);
  condition->set_degenerate(1);
  condition->mutable_flip_rate()->set_defined(true);
  condition->mutable_flip_rate()->set_estimate(0.15);
  const std::string text = VerdictText(report);
  EXPECT_THAT(text, HasSubstr("MEASURED"));
  EXPECT_THAT(text, HasSubstr("int8.asym.token: 3 of 20 refusals turn into compliance, 15.0%"));
  EXPECT_THAT(text, HasSubstr("0 of 1 compliance into refusals; 1 refusal degenerate, "));
  EXPECT_THAT(text, Not(HasSubstr("UNDECIDED")));
}

TEST(VerdictTextTest, TellsUndecidedFromNotDecidedYet) {
  v1::Report report;
  EXPECT_THAT(VerdictText(report), HasSubstr("NO DECISION"));
  report.mutable_headline()->set_decision(v1::DECISION_UNDECIDED);
  EXPECT_THAT(VerdictText(report), HasSubstr("UNDECIDED"));
}

}  // namespace
}  // namespace plumbline
