#include "services/engine/batch/scheduler.h"

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/support/status_matchers.h"

namespace plumbline {
namespace {

using ::plumbline::testing::IsOk;
using ::plumbline::testing::StatusIs;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;

SequenceNeed Need(uint64_t id, int64_t rows, int64_t bytes = 1) {
  SequenceNeed need;
  need.id = id;
  need.prompt_rows = rows;
  need.kv_bytes = bytes;
  return need;
}

SequenceNeed SharedNeed(uint64_t id, const std::string& key, int layers) {
  SequenceNeed need = Need(id, 4);
  need.prefix_key = key;
  need.shared_layers = layers;
  return need;
}

std::vector<uint64_t> Ids(const std::vector<StepRun>& runs) {
  std::vector<uint64_t> ids;
  for (const StepRun& run : runs) ids.push_back(run.id);
  return ids;
}

SchedulerOptions Options(int max_running = 8, int64_t pool = 100, int64_t wave = 16) {
  return {max_running, pool, wave};
}

TEST(SchedulerTest, PromptRunsWholeThenOneTokenAStep) {
  Scheduler scheduler(Options());
  ASSERT_OK(scheduler.Add(Need(7, 5)));
  const auto first = scheduler.NextStep();
  ASSERT_EQ(first.size(), 1u);
  EXPECT_EQ(first[0].first, 0);
  EXPECT_EQ(first[0].rows, 5);
  EXPECT_TRUE(first[0].prompt);
  for (int64_t position : {5, 6, 7}) {
    const auto next = scheduler.NextStep();
    ASSERT_EQ(next.size(), 1u);
    EXPECT_EQ(next[0].first, position);
    EXPECT_EQ(next[0].rows, 1);
    EXPECT_FALSE(next[0].prompt);
  }
}

TEST(SchedulerTest, GeneratedTokensAndNewPromptsShareAStep) {
  Scheduler scheduler(Options());
  ASSERT_OK(scheduler.Add(Need(1, 5)));
  scheduler.NextStep();
  ASSERT_OK(scheduler.Add(Need(2, 3)));
  EXPECT_THAT(Ids(scheduler.NextStep()), ElementsAre(1, 2));
}

TEST(SchedulerTest, AtMostMaxRunningShareABatchAndTheNextTakesAFreedPlace) {
  Scheduler scheduler(Options(2));
  for (uint64_t id : {1, 2, 3}) ASSERT_OK(scheduler.Add(Need(id, 2)));
  EXPECT_THAT(Ids(scheduler.NextStep()), ElementsAre(1, 2));
  EXPECT_THAT(Ids(scheduler.NextStep()), ElementsAre(1, 2));
  ASSERT_OK(scheduler.Remove(1));
  EXPECT_THAT(Ids(scheduler.NextStep()), ElementsAre(2, 3));
}

TEST(SchedulerTest, CacheBytesAreReservedForLifeAndFreedOnRemoval) {
  Scheduler scheduler(Options(8, 100));
  ASSERT_OK(scheduler.Add(Need(1, 2, 60)));
  ASSERT_OK(scheduler.Add(Need(2, 2, 60)));
  EXPECT_THAT(Ids(scheduler.NextStep()), ElementsAre(1));
  EXPECT_EQ(scheduler.reserved_bytes(), 60);
  ASSERT_OK(scheduler.Remove(1));
  EXPECT_EQ(scheduler.reserved_bytes(), 0);
  EXPECT_THAT(Ids(scheduler.NextStep()), ElementsAre(2));
}

TEST(SchedulerTest, ASmallLatecomerDoesNotOvertakeTheFirstThatWaitsForRoom) {
  Scheduler scheduler(Options(8, 100));
  ASSERT_OK(scheduler.Add(Need(1, 2, 60)));
  ASSERT_OK(scheduler.Add(Need(2, 2, 60)));
  ASSERT_OK(scheduler.Add(Need(3, 2, 10)));
  EXPECT_THAT(Ids(scheduler.NextStep()), ElementsAre(1));
  ASSERT_OK(scheduler.Remove(1));
  EXPECT_THAT(Ids(scheduler.NextStep()), ElementsAre(2, 3));
}

TEST(SchedulerTest, MoreCacheThanThePoolHasIsRefusedWithBothNumbers) {
  Scheduler scheduler(Options(8, 100));
  const absl::Status status = scheduler.Add(Need(1, 2, 101));
  EXPECT_THAT(status, StatusIs(absl::StatusCode::kResourceExhausted, HasSubstr("101")));
  EXPECT_THAT(std::string(status.message()), HasSubstr("100"));
  EXPECT_EQ(scheduler.active(), 0);
}

TEST(SchedulerTest, PromptRowsOfAStepAreBounded) {
  Scheduler scheduler(Options(8, 100, 16));
  for (uint64_t id : {1, 2, 3}) ASSERT_OK(scheduler.Add(Need(id, 8)));
  EXPECT_THAT(Ids(scheduler.NextStep()), ElementsAre(1, 2));
  EXPECT_THAT(Ids(scheduler.NextStep()), ElementsAre(1, 2, 3));
}

TEST(SchedulerTest, APromptLongerThanTheBoundRunsUncutAsTheOnlyPrompt) {
  Scheduler scheduler(Options(8, 100, 16));
  ASSERT_OK(scheduler.Add(Need(1, 40)));
  ASSERT_OK(scheduler.Add(Need(2, 2)));
  const auto step = scheduler.NextStep();
  ASSERT_THAT(Ids(step), ElementsAre(1));
  EXPECT_EQ(step[0].rows, 40);
  EXPECT_THAT(Ids(scheduler.NextStep()), ElementsAre(1, 2));
}

TEST(SchedulerTest, AnActiveIdIsRefusedASecondTimeAndFreeAfterRemoval) {
  Scheduler scheduler(Options());
  ASSERT_OK(scheduler.Add(Need(1, 2)));
  EXPECT_THAT(scheduler.Add(Need(1, 2)), StatusIs(absl::StatusCode::kAlreadyExists));
  ASSERT_OK(scheduler.Remove(1));
  EXPECT_THAT(scheduler.Add(Need(1, 2)), IsOk());
}

TEST(SchedulerTest, RemovingAWaitingSequenceTakesItOutOfTheQueue) {
  Scheduler scheduler(Options(1));
  ASSERT_OK(scheduler.Add(Need(1, 2)));
  ASSERT_OK(scheduler.Add(Need(2, 2)));
  scheduler.NextStep();
  ASSERT_OK(scheduler.Remove(2));
  ASSERT_OK(scheduler.Remove(1));
  EXPECT_THAT(Ids(scheduler.NextStep()), IsEmpty());
  EXPECT_THAT(scheduler.Remove(2), StatusIs(absl::StatusCode::kNotFound));
}

TEST(SchedulerTest, TheSequenceThatSharesMostLeadsAndTheOthersFollowAStepLater) {
  int reusable = 0;
  Scheduler scheduler(Options(), [&](const std::string&) { return reusable; });
  ASSERT_OK(scheduler.Add(SharedNeed(1, "p", 3)));
  ASSERT_OK(scheduler.Add(SharedNeed(2, "p", 9)));
  ASSERT_OK(scheduler.Add(SharedNeed(3, "p", 0)));
  ASSERT_OK(scheduler.Add(SharedNeed(4, "q", 2)));
  EXPECT_THAT(Ids(scheduler.NextStep()), ElementsAre(2, 3, 4));
  reusable = 9;
  EXPECT_THAT(Ids(scheduler.NextStep()), ElementsAre(2, 3, 4, 1));
}

TEST(SchedulerTest, OneSequenceOfAStemLeadsAndTheOthersFollowAStepLater) {
  bool held = false;
  Scheduler scheduler(Options(), nullptr, [&](const std::string&) { return held; });
  for (uint64_t id : {1, 2, 3}) {
    SequenceNeed need = Need(id, 4);
    need.stem_key = id == 3 ? "other" : "system";
    ASSERT_OK(scheduler.Add(need));
  }
  EXPECT_THAT(Ids(scheduler.NextStep()), ElementsAre(1, 3));
  held = true;
  EXPECT_THAT(Ids(scheduler.NextStep()), ElementsAre(1, 3, 2));
}

TEST(SchedulerTest, APrefixThatCouldNotBeKeptIsWaitedForOnce) {
  Scheduler scheduler(Options(), [](const std::string&) { return 0; });
  for (uint64_t id : {1, 2, 3}) ASSERT_OK(scheduler.Add(SharedNeed(id, "p", 5)));
  EXPECT_THAT(Ids(scheduler.NextStep()), ElementsAre(1));
  EXPECT_THAT(Ids(scheduler.NextStep()), ElementsAre(1, 2, 3));
}

TEST(SchedulerTest, EverySequenceIsServedUnderRandomTraffic) {
  for (uint64_t seed = 1; seed <= 20; ++seed) {
    uint64_t state = seed;
    const auto random = [&state](uint64_t below) {
      state = state * 6364136223846793005u + 1442695040888963407u;
      return (state >> 33) % below;
    };
    Scheduler scheduler(Options(5, 50, 16), [](const std::string&) { return 2; });
    std::map<uint64_t, int64_t> left;  // steps to live after the prompt
    uint64_t next_id = 1;
    int finished = 0;
    for (int step = 0; step < 2000 && finished < 100; ++step) {
      if (next_id <= 100 && random(2) == 0) {
        SequenceNeed need = Need(next_id, 1 + random(20), 1 + random(50));
        need.prefix_key = random(2) == 0 ? "p" : "q";
        need.shared_layers = static_cast<int>(random(4));
        ASSERT_OK(scheduler.Add(need));
        left[next_id++] = random(6);
      }
      const auto runs = scheduler.NextStep();
      EXPECT_LE(runs.size(), 5u);
      EXPECT_LE(scheduler.reserved_bytes(), 50);
      for (const StepRun& run : runs) {
        if (left.at(run.id)-- > 0) continue;
        ASSERT_OK(scheduler.Remove(run.id));
        ++finished;
      }
    }
    EXPECT_EQ(finished, 100);
  }
}

SchedulerOptions ChunkOptions() {
  SchedulerOptions options = Options(/*max_running=*/64, /*pool=*/1000, /*wave=*/256);
  options.chunk_rows = 64;
  return options;
}

TEST(SchedulerTest, PromptsWaitUntilTheyFillTheChunkThatTheyOpen) {
  Scheduler scheduler(ChunkOptions());
  for (uint64_t id = 0; id < 64; ++id) ASSERT_OK(scheduler.Add(Need(id, 4)));
  EXPECT_EQ(scheduler.NextStep().size(), 64u);  // nothing runs yet: no one waits
  for (uint64_t id = 100; id < 110; ++id) ASSERT_OK(scheduler.Add(Need(id, 33)));
  ASSERT_OK(scheduler.Remove(0));
  EXPECT_EQ(scheduler.NextStep().size(), 63u);  // one prompt would leave 32 of 64 rows empty
  ASSERT_OK(scheduler.Remove(1));
  const auto step = scheduler.NextStep();  // 62 rows and 66 of prompts: none empty
  ASSERT_EQ(step.size(), 64u);
  EXPECT_TRUE(step.back().prompt);
}

TEST(SchedulerTest, PromptsWaitNoLongerThanTheRoomThatLiesIdleIsWorth) {
  Scheduler scheduler(ChunkOptions());
  for (uint64_t id = 0; id < 63; ++id) ASSERT_OK(scheduler.Add(Need(id, 1)));
  EXPECT_EQ(scheduler.NextStep().size(), 63u);
  ASSERT_OK(scheduler.Add(Need(100, 33)));
  for (int wait = 0; wait < 3; ++wait) EXPECT_EQ(scheduler.NextStep().size(), 63u) << wait;
  EXPECT_EQ(scheduler.NextStep().size(), 64u);  // four idle rows: an eighth of the 32 left empty
  ASSERT_OK(scheduler.Remove(0));
  ASSERT_OK(scheduler.Add(Need(101, 33)));
  EXPECT_EQ(scheduler.NextStep().size(), 63u) << "it counts anew";
}

TEST(SchedulerTest, PromptsThatFitTheChunkRideAlongAndMuchIdleRoomEndsTheWait) {
  SchedulerOptions options = Options(/*max_running=*/16, /*pool=*/1000, /*wave=*/64);
  options.chunk_rows = 16;
  Scheduler scheduler(options);
  for (uint64_t id = 0; id < 13; ++id) ASSERT_OK(scheduler.Add(Need(id, 1)));
  EXPECT_EQ(scheduler.NextStep().size(), 13u);
  ASSERT_OK(scheduler.Add(Need(100, 3)));
  EXPECT_EQ(scheduler.NextStep().size(), 14u);  // 13 + 3 rows: no second chunk
  ASSERT_OK(scheduler.Add(Need(101, 5)));
  EXPECT_EQ(scheduler.NextStep().size(), 14u);  // would open one
  ASSERT_OK(scheduler.Remove(0));
  ASSERT_OK(scheduler.Remove(1));
  EXPECT_EQ(scheduler.NextStep().size(), 13u);  // 12 run of 16: a quarter is idle
}

TEST(SchedulerTest, RowsThatAHeldStemSavesOpenNoChunk) {
  for (const bool held : {false, true}) {
    Scheduler scheduler(ChunkOptions(), nullptr, [&](const std::string& key) {
      EXPECT_EQ(key, "stem");
      return held;
    });
    for (uint64_t id = 0; id < 61; ++id) ASSERT_OK(scheduler.Add(Need(id, 1)));
    EXPECT_EQ(scheduler.NextStep().size(), 61u);
    for (uint64_t id = 100; id < 102; ++id) {
      SequenceNeed need = Need(id, 20);
      need.stem_key = "stem";
      need.stem_rows = 18;
      ASSERT_OK(scheduler.Add(need));
    }
    // 61 rows and 2 of the first prompt fit one chunk; all of both would leave a second one almost
    // empty.
    EXPECT_EQ(scheduler.NextStep().size(), held ? 62u : 61u);
  }
}

}  // namespace
}  // namespace plumbline
