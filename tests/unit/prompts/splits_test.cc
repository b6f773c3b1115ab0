#include <cstdio>
#include <fstream>

#include "absl/strings/str_cat.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "services/common/files.h"
#include "services/prompts/prompt_set.h"
#include "tests/support/status_matchers.h"

namespace plumbline {
namespace {

using ::plumbline::testing::StatusIs;
using ::testing::HasSubstr;

Prompt User(const std::string& text) { return {"id", {{"user", text}}, "", "", {}, "set"}; }

TEST(Normalize, FoldsAsciiCaseAndWhiteSpaceOnly) {
  EXPECT_EQ(NormalizeText("  How\t do\r\n I  \xC3\x89 "), "how do i \xC3\x89");
  EXPECT_EQ(NormalizeText(" \n"), "");
}

// Hashes from Python: hashlib.sha256(b"how do i bake bread?").hexdigest(), and the split from
// int(hashlib.sha256(b"plumbline-split/1\n" + text).hexdigest()[:16], 16) % 100.
TEST(Splits, AgreeWithAnIndependentComputation) {
  EXPECT_EQ(TextHash(User("How do I  bake bread?")),
            "aea5e64104e6bc2a8398b14437ce17a10323cee1e982ce7906ff5bcbe6cd1ed9");
  EXPECT_EQ(SplitOf(User("sentence number 1")), Split::kA);
  EXPECT_EQ(SplitOf(User("sentence number 3")), Split::kB);
  EXPECT_EQ(SplitOf(User("sentence number 0")), Split::kValidation);
  EXPECT_EQ(SplitOf(User("sentence number 7")), Split::kTest);
}

TEST(Splits, SystemPromptAndAnswersTakeNoPart) {
  Prompt prompt = User("Hello there");
  const Split split = SplitOf(prompt);
  const std::string hash = TextHash(prompt);
  prompt.turns.insert(prompt.turns.begin(), {"system", "Be brief"});
  EXPECT_EQ(SplitOf(prompt), split);
  EXPECT_EQ(TextHash(prompt), hash);
}

TEST(Splits, ProportionsAreTwentyFiveTwentyTwentyThirtyFive) {
  std::vector<Prompt> prompts;
  for (int i = 0; i < 20000; ++i) prompts.push_back(User(absl::StrCat("prompt ", i)));
  const SplitCounts counts = CountSplits(prompts);
  EXPECT_EQ(counts.total(), 20000);
  // Five standard deviations of a binomial with n = 20,000 are 306 (p = .25), 283 (p = .2) and 337
  // (p = .35).
  EXPECT_NEAR(counts.count[0], 5000, 306);
  EXPECT_NEAR(counts.count[1], 4000, 283);
  EXPECT_NEAR(counts.count[2], 4000, 283);
  EXPECT_NEAR(counts.count[3], 7000, 337);
  int64_t selected = 0;
  for (const Split split : {Split::kA, Split::kB, Split::kValidation, Split::kTest}) {
    selected += SelectSplit(prompts, split).size();
  }
  EXPECT_EQ(selected, 20000);
}

TEST(Splits, NamesRoundTripAndUnknownIsRefused) {
  for (const Split split : {Split::kA, Split::kB, Split::kValidation, Split::kTest}) {
    ASSERT_OK_AND_ASSIGN(const Split parsed, ParseSplit(SplitName(split)));
    EXPECT_EQ(parsed, split);
  }
  EXPECT_THAT(ParseSplit("C"), StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr("'C'")));
}

TEST(Duplicates, AreFoundAcrossSets) {
  ASSERT_OK_AND_ASSIGN(const PromptSet one, ParsePromptText("a b\nc\n", "one.txt", {}));
  ASSERT_OK_AND_ASSIGN(const PromptSet two, ParsePromptText("A  B\nd\n", "two.txt", {}));
  const auto groups = FindDuplicates({&one, &two});
  ASSERT_EQ(groups.size(), 1u);
  EXPECT_THAT(groups[0].members, ::testing::ElementsAre("one/one-0001", "two/two-0001"));
  EXPECT_TRUE(FindDuplicates({&one}).empty());
}

TEST(Exclusion, RemovesListedPromptsAndSaysHowMany) {
  ASSERT_OK_AND_ASSIGN(PromptSet set, ParsePromptText("a\nb\nc\n", "s.txt", {}));
  const std::string before = set.digest;
  const ExclusionReport report = ExcludeByTextHash({TextHash(set.prompts[1])}, &set);
  EXPECT_EQ(report.before, 3);
  EXPECT_EQ(report.excluded, 1);
  EXPECT_EQ(report.kept, 2);
  EXPECT_THAT(report.excluded_ids, ::testing::ElementsAre("s-0002"));
  EXPECT_EQ(set.name, "s-minus-trained");
  EXPECT_NE(set.digest, before);
  EXPECT_EQ(set.digest, CanonicalDigest(set.prompts));
}

TEST(Exclusion, WithoutAHitLeavesTheSetAsItWas) {
  ASSERT_OK_AND_ASSIGN(PromptSet set, ParsePromptText("a\n", "s.txt", {}));
  const std::string digest = set.digest;
  EXPECT_EQ(ExcludeByTextHash({TextHash(User("z"))}, &set).excluded, 0);
  EXPECT_EQ(set.name, "s");
  EXPECT_EQ(set.digest, digest);
}

TEST(HashList, ReadsCommentsAndRefusesOtherLines) {
  const std::string path = ::testing::TempDir() + "/hash_list_test.txt";
  const std::string hash = TextHash(User("a"));
  ASSERT_OK(WriteFileAtomically(path, "# list\n\n" + hash + "\n"));
  ASSERT_OK_AND_ASSIGN(const auto hashes, LoadTextHashList(path));
  EXPECT_TRUE(hashes.contains(hash));
  EXPECT_EQ(hashes.size(), 1u);
  ASSERT_OK(WriteFileAtomically(path, hash + "\nABC\n"));
  EXPECT_THAT(LoadTextHashList(path),
              StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr(":2:1: expected a SHA-256")));
  std::remove(path.c_str());
}

}  // namespace
}  // namespace plumbline
