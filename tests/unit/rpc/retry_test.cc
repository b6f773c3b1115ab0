#include "services/rpc/retry.h"

#include "tests/support/status_matchers.h"

namespace plumbline {
namespace {

using testing::StatusIs;

// Time passes by sleeping alone.
class SleepingClock final : public Clock {
 public:
  absl::Time Now() override { return now_; }
  void SleepFor(absl::Duration duration) override {
    pauses.push_back(duration);
    now_ += duration;
  }
  std::vector<absl::Duration> pauses;

 private:
  absl::Time now_ = absl::UnixEpoch();
};

TEST(Retry, TriesUnavailableAndAbortedAgainUntilItWorks) {
  SleepingClock clock;
  int calls = 0;
  const absl::StatusOr<int> answer = RetryCall(&clock, {.seed = 1}, [&]() -> absl::StatusOr<int> {
    ++calls;
    if (calls == 1) return absl::UnavailableError("away");
    if (calls == 2) return absl::AbortedError("lost");
    return 42;
  });
  ASSERT_OK(answer);
  EXPECT_EQ(*answer, 42);
  EXPECT_EQ(calls, 3);
}

TEST(Retry, NeverTriesOtherCodesAgain) {
  for (const auto code : {absl::StatusCode::kInvalidArgument, absl::StatusCode::kNotFound,
                          absl::StatusCode::kResourceExhausted, absl::StatusCode::kInternal,
                          absl::StatusCode::kDeadlineExceeded, absl::StatusCode::kCancelled}) {
    SleepingClock clock;
    int calls = 0;
    EXPECT_THAT(RetryCall(&clock, {}, [&] { return ++calls, absl::Status(code, "no"); }),
                StatusIs(code));
    EXPECT_EQ(calls, 1);
  }
}

TEST(Retry, PausesGrowWithinTheirJitterUpToTheBound) {
  SleepingClock clock;
  const RetryPolicy policy{.max_attempts = 8,
                           .initial_backoff = absl::Seconds(1),
                           .max_backoff = absl::Seconds(10),
                           .seed = 3};
  EXPECT_THAT(RetryCall(&clock, policy, [] { return absl::UnavailableError("away"); }),
              StatusIs(absl::StatusCode::kUnavailable));
  const double kFull[] = {1, 2, 4, 8, 10, 10, 10};
  ASSERT_EQ(clock.pauses.size(), std::size(kFull));
  bool jittered = false;
  for (size_t i = 0; i < std::size(kFull); ++i) {
    EXPECT_GE(clock.pauses[i], absl::Seconds(kFull[i] / 2));
    EXPECT_LE(clock.pauses[i], absl::Seconds(kFull[i]));
    jittered = jittered || clock.pauses[i] != absl::Seconds(kFull[i]);
  }
  EXPECT_TRUE(jittered);
}

TEST(Retry, NoPauseBeyondTheBudgetAndNoneAfterStop) {
  SleepingClock clock;
  RetryPolicy policy{.max_attempts = 100,
                     .initial_backoff = absl::Seconds(1),
                     .max_backoff = absl::Seconds(1),
                     .jitter = 0,
                     .budget = absl::Seconds(3)};
  (void)RetryCall(&clock, policy, [] { return absl::UnavailableError("away"); });
  EXPECT_EQ(clock.pauses.size(), 3u);
  policy.stop = [&] { return clock.pauses.size() >= 5; };
  policy.budget = absl::InfiniteDuration();
  (void)RetryCall(&clock, policy, [] { return absl::UnavailableError("away"); });
  EXPECT_EQ(clock.pauses.size(), 5u);
}

}  // namespace
}  // namespace plumbline
