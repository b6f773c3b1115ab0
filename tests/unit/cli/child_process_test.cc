#include "services/cli/child_process.h"

#include <signal.h>
#include <unistd.h>

#include "absl/time/clock.h"
#include "gtest/gtest.h"
#include "services/common/files.h"
#include "tests/support/status_matchers.h"

namespace plumbline {
namespace {

using ::testing::HasSubstr;
using testing::StatusIs;

std::string AwaitEnd(ChildProcess& child) {
  std::optional<std::string> ended;
  while (!(ended = child.Ended())) absl::SleepFor(absl::Milliseconds(5));
  return *ended;
}

TEST(ChildProcessTest, ExitCodeAndOutputAreKept) {
  const std::string log = ::testing::TempDir() + "/child_process_test_" + std::to_string(getpid());
  ASSERT_OK_AND_ASSIGN(
      auto child, ChildProcess::Start({"/bin/sh", "-c", "echo out; echo err >&2; exit 7"}, log));
  EXPECT_EQ(AwaitEnd(*child), "exit code 7");
  EXPECT_EQ(child->exit_code(), 7);
  ASSERT_OK_AND_ASSIGN(const std::string text, ReadFile(log));
  EXPECT_THAT(text, HasSubstr("out"));
  EXPECT_THAT(text, HasSubstr("err"));
}

TEST(ChildProcessTest, MissingProgramIsAnErrorAtStart) {
  EXPECT_THAT(ChildProcess::Start({"/no/such/program"}, ""),
              StatusIs(absl::StatusCode::kNotFound, HasSubstr("/no/such/program")));
}

TEST(ChildProcessTest, ANameWithoutAFolderIsLookedForInPath) {
  ASSERT_OK_AND_ASSIGN(auto child, ChildProcess::Start({"sh", "-c", "exit 3"}, ""));
  EXPECT_EQ(AwaitEnd(*child), "exit code 3");
  EXPECT_THAT(ChildProcess::Start({"no-such-program-in-path"}, ""),
              StatusIs(absl::StatusCode::kNotFound, HasSubstr("no-such-program-in-path")));
}

TEST(ChildProcessTest, StopEndsAProcessThatIgnoresTerm) {
  ASSERT_OK_AND_ASSIGN(auto child,
                       ChildProcess::Start({"/bin/sh", "-c", "trap '' TERM; exec sleep 600"}, ""));
  absl::SleepFor(absl::Milliseconds(50));
  child->Stop(absl::Milliseconds(100));
  EXPECT_THAT(*child->Ended(), HasSubstr("signal 9"));
  EXPECT_EQ(child->exit_code(), 128 + SIGKILL);
}

TEST(ChildProcessTest, ChildLeadsItsOwnProcessGroup) {
  ASSERT_OK_AND_ASSIGN(auto child, ChildProcess::Start({"/bin/sleep", "600"}, ""));
  EXPECT_EQ(getpgid(child->pid()), child->pid());
  EXPECT_NE(getpgid(0), child->pid());
  child->Stop(absl::Seconds(5));
}

}  // namespace
}  // namespace plumbline
