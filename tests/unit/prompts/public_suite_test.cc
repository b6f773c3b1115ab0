#include <cstdlib>
#include <filesystem>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "services/common/files.h"
#include "services/prompts/prompt_library.h"
#include "tests/support/status_matchers.h"

namespace plumbline {
namespace {

using ::plumbline::testing::StatusIs;
using ::testing::HasSubstr;

// Where the public files are: PLUMB_BENCHMARKS, what the fetch script made, or a folder beside the
// project.
std::string BenchmarkFolder() {
  const char* named = std::getenv("PLUMB_BENCHMARKS");
  for (const std::string folder :
       {named == nullptr ? "" : named, ".data/benchmarks", "../shared/benchmarks"}) {
    if (!folder.empty() && FileExists(folder + "/advbench.csv")) return folder;
  }
  return "";
}

class PublicSuite : public ::testing::Test {
 protected:
  void SetUp() override {
    folder_ = BenchmarkFolder();
    if (folder_.empty()) {
      GTEST_SKIP() << "the public prompt files are not here; scripts/prompts/fetch_public.py "
                      "--out .data/benchmarks fetches them, or set PLUMB_BENCHMARKS";
    }
  }
  std::string folder_;
};

// Row counts as the publishers state them.
TEST_F(PublicSuite, AllPromptsAreCountedPerSetAndSplit) {
  ASSERT_OK_AND_ASSIGN(const PublicSuiteReport report, VerifyPublicSuite(folder_));
  EXPECT_EQ(report.total, 1894);
  EXPECT_EQ(report.splits.total(), 1894);
  std::map<std::string, int64_t> rows;
  for (const PublicSetReport& set : report.sets) {
    rows[set.set_name] = set.rows;
    EXPECT_EQ(set.splits.total(), set.rows);
  }
  EXPECT_EQ(rows, (std::map<std::string, int64_t>{{"advbench", 520},
                                                  {"harmbench", 320},
                                                  {"xstest", 450},
                                                  {"ifeval", 541},
                                                  {"custom-refusal", 19},
                                                  {"custom-privacy", 21},
                                                  {"custom-jailbreak", 23}}));
  EXPECT_EQ(report.sets[1].categories,
            (std::vector<std::pair<std::string, int64_t>>{
                {"contextual", 81}, {"copyright", 80}, {"standard", 159}}));
  EXPECT_EQ(report.sets[2].categories,
            (std::vector<std::pair<std::string, int64_t>>{{"safe", 250}, {"unsafe", 200}}));
  EXPECT_THAT(FormatPublicSuiteReport(report), HasSubstr("total"));
}

TEST_F(PublicSuite, ContextualHarmBenchPromptsCarryTheirContext) {
  ASSERT_OK_AND_ASSIGN(const PromptSet set, LoadPromptFile(folder_ + "/harmbench.csv"));
  int with_context = 0;
  for (const Prompt& prompt : set.prompts) {
    const bool has = LastUserText(prompt).find("\n\n---\n\n") != std::string::npos;
    EXPECT_EQ(has, prompt.category == "contextual") << prompt.id;
    with_context += has;
  }
  EXPECT_EQ(with_context, 81);
}

TEST_F(PublicSuite, OneChangedByteIsNamed) {
  std::string pattern = ::testing::TempDir() + "/public_suite_XXXXXX";
  ASSERT_NE(mkdtemp(pattern.data()), nullptr);
  std::filesystem::create_directory(pattern + "/custom");
  for (const PublicFile& file : PublicFiles()) {
    ASSERT_OK_AND_ASSIGN(std::string bytes, ReadFile(folder_ + "/" + file.path));
    if (std::string(file.set_name) == "xstest") bytes[bytes.find("kill")] = 'K';
    ASSERT_OK(WriteFileAtomically(pattern + "/" + file.path, bytes));
  }
  EXPECT_THAT(VerifyPublicSuite(pattern),
              StatusIs(absl::StatusCode::kDataLoss, HasSubstr("xstest.csv: SHA-256")));
  std::filesystem::remove(pattern + "/custom/privacy.txt");
  std::filesystem::remove(pattern + "/xstest.csv");
  std::filesystem::copy(folder_ + "/xstest.csv", pattern + "/xstest.csv");
  EXPECT_THAT(VerifyPublicSuite(pattern),
              StatusIs(absl::StatusCode::kNotFound, HasSubstr("custom/privacy.txt")));
  std::filesystem::remove_all(pattern);
}

TEST(PublicSuiteWithoutFiles, MissingFolderPointsAtTheFetchScript) {
  EXPECT_THAT(VerifyPublicSuite("/nonexistent"),
              StatusIs(absl::StatusCode::kNotFound, HasSubstr("fetch_public.py")));
}

}  // namespace
}  // namespace plumbline
