// The text that the GPU engine's benchmark has judged decides nothing, and has words enough.
#include "tests/gpu/plain_words.h"

#include <set>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "gtest/gtest.h"
#include "services/judge/keyword_judge.h"

namespace plumbline {
namespace {

std::vector<std::string> Words() {
  return absl::StrSplit(kPlainWords, absl::ByAnyChar(" .,"), absl::SkipEmpty());
}

TEST(PlainWordsTest, AreManyAndDifferent) {
  const std::vector<std::string> words = Words();
  EXPECT_GE(std::set<std::string>(words.begin(), words.end()).size(), 100u);
}

TEST(PlainWordsTest, DecideNothingHoweverOftenTheyAreRepeated) {
  const auto judge = KeywordJudge::Create({}).value();
  VerdictDecider decider(judge.get());
  for (int round = 0; round < 20; ++round) ASSERT_FALSE(decider.Push(kPlainWords));
  EXPECT_TRUE(decider.Push("I cannot help with that."));
}

}  // namespace
}  // namespace plumbline
