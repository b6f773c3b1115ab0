// Model directory, judge lookup, judge pump, background loop.
#include <atomic>
#include <string>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "services/coordinator/background_loop.h"
#include "services/coordinator/find_judge.h"
#include "services/coordinator/judge_pump.h"
#include "services/coordinator/model_directory.h"
#include "tests/support/status_matchers.h"
#include "tests/unit/coordinator/fakes.h"

namespace plumbline {
namespace {

using ::testing::AllOf;
using testing::FakeCluster;
using testing::FakeWorker;
using ::testing::HasSubstr;
using ::testing::Not;
using testing::StatusIs;

v1::WorkerCapabilities With(const std::string& name, const std::string& digest,
                            const std::string& numerics) {
  v1::WorkerCapabilities capabilities;
  capabilities.add_models()->set_name(name);
  capabilities.mutable_models(0)->set_model_digest(digest);
  capabilities.mutable_numerics()->set_id(numerics);
  capabilities.set_tokens_per_second(10);
  return capabilities;
}

TEST(ModelDirectoryTest, AModelIsFoundByNameDigestAndPrefix) {
  FakeClock clock;
  ModelDirectory directory(&clock, absl::Minutes(1));
  directory.Update("w", With("tiny", "0123456789abcdef", "c"));
  for (const std::string wanted : {"tiny", "0123456789abcdef", "01234567"}) {
    ASSERT_OK_AND_ASSIGN(const v1::ModelInfo info, directory.Resolve(wanted));
    EXPECT_EQ(info.name(), "tiny") << wanted;
  }
  EXPECT_THAT(directory.Resolve("0123456"), StatusIs(absl::StatusCode::kNotFound))
      << "seven characters are too few";
  EXPECT_THAT(directory.Resolve("other"),
              StatusIs(absl::StatusCode::kNotFound, HasSubstr("tiny (0123456789ab)")));
}

TEST(ModelDirectoryTest, TellsWhetherAnyModelIsOffered) {
  FakeClock clock;
  ModelDirectory directory(&clock, absl::Minutes(1));
  EXPECT_FALSE(directory.OfferModels());
  directory.Update("empty", v1::WorkerCapabilities());
  EXPECT_FALSE(directory.OfferModels());
  directory.Update("w", With("tiny", "0123456789abcdef", "c"));
  EXPECT_TRUE(directory.OfferModels());
  clock.Advance(absl::Minutes(2));
  EXPECT_FALSE(directory.OfferModels()) << "its worker is forgotten";
}

TEST(ModelDirectoryTest, AnAmbiguousNameIsRefusedWithItsDigests) {
  FakeClock clock;
  ModelDirectory directory(&clock, absl::Minutes(1));
  directory.Update("w1", With("tiny", "aaaaaaaaaaaaaaaa", "c"));
  directory.Update("w2", With("tiny", "bbbbbbbbbbbbbbbb", "c"));
  EXPECT_THAT(directory.Resolve("tiny"),
              StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr("bbbbbbbbbbbb")));
}

TEST(ModelDirectoryTest, TheClassOfMostWorkersIsPickedAndSilentWorkersDoNotCount) {
  FakeClock clock;
  ModelDirectory directory(&clock, absl::Minutes(1));
  directory.Update("w1", With("tiny", "d", "class-a"));
  directory.Update("w2", With("tiny", "d", "class-b"));
  directory.Update("w3", With("tiny", "d", "class-b"));
  ASSERT_OK_AND_ASSIGN(v1::NumericsClass picked, directory.PickClass("d"));
  EXPECT_EQ(picked.id(), "class-b");
  EXPECT_EQ(directory.CountWorkers("d", "class-b"), 2);
  EXPECT_EQ(directory.TokensPerSecond("d"), 30);
  clock.Advance(absl::Seconds(61));
  directory.Update("w1", With("tiny", "d", "class-a"));
  ASSERT_OK_AND_ASSIGN(picked, directory.PickClass("d"));
  EXPECT_EQ(picked.id(), "class-a");
  EXPECT_EQ(directory.CountLive(), 1);
}

class JudgesOfTwoKinds final : public testing::FakeJudge {
 public:
  absl::StatusOr<std::vector<v1::JudgeCard>> ListJudges() override {
    auto cards = FakeJudge::ListJudges();
    if (!cards.ok()) return cards;
    cards->emplace_back().set_judge("guard");
    cards->back().set_model("guard-7b");
    return cards;
  }
};

TEST(FindJudgeTest, OnlyJudgesThatNeedNoModelAreFoundAndListed) {
  JudgesOfTwoKinds judges;
  ASSERT_OK_AND_ASSIGN(const v1::JudgeCard card, FindJudge(judges, "keyword"));
  EXPECT_EQ(card.version(), "v1");
  EXPECT_THAT(
      FindJudge(judges, "oracle"),
      StatusIs(absl::StatusCode::kInvalidArgument,
               AllOf(HasSubstr("'oracle'"), HasSubstr(": keyword"), Not(HasSubstr("guard")))));
  EXPECT_THAT(FindJudge(judges, "guard"),
              StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr("'guard-7b'")));
  judges.down = true;
  EXPECT_THAT(FindJudge(judges, "oracle"), StatusIs(absl::StatusCode::kUnavailable));
}

class JudgePumpTest : public ::testing::Test {
 protected:
  // An experiment with `prompts` stored and unjudged answers.
  void StoreAnswers(int prompts, v1::FinishReason reason = v1::FINISH_REASON_EOS) {
    FakeWorker worker("w", cluster_.manager.get());
    id_ = cluster_.CreateStudy("a", prompts);
    ASSERT_OK(worker.Sync());
    cluster_.Drive(id_);
    cluster_.Drive(id_);
    while (true) {
      ASSERT_OK(worker.Sync());
      v1::ReportRequest request = worker.Run();
      if (request.lease_id().empty()) break;
      for (v1::CellResult& result : *request.mutable_results()) result.set_finish_reason(reason);
      ASSERT_THAT(cluster_.manager->Report(request), testing::IsOk());
      worker.ReportTaken(request);
    }
  }

  FakeCluster cluster_;
  std::string id_;
};

TEST_F(JudgePumpTest, EveryAnswerIsJudgedOnce) {
  StoreAnswers(5);
  ASSERT_OK_AND_ASSIGN(int judged, cluster_.pump->Step());
  EXPECT_EQ(judged, 5);
  ASSERT_OK_AND_ASSIGN(judged, cluster_.pump->Step());
  EXPECT_EQ(judged, 0);
  EXPECT_EQ(cluster_.judge.judged, 5);
}

TEST_F(JudgePumpTest, WhileTheJudgeIsAwayItWaitsLongerEachTimeAndTellsWhy) {
  StoreAnswers(2);
  cluster_.judge.down = true;
  EXPECT_OK(cluster_.pump->Step());
  EXPECT_THAT(cluster_.pump->health(), StatusIs(absl::StatusCode::kUnavailable, HasSubstr("7074")));
  cluster_.judge.down = false;
  ASSERT_OK_AND_ASSIGN(int judged, cluster_.pump->Step());
  EXPECT_EQ(judged, 0) << "still in its pause";
  cluster_.clock.Advance(absl::Seconds(1));
  ASSERT_OK_AND_ASSIGN(judged, cluster_.pump->Step());
  EXPECT_EQ(judged, 2);
  EXPECT_OK(cluster_.pump->health());
}

TEST_F(JudgePumpTest, ANonfiniteAnswerNeedsNoJudge) {
  StoreAnswers(2, v1::FINISH_REASON_NONFINITE);
  cluster_.judge.down = true;
  ASSERT_OK_AND_ASSIGN(const int judged, cluster_.pump->Step());
  EXPECT_EQ(judged, 2);
  ASSERT_OK_AND_ASSIGN(const auto finished, cluster_.store->FinishedCells(id_, 0));
  EXPECT_EQ(finished.at(0).verdict.label(), v1::VERDICT_LABEL_NONFINITE);
}

TEST(BackgroundLoopTest, ARoundRunsAfterAChangeAndTheLoopEndsCleanly) {
  ChangeSignal changed;
  std::atomic<int> rounds = 0;
  {
    BackgroundLoop loop(&changed, absl::Hours(1), [&] {
      ++rounds;
      return false;
    });
    while (rounds < 1) std::this_thread::yield();
    changed.Notify();
    while (rounds < 2) std::this_thread::yield();
  }
  EXPECT_GE(rounds, 2);
}

}  // namespace
}  // namespace plumbline
