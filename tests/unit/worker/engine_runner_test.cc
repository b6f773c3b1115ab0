#include "services/worker/engine_runner.h"

#include <atomic>
#include <future>

#include "gtest/gtest.h"
#include "tests/support/status_matchers.h"

namespace plumbline {
namespace {

using ::testing::HasSubstr;
using testing::StatusIs;

struct FakeEngineState {
  std::atomic<int> made{0};
  std::atomic<bool> fail_step{false};
  std::atomic<bool> finish{true};
  std::atomic<int> cancelled{0};
};

class FakeEngine final : public Engine {
 public:
  explicit FakeEngine(FakeEngineState* state) : state_(state) { ++state->made; }
  const ModelShape& shape() const override { return shape_; }
  const std::string& numerics_class() const override { return class_; }
  absl::Status Submit(SequenceRequest request) override {
    if (request.prompt_tokens.empty()) return absl::InvalidArgumentError("empty prompt");
    ids_.push_back(request.id);
    return absl::OkStatus();
  }
  absl::Status Cancel(uint64_t id) override {
    std::erase(ids_, id);
    ++state_->cancelled;
    return absl::OkStatus();
  }
  absl::StatusOr<std::vector<SequenceResult>> Step() override {
    ++stats_.decoded_tokens;
    stats_.reused_rows += 2;
    stats_.padded_slots += 3;
    stats_.matmul_seconds += 4;
    stats_.attention_seconds += 5;
    stats_.quantize_seconds += 6;
    stats_.other_seconds += 7;
    if (state_->fail_step.exchange(false)) return absl::InternalError("broken step");
    std::vector<SequenceResult> results;
    if (!state_->finish) return results;
    for (uint64_t id : ids_) {
      results.emplace_back();
      results.back().id = id;
    }
    ids_.clear();
    return results;
  }
  int active() const override { return static_cast<int>(ids_.size()); }
  const EngineStats& stats() const override { return stats_; }

 private:
  FakeEngineState* const state_;
  ModelShape shape_;
  const std::string class_ = "fake/1";
  std::vector<uint64_t> ids_;
  EngineStats stats_;
};

CatalogEntry Entry(const std::string& digest) {
  CatalogEntry entry;
  entry.info.set_model_digest(digest);
  entry.info.set_name(digest);
  return entry;
}

SequenceRequest Request() {
  SequenceRequest request;
  request.prompt_tokens = {1};
  return request;
}

class EngineRunnerTest : public ::testing::Test {
 protected:
  absl::Status Run(const std::string& model, SequenceRequest request = Request()) {
    std::promise<absl::Status> done;
    runner_.Submit(
        Entry(model), std::move(request),
        [&done](absl::StatusOr<SequenceResult> result) { done.set_value(result.status()); });
    return done.get_future().get();
  }
  FakeEngineState state_;
  EngineRunner runner_{[this](const EngineOptions&) -> absl::StatusOr<std::unique_ptr<Engine>> {
                         return std::unique_ptr<Engine>(std::make_unique<FakeEngine>(&state_));
                       },
                       EngineOptions(), /*max_loaded=*/2};
};

TEST_F(EngineRunnerTest, OneEngineServesManySequencesOfAModel) {
  for (int i = 0; i < 5; ++i) EXPECT_OK(Run("m1"));
  EXPECT_EQ(state_.made, 1);
}

TEST_F(EngineRunnerTest, RefusedRequestFailsAloneAndLeavesNothingActive) {
  EXPECT_THAT(Run("m1", SequenceRequest()),
              StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr("empty prompt")));
  EXPECT_OK(Run("m1"));
  while (runner_.active() != 0) std::this_thread::yield();
}

TEST_F(EngineRunnerTest, StopAnswersEverySequenceAndLeavesNoneForLater) {
  state_.finish = false;
  std::vector<absl::Status> answers;  // by the runner's thread, read once Stop has returned
  const auto submit = [&] {
    runner_.Submit(Entry("m1"), Request(), [&answers](absl::StatusOr<SequenceResult> result) {
      answers.push_back(result.status());
    });
  };
  for (int i = 0; i < 3; ++i) submit();
  while (state_.made == 0) std::this_thread::yield();
  runner_.Stop();
  ASSERT_EQ(answers.size(), 3u);
  EXPECT_EQ(runner_.active(), 0);
  EXPECT_THAT(Run("m1"), StatusIs(absl::StatusCode::kCancelled, HasSubstr("shuts down")));
  submit();
  runner_.Stop();
  EXPECT_EQ(answers.size(), 4u);
  for (const absl::Status& status : answers) {
    EXPECT_THAT(status, StatusIs(absl::StatusCode::kCancelled, HasSubstr("shuts down")));
  }
}

TEST_F(EngineRunnerTest, EveryStepsOwnCountsAreObserved) {
  std::promise<EngineStats> observed;
  EngineRunner runner(
      [this](const EngineOptions&) -> absl::StatusOr<std::unique_ptr<Engine>> {
        return std::unique_ptr<Engine>(std::make_unique<FakeEngine>(&state_));
      },
      EngineOptions(), /*max_loaded=*/1,
      [&, first = true](const EngineStats& added, double) mutable {
        if (!first) observed.set_value(added);
        first = false;
      });
  for (int i = 0; i < 2; ++i) {
    std::promise<void> done;
    runner.Submit(Entry("m1"), Request(),
                  [&done](const absl::StatusOr<SequenceResult>&) { done.set_value(); });
    done.get_future().wait();
  }
  const EngineStats second = observed.get_future().get();
  EXPECT_EQ(second.decoded_tokens, 1);
  EXPECT_EQ(second.reused_rows, 2);
  EXPECT_EQ(second.padded_slots, 3);
  EXPECT_EQ(second.matmul_seconds, 4);
  EXPECT_EQ(second.attention_seconds, 5);
  EXPECT_EQ(second.quantize_seconds, 6);
  EXPECT_EQ(second.other_seconds, 7);
}

TEST_F(EngineRunnerTest, FailedStepFailsItsSequencesAndTheEngineIsLoadedAnew) {
  state_.fail_step = true;
  EXPECT_THAT(Run("m1"), StatusIs(absl::StatusCode::kInternal, HasSubstr("broken step")));
  EXPECT_OK(Run("m1"));
  EXPECT_EQ(state_.made, 2);
}

TEST_F(EngineRunnerTest, IdleLongestIsEvictedWhenTooManyModelsAreLoaded) {
  EXPECT_OK(Run("m1"));
  EXPECT_OK(Run("m2"));
  EXPECT_OK(Run("m3"));  // evicts m1
  EXPECT_OK(Run("m2"));
  EXPECT_EQ(state_.made, 3);
  EXPECT_OK(Run("m1"));
  EXPECT_EQ(state_.made, 4);
}

TEST_F(EngineRunnerTest, CancelReachesTheEngineAndSilencesTheSequence) {
  state_.finish = false;
  std::atomic<int> calls{0};
  const uint64_t id =
      runner_.Submit(Entry("m1"), Request(), [&](absl::StatusOr<SequenceResult>) { ++calls; });
  runner_.Cancel(id);
  while (runner_.active() != 0) std::this_thread::yield();
  EXPECT_EQ(state_.cancelled, 1);
  EXPECT_EQ(calls, 0);
}

TEST_F(EngineRunnerTest, AProbeMeasuresARateAndLeavesTheEngineIdle) {
  EXPECT_GT(runner_.ProbeRate(Entry("m1")), 0);
  EXPECT_EQ(runner_.active(), 0);
  EXPECT_OK(Run("m1"));
  EXPECT_EQ(state_.made, 1);
}

TEST_F(EngineRunnerTest, AProbeThatFailsTellsNoRateAndTheEngineIsLoadedAnew) {
  state_.fail_step = true;
  EXPECT_EQ(runner_.ProbeRate(Entry("m1")), 0);
  EXPECT_OK(Run("m1"));
  EXPECT_EQ(state_.made, 2);
}

TEST_F(EngineRunnerTest, ABusyEngineIsNotProbed) {
  state_.finish = false;
  const uint64_t id = runner_.Submit(Entry("m1"), Request(), [](absl::StatusOr<SequenceResult>) {});
  while (runner_.stats().steps + runner_.tokens_computed() == 0) std::this_thread::yield();
  EXPECT_EQ(runner_.ProbeRate(Entry("m1")), 0);
  runner_.Cancel(id);
  while (runner_.active() != 0) std::this_thread::yield();
  EXPECT_EQ(state_.cancelled, 1);
}

TEST_F(EngineRunnerTest, NumericsClassComesFromTheEngine) {
  ASSERT_OK_AND_ASSIGN(const std::string text, runner_.NumericsClassOf(Entry("m1")));
  EXPECT_EQ(text, "fake/1");
}

}  // namespace
}  // namespace plumbline
