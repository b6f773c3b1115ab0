#include "services/common/clock.h"

#include <atomic>
#include <thread>

#include "gtest/gtest.h"

namespace plumbline {
namespace {

TEST(FakeClockTest, StandsStillUntilAdvanced) {
  FakeClock clock;
  const absl::Time start = clock.Now();
  EXPECT_EQ(clock.Now(), start);
  clock.Advance(absl::Seconds(3));
  EXPECT_EQ(clock.Now(), start + absl::Seconds(3));
}

TEST(FakeClockTest, SleeperWakesOnlyWhenItsTimeHasCome) {
  FakeClock clock;
  std::atomic<bool> awake{false};
  const absl::Time start = clock.Now();
  std::thread sleeper([&] {
    clock.SleepFor(start + absl::Seconds(10) - clock.Now());
    awake = true;
  });
  clock.Advance(absl::Seconds(9));
  EXPECT_FALSE(awake);
  clock.Advance(absl::Seconds(1));
  sleeper.join();
  EXPECT_TRUE(awake);
}

}  // namespace
}  // namespace plumbline
