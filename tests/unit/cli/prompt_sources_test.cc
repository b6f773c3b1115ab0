#include "services/cli/prompt_sources.h"

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/support/status_matchers.h"

namespace plumbline {
namespace {

using ::testing::AllOf;
using ::testing::HasSubstr;
using testing::StatusIs;

TEST(ResolvePromptsTest, ANameThatIsNotHereIsLeftToTheCoordinator) {
  ASSERT_OK_AND_ASSIGN(const ResolvedPrompts there,
                       ResolvePrompts({"nosuch"}, "no-data", /*remote=*/true));
  ASSERT_EQ(there.sets.size(), 1u);
  EXPECT_EQ(there.sets[0].name(), "nosuch");
  EXPECT_THAT(ResolvePrompts({"nosuch"}, "no-data", /*remote=*/false),
              StatusIs(absl::StatusCode::kNotFound, HasSubstr("nosuch")));
}

TEST(ResolvePromptsTest, AFileThatIsNotHereIsAnErrorThatNamesIt) {
  for (const char* path : {"nosuch.csv", "nosuch.jsonl", "some/nosuch.txt"}) {
    EXPECT_THAT(
        ResolvePrompts({path}, "no-data", /*remote=*/true),
        StatusIs(absl::StatusCode::kNotFound, AllOf(HasSubstr("--prompts"), HasSubstr(path))));
  }
}

}  // namespace
}  // namespace plumbline
