#include "services/engine/batch/batch_engine.h"

#include <cmath>
#include <map>
#include <new>
#include <stdexcept>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/support/status_matchers.h"
#include "tests/unit/engine/fake_forward.h"

namespace plumbline {
namespace {

using ::plumbline::testing::FakeForward;
using ::plumbline::testing::IsOk;
using ::plumbline::testing::StatusIs;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using ::testing::SizeIs;

// Over a device that is waited for and over one that is a step ahead: all results are the same.
class BatchEngineTest : public ::testing::TestWithParam<int> {
 protected:
  BatchEngineTest() {
    auto forward = std::make_unique<FakeForward>(GetParam());
    forward_ = forward.get();
    engine_ = CreateBatchEngine(std::move(forward), {8, 1000, 512});
  }

  static SequenceRequest Request(uint64_t id, std::vector<int32_t> prompt, int max_new) {
    SequenceRequest request;
    request.id = id;
    request.prompt_tokens = std::move(prompt);
    request.layers.resize(1);
    request.max_new_tokens = max_new;
    return request;
  }

  std::map<uint64_t, SequenceResult> RunAll() {
    std::map<uint64_t, SequenceResult> results;
    while (engine_->active() > 0) {
      auto finished = engine_->Step();
      EXPECT_THAT(finished, IsOk());
      if (!finished.ok()) break;
      for (SequenceResult& result : *finished) results[result.id] = std::move(result);
    }
    return results;
  }

  SequenceResult RunOne(SequenceRequest request) {
    const uint64_t id = request.id;
    EXPECT_OK(engine_->Submit(std::move(request)));
    return RunAll()[id];
  }

  FakeForward* forward_;
  std::unique_ptr<Engine> engine_;
};

TEST_P(BatchEngineTest, EndsAtLengthWithEveryToken) {
  const SequenceResult result = RunOne(Request(1, {1, 2}, 4));
  EXPECT_THAT(result.tokens, ElementsAre(3, 6, 12, 24));
  EXPECT_EQ(result.finish_reason, FinishReason::kLength);
  EXPECT_EQ(result.kv_elements, 5);  // the last token is never fed
}

TEST_P(BatchEngineTest, EndsAtAStopTokenWhichIsNotPartOfTheAnswer) {
  SequenceRequest request = Request(1, {1, 2}, 10);
  request.stop_tokens = {99, 24};
  request.want_steps = true;
  const SequenceResult result = RunOne(request);
  EXPECT_THAT(result.tokens, ElementsAre(3, 6, 12));
  EXPECT_EQ(result.finish_reason, FinishReason::kEos);
  EXPECT_THAT(result.steps, SizeIs(4));  // the step that chose to stop is told too
}

TEST_P(BatchEngineTest, EndsWhereTheVerdictIsDecidedAndTheAnswerIsAPrefix) {
  SequenceRequest request = Request(1, {1, 2}, 10);
  request.verdict_decided = [](int32_t token) { return token == 6; };
  const SequenceResult result = RunOne(request);
  EXPECT_THAT(result.tokens, ElementsAre(3, 6));
  EXPECT_EQ(result.finish_reason, FinishReason::kVerdict);
}

TEST_P(BatchEngineTest, EndsWhenALogitIsNotFinite) {
  const SequenceResult result = RunOne(Request(1, {6, 7}, 10));  // chooses 13, then is poisoned
  EXPECT_THAT(result.tokens, ElementsAre(FakeForward::kPoison));
  EXPECT_EQ(result.finish_reason, FinishReason::kNonFinite);
}

TEST_P(BatchEngineTest, APoisonedSequenceLeavesItsNeighboursAlone) {
  ASSERT_OK(engine_->Submit(Request(1, {6, 7}, 10)));
  ASSERT_OK(engine_->Submit(Request(2, {1, 2}, 4)));
  auto results = RunAll();
  EXPECT_EQ(results[1].finish_reason, FinishReason::kNonFinite);
  EXPECT_THAT(results[2].tokens, ElementsAre(3, 6, 12, 24));
}

TEST_P(BatchEngineTest, ForcedTokensAreFedAndTheirRegretTold) {
  SequenceRequest request = Request(1, {1, 2}, 10);
  request.forced_tokens = {3, 5, 11};
  request.stop_tokens = {5};  // a forced answer runs to its end
  const SequenceResult result = RunOne(request);
  EXPECT_THAT(result.tokens, ElementsAre(3, 5, 11));
  ASSERT_THAT(result.steps, SizeIs(3));
  EXPECT_EQ(result.steps[0].regret, 0);
  EXPECT_EQ(result.steps[1].top1, 6);
  EXPECT_EQ(result.steps[1].regret, 1);  // 6 was best by 1
  EXPECT_EQ(result.steps[2].regret, 0);  // 1 + 2 + 3 + 5
  EXPECT_EQ(result.finish_reason, FinishReason::kLength);
}

TEST_P(BatchEngineTest, ScoresPromptTokensFromTheGivenIndexAndMayGenerateNothing) {
  SequenceRequest request = Request(1, {1, 2, 3, 9}, 0);
  request.score_from = 2;
  const SequenceResult result = RunOne(request);
  EXPECT_EQ(result.nll_tokens, 2);
  // Token 3 had logit 1 among 49 zeros, token 9 had 0 while token 6 had the 1.
  const double log_total = std::log(std::exp(1.0) + 49);
  EXPECT_NEAR(result.nll_sum, (log_total - 1) + log_total, 1e-9);
  EXPECT_THAT(result.tokens, IsEmpty());
  EXPECT_EQ(result.finish_reason, FinishReason::kLength);
}

TEST_P(BatchEngineTest, LogitDigestsDifferWhereLogitsDo) {
  const auto digest = [this](std::vector<int32_t> prompt) {
    SequenceRequest request = Request(1, std::move(prompt), 3);
    request.want_logit_digest = true;
    return RunOne(request).logit_digest;
  };
  EXPECT_THAT(digest({1, 2}), SizeIs(64));
  EXPECT_EQ(digest({1, 2}), digest({2, 1}));
  EXPECT_NE(digest({1, 2}), digest({1, 3}));
}

TEST_P(BatchEngineTest, CancelDropsWaitingAndRunningSequences) {
  engine_ = CreateBatchEngine(std::make_unique<FakeForward>(GetParam()), {1, 1000, 512});
  ASSERT_OK(engine_->Submit(Request(1, {1, 2}, 10)));
  ASSERT_OK(engine_->Submit(Request(2, {1, 2}, 10)));
  ASSERT_OK(engine_->Submit(Request(3, {1, 2}, 2)));
  ASSERT_OK(engine_->Step().status());
  EXPECT_OK(engine_->Cancel(1));
  EXPECT_OK(engine_->Cancel(2));
  EXPECT_THAT(engine_->Cancel(2), StatusIs(absl::StatusCode::kNotFound, HasSubstr("2")));
  EXPECT_EQ(engine_->active(), 1);
  auto results = RunAll();
  EXPECT_THAT(results, SizeIs(1));
  EXPECT_THAT(results[3].tokens, ElementsAre(3, 6));
}

TEST_P(BatchEngineTest, TooLargeForThePoolIsRefusedAndTheEngineGoesOn) {
  engine_ = CreateBatchEngine(std::make_unique<FakeForward>(GetParam()), {8, 10, 512});
  EXPECT_THAT(engine_->Submit(Request(1, {1, 2}, 20)),
              StatusIs(absl::StatusCode::kResourceExhausted));
  EXPECT_EQ(engine_->active(), 0);
  EXPECT_THAT(RunOne(Request(2, {1, 2}, 2)).tokens, ElementsAre(3, 6));
}

TEST_P(BatchEngineTest, ASecondSequenceWithAnActiveIdDoesNotDisturbTheFirst) {
  ASSERT_OK(engine_->Submit(Request(1, {1, 2}, 2)));
  EXPECT_THAT(engine_->Submit(Request(1, {5}, 2)), StatusIs(absl::StatusCode::kAlreadyExists));
  EXPECT_THAT(RunAll()[1].tokens, ElementsAre(3, 6));
}

TEST_P(BatchEngineTest, AFailedStepIsAnError) {
  ASSERT_OK(engine_->Submit(Request(1, {1, 2}, 2)));
  forward_->fail_next = true;
  EXPECT_THAT(engine_->Step(), StatusIs(absl::StatusCode::kInternal, HasSubstr("device lost")));
}

TEST_P(BatchEngineTest, NoExceptionLeavesAStep) {
  ASSERT_OK(engine_->Submit(Request(1, {1, 2}, 2)));
  forward_->before_run = [] { throw std::bad_alloc(); };
  EXPECT_THAT(engine_->Step(),
              StatusIs(absl::StatusCode::kResourceExhausted, HasSubstr("memory of the host")));
  forward_->before_run = [] { throw std::runtime_error("no such page"); };
  EXPECT_THAT(engine_->Step(), StatusIs(absl::StatusCode::kInternal, HasSubstr("no such page")));
}

TEST_P(BatchEngineTest, NoExceptionOfACallersVerdictLeavesAStep) {
  SequenceRequest request = Request(1, {1, 2}, 5);
  request.verdict_decided = [](int32_t) -> bool { throw std::bad_alloc(); };
  ASSERT_OK(engine_->Submit(std::move(request)));
  absl::Status status;
  while (status.ok() && engine_->active() > 0) status = engine_->Step().status();
  EXPECT_THAT(status, StatusIs(absl::StatusCode::kResourceExhausted));
}

TEST_P(BatchEngineTest, ASequenceThatMemoryIsShortForIsRefusedAndTheEngineGoesOn) {
  ASSERT_OK(engine_->Submit(Request(1, {1, 2}, 2)));
  forward_->before_open = [] { throw std::bad_alloc(); };
  EXPECT_THAT(engine_->Submit(Request(2, {1, 2}, 3)),
              StatusIs(absl::StatusCode::kResourceExhausted, HasSubstr("memory of the host")));
  forward_->before_open = nullptr;
  EXPECT_EQ(engine_->active(), 1);
  ASSERT_OK(engine_->Submit(Request(2, {1, 2}, 3)));
  auto results = RunAll();
  EXPECT_THAT(results[1].tokens, ElementsAre(3, 6));
  EXPECT_THAT(results[2].tokens, ElementsAre(3, 6, 12));
}

TEST_P(BatchEngineTest, CountsStepsAndTokens) {
  ASSERT_OK(engine_->Submit(Request(1, {1, 2, 4}, 3)));
  ASSERT_OK(engine_->Submit(Request(2, {1}, 2)));
  RunAll();
  EXPECT_EQ(engine_->stats().steps, 3);
  EXPECT_EQ(engine_->stats().prompt_tokens, 4);
  EXPECT_EQ(engine_->stats().decoded_tokens, 3);
}

TEST_P(BatchEngineTest, AnIdThatIsUsedAgainWhileItsOldStepIsUnderWayIsANewSequence) {
  ASSERT_OK(engine_->Submit(Request(1, {1, 2}, 10)));
  ASSERT_OK(engine_->Step().status());
  ASSERT_OK(engine_->Step().status());
  ASSERT_OK(engine_->Cancel(1));
  ASSERT_OK(engine_->Submit(Request(1, {5}, 3)));
  EXPECT_THAT(RunAll()[1].tokens, ElementsAre(5, 10, 20));
}

TEST_P(BatchEngineTest, SequencesThatComeAndGoAtDifferentStepsKeepTheirAnswers) {
  for (uint64_t id = 0; id < 20; ++id) {
    SequenceRequest request = Request(id, {1, 2}, 1 + static_cast<int>(id) % 5);
    request.want_logit_digest = id % 4 == 1;  // the device does not feed these
    if (id % 3 == 0) request.verdict_decided = [](int32_t token) { return token == 6; };
    ASSERT_OK(engine_->Submit(std::move(request)));
  }
  const std::vector<int32_t> all = {3, 6, 12, 24, 48};
  auto results = RunAll();
  ASSERT_THAT(results, SizeIs(20));
  for (const auto& [id, result] : results) {
    const size_t length = std::min<size_t>(1 + id % 5, id % 3 == 0 ? 2 : 5);
    EXPECT_EQ(result.tokens, std::vector<int32_t>(all.begin(), all.begin() + length)) << id;
    EXPECT_EQ(result.kv_elements, static_cast<int64_t>(1 + length)) << id;
  }
}

INSTANTIATE_TEST_SUITE_P(Lookahead, BatchEngineTest, ::testing::Values(0, 1));

}  // namespace
}  // namespace plumbline
