#include "services/common/files.h"

#include <sys/stat.h>
#include <unistd.h>

#include "gtest/gtest.h"
#include "tests/support/status_matchers.h"

namespace plumbline {
namespace {

using ::testing::HasSubstr;
using testing::StatusIs;

std::string Scratch(const std::string& name) {
  const std::string path = ::testing::TempDir() + "/files_test_" + std::to_string(getpid());
  EXPECT_OK(MakeDirectories(path));
  return JoinPath(path, name);
}

TEST(FilesTest, WriteIsReadBackWithItsMode) {
  const std::string path = Scratch("secret");
  ASSERT_OK(WriteFileAtomically(path, "text", 0600));
  ASSERT_OK_AND_ASSIGN(std::string text, ReadFile(path));
  EXPECT_EQ(text, "text");
  struct stat info {};
  ASSERT_EQ(stat(path.c_str(), &info), 0);
  EXPECT_EQ(info.st_mode & 0777u, 0600u);
}

TEST(FilesTest, FailedWriteLeavesTheOldFileAndNoTemporary) {
  EXPECT_THAT(WriteFileAtomically(Scratch("no_such_folder/file"), "x"),
              StatusIs(absl::StatusCode::kNotFound, HasSubstr("no_such_folder")));
  ASSERT_OK(MakeDirectories(Scratch("target_is_a_folder")));
  EXPECT_FALSE(WriteFileAtomically(Scratch("target_is_a_folder"), "x").ok());
  ASSERT_OK_AND_ASSIGN(auto names, ListDirectory(Scratch("")));
  for (const std::string& name : names) EXPECT_EQ(name.find(".tmp."), std::string::npos) << name;
}

TEST(FilesTest, ReadOverTheLimitNamesTheLimit) {
  const std::string path = Scratch("large");
  ASSERT_OK(WriteFileAtomically(path, std::string(100, 'x')));
  EXPECT_THAT(ReadFile(path, 99), StatusIs(absl::StatusCode::kResourceExhausted, HasSubstr("99")));
  EXPECT_THAT(ReadFile(path, 100), testing::IsOk());
}

TEST(FilesTest, PathsOutsideTheRootAreRefusedAlsoThroughLinks) {
  const std::string root = Scratch("root");
  ASSERT_OK(MakeDirectories(root));
  EXPECT_OK(CheckBelowRoot(root + "/a/b", root));
  EXPECT_THAT(CheckBelowRoot(root + "/../other", root),
              StatusIs(absl::StatusCode::kPermissionDenied, HasSubstr(root)));
  EXPECT_FALSE(CheckBelowRoot(root + "sibling", root).ok());
  unlink((root + "/link").c_str());
  ASSERT_EQ(symlink("/etc", (root + "/link").c_str()), 0);
  EXPECT_FALSE(CheckBelowRoot(root + "/link/passwd", root).ok());
}

}  // namespace
}  // namespace plumbline
