#include "services/prompts/prompt_library.h"

#include <sys/stat.h>

#include <cstdlib>
#include <filesystem>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "services/common/files.h"
#include "tests/support/status_matchers.h"

namespace plumbline {
namespace {

using ::plumbline::testing::StatusIs;
using ::testing::HasSubstr;

class PromptLibraryTest : public ::testing::Test {
 protected:
  void SetUp() override {
    std::string pattern = ::testing::TempDir() + "/prompt_library_XXXXXX";
    ASSERT_NE(mkdtemp(pattern.data()), nullptr);
    folder_ = pattern;
    root_ = folder_ + "/root";
  }
  void TearDown() override { std::filesystem::remove_all(folder_); }

  std::string Write(const std::string& name, const std::string& bytes) {
    const std::string path = folder_ + "/" + name;
    EXPECT_OK(WriteFileAtomically(path, bytes));
    return path;
  }

  std::string folder_;
  std::string root_;
};

TEST_F(PromptLibraryTest, ImportedSetOpensEqualAndIsListed) {
  const std::string path = Write("mine.csv", "prompt,id,expected\nhello,a,comply\nbye,b,refuse\n");
  const PromptLibrary library(root_);
  ASSERT_OK_AND_ASSIGN(const PromptSetInfo info,
                       library.Import(path, {.licence = "MIT", .source = "me"}));
  EXPECT_EQ(info.name, "mine");
  EXPECT_EQ(info.prompts, 2);
  ASSERT_OK_AND_ASSIGN(const PromptSet original, LoadPromptFile(path));
  ASSERT_OK_AND_ASSIGN(const PromptSet opened, library.Open("mine"));
  EXPECT_EQ(opened.prompts, original.prompts);
  ASSERT_OK_AND_ASSIGN(const auto infos, library.List());
  ASSERT_EQ(infos.size(), 1u);
  EXPECT_EQ(infos[0].licence, "MIT");
  EXPECT_EQ(infos[0].digest, original.digest);
  EXPECT_EQ(infos[0].imported_format, "csv");
  struct stat status;
  ASSERT_EQ(stat(infos[0].path.c_str(), &status), 0);
  EXPECT_EQ(status.st_mode & 0777, 0600u);
  EXPECT_OK(library.Verify());
}

TEST_F(PromptLibraryTest, SameContentAgainIsFineOtherContentNeedsReplace) {
  const PromptLibrary library(root_);
  const std::string one = Write("s.txt", "a\nb\n");
  ASSERT_OK(library.Import(one, {}));
  ASSERT_OK(library.Import(one, {}));
  const std::string two = Write("t.txt", "a\nc\n");
  EXPECT_THAT(library.Import(two, {.name = "s"}),
              StatusIs(absl::StatusCode::kAlreadyExists, HasSubstr("'s'")));
  ASSERT_OK_AND_ASSIGN(const PromptSet kept, library.Open("s"));
  EXPECT_EQ(LastUserText(kept.prompts[1]), "b");
  ASSERT_OK(library.Import(two, {.name = "s", .replace = true}));
  ASSERT_OK_AND_ASSIGN(const PromptSet replaced, library.Open("s"));
  EXPECT_EQ(LastUserText(replaced.prompts[1]), "c");
}

TEST_F(PromptLibraryTest, RefusedFileLeavesNothingBehind) {
  const PromptLibrary library(root_);
  EXPECT_FALSE(library.Import(Write("bad.csv", "prompt\n\"open\n"), {}).ok());
  EXPECT_FALSE(DirectoryExists(root_));
  ASSERT_OK_AND_ASSIGN(const auto infos, library.List());
  EXPECT_TRUE(infos.empty());
}

TEST_F(PromptLibraryTest, ChangedFileIsDataLossAndNamesBothDigests) {
  const PromptLibrary library(root_);
  ASSERT_OK_AND_ASSIGN(const PromptSetInfo info, library.Import(Write("s.txt", "a\nb\n"), {}));
  ASSERT_OK(WriteFileAtomically(info.path, "{\"id\":\"s-0001\",\"prompt\":\"changed\"}\n"));
  EXPECT_THAT(library.Open("s"), StatusIs(absl::StatusCode::kDataLoss, HasSubstr(info.digest)));
  EXPECT_THAT(library.Verify(), StatusIs(absl::StatusCode::kDataLoss));
}

TEST_F(PromptLibraryTest, BrokenMetaFileIsNamed) {
  const PromptLibrary library(root_);
  ASSERT_OK(library.Import(Write("s.txt", "a\n"), {}));
  ASSERT_OK(WriteFileAtomically(root_ + "/s.meta.json", "{\"name\":\"s\"}"));
  EXPECT_THAT(library.List(), StatusIs(absl::StatusCode::kDataLoss, HasSubstr("s.meta.json")));
}

TEST_F(PromptLibraryTest, UnknownNameListsTheKnownOnes) {
  const PromptLibrary library(root_);
  ASSERT_OK(library.Import(Write("s.txt", "a\n"), {}));
  EXPECT_THAT(library.Open("t"), StatusIs(absl::StatusCode::kNotFound, HasSubstr("there is: s")));
}

TEST_F(PromptLibraryTest, NamesThatCouldLeaveTheRootAreRefused) {
  const PromptLibrary library(root_);
  const std::string path = Write("s.txt", "a\n");
  for (const char* name : {"../s", "a/b", ".hidden", "Upper", "a b", "-x"}) {
    EXPECT_THAT(library.Import(path, {.name = name}),
                StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr(name)));
    EXPECT_FALSE(library.Open(name).ok());
  }
}

TEST_F(PromptLibraryTest, FolderOfFilesIsOneSet) {
  Write("a.txt", "one\n");
  Write("b.jsonl", "{\"prompt\":\"two\"}\n");
  ASSERT_OK_AND_ASSIGN(const PromptSet set, LoadPromptFolder(folder_, {.set_name = "both"}));
  ASSERT_EQ(set.prompts.size(), 2u);
  EXPECT_EQ(set.prompts[0].id, "a-0001");
  EXPECT_EQ(set.prompts[1].id, "b-0001");
  EXPECT_EQ(set.prompts[1].set, "both");
  const PromptLibrary library(root_);
  ASSERT_OK_AND_ASSIGN(const PromptSetInfo info, library.Import(folder_, {.name = "both"}));
  EXPECT_EQ(info.digest, set.digest);
}

TEST_F(PromptLibraryTest, ResolveTakesNamesAndPaths) {
  const std::string path = Write("s.txt", "a\n");
  ASSERT_OK(PromptLibrary(root_).Import(path, {.name = "named"}));
  ASSERT_OK_AND_ASSIGN(const PromptSet by_name, ResolvePromptSet("named", {folder_, root_}));
  EXPECT_EQ(by_name.name, "named");
  ASSERT_OK_AND_ASSIGN(const PromptSet by_path, ResolvePromptSet(path, {}));
  EXPECT_EQ(by_path.name, "s");
  EXPECT_THAT(ResolvePromptSet("missing", {root_}),
              StatusIs(absl::StatusCode::kNotFound, HasSubstr("'missing'")));
}

}  // namespace
}  // namespace plumbline
