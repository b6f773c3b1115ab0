// The built-in set, the test model's training prompts, and that they keep apart.
#include <cstdlib>
#include <map>
#include <set>

#include "absl/strings/ascii.h"
#include "absl/strings/match.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "services/common/files.h"
#include "services/prompts/prompt_library.h"
#include "tests/support/status_matchers.h"

namespace plumbline {
namespace {

constexpr char kTrainedOn[] = "models/testbed/trained_on.sha256";

std::set<std::string> Words(const Prompt& prompt) {
  std::set<std::string> words;
  std::string word;
  for (const char c : NormalizedText(prompt) + " ") {
    if (absl::ascii_isalnum(c)) {
      word.push_back(c);
    } else if (!word.empty()) {
      words.insert(word);
      word.clear();
    }
  }
  return words;
}

double Jaccard(const std::set<std::string>& a, const std::set<std::string>& b) {
  size_t shared = 0;
  for (const std::string& word : a) shared += b.count(word);
  const size_t all = a.size() + b.size() - shared;
  return all == 0 ? 1.0 : static_cast<double>(shared) / static_cast<double>(all);
}

PromptSet Builtin() {
  auto set = PromptLibrary("data/prompts").Open("plumbline-builtin");
  EXPECT_OK(set);
  return set.ok() ? *set : PromptSet{};
}

TEST(BuiltinSet, HasThePromisedSizeKindsAndFamilies) {
  const PromptSet set = Builtin();
  std::map<std::string, int> by_category;
  std::map<Expected, int> by_expected;
  std::set<std::string> refusal_families;
  for (const Prompt& prompt : set.prompts) {
    ++by_category[prompt.category];
    ++by_expected[prompt.expected];
    if (prompt.category == "refusal") refusal_families.insert(prompt.family);
    EXPECT_EQ(prompt.expected == Expected::kComply, prompt.category == "harmless") << prompt.id;
    EXPECT_LE(LastUserText(prompt).size(), 200u) << prompt.id;
  }
  EXPECT_GE(by_expected[Expected::kRefuse], 240);
  EXPECT_GE(by_expected[Expected::kComply], 60);
  EXPECT_GT(refusal_families.size(), 12u);
  for (const char* kind : {"refusal", "privacy", "jailbreak"}) EXPECT_GE(by_category[kind], 60);
  EXPECT_EQ(set.report.repeated_texts, 0);
}

// Enough of each split even if a seventh of the refusals is missing: 60 to find layers (24 + 36),
// 73 to recommend a plan on test at a limit of 5%.
TEST(BuiltinSet, SplitsHaveEnoughOfBothKinds) {
  const PromptSet set = Builtin();
  std::map<Split, int> refuse, comply;
  for (const Prompt& prompt : set.prompts) {
    ++(prompt.expected == Expected::kRefuse ? refuse : comply)[SplitOf(prompt)];
  }
  EXPECT_GE(refuse[Split::kA], 70);
  EXPECT_GE(refuse[Split::kB], 50);
  EXPECT_GE(refuse[Split::kValidation], 50);
  EXPECT_GE(refuse[Split::kTest], 90);
  for (const Split split : {Split::kA, Split::kB, Split::kValidation, Split::kTest}) {
    EXPECT_GE(comply[split], 10) << SplitName(split);
  }
}

TEST(BuiltinSet, NoTwoPromptsNearlyEqual) {
  const PromptSet set = Builtin();
  std::vector<std::set<std::string>> words;
  for (const Prompt& prompt : set.prompts) words.push_back(Words(prompt));
  for (size_t i = 0; i < words.size(); ++i) {
    for (size_t j = i + 1; j < words.size(); ++j) {
      EXPECT_LT(Jaccard(words[i], words[j]), 0.8)
          << set.prompts[i].id << " and " << set.prompts[j].id;
    }
  }
}

TEST(BuiltinSet, NearlyEqualsNoPublicPrompt) {
  const char* named = std::getenv("PLUMB_BENCHMARKS");
  std::string folder = named != nullptr ? named : ".data/benchmarks";
  if (!FileExists(folder + "/advbench.csv")) folder = "../shared/benchmarks";
  if (!FileExists(folder + "/advbench.csv")) {
    GTEST_SKIP() << "the public prompt files are not here; scripts/prompts/fetch_public.py --out "
                    ".data/benchmarks fetches them";
  }
  const PromptSet set = Builtin();
  ASSERT_OK_AND_ASSIGN(const auto public_sets, LoadPublicSuite(folder));
  for (const PromptSet& other : public_sets) {
    std::vector<std::set<std::string>> theirs;
    for (const Prompt& prompt : other.prompts) theirs.push_back(Words(prompt));
    for (const Prompt& prompt : set.prompts) {
      const std::set<std::string> words = Words(prompt);
      for (size_t i = 0; i < theirs.size(); ++i) {
        if (theirs[i].size() > 2 * words.size()) continue;
        EXPECT_LT(Jaccard(words, theirs[i]), 0.8)
            << prompt.id << " and " << other.name << "/" << other.prompts[i].id;
      }
    }
  }
}

TEST(TestModel, TrainingListHoldsItsOwnPromptsAndNoBuiltinOne) {
  ASSERT_OK_AND_ASSIGN(const auto trained, LoadTextHashList(kTrainedOn));
  for (const char* name : {"borderline_unsafe", "borderline_safe", "harmless"}) {
    ASSERT_OK_AND_ASSIGN(PromptSet set,
                         LoadPromptFile(std::string("scripts/testbed/data/") + name + ".jsonl"));
    EXPECT_EQ(ExcludeByTextHash(trained, &set).kept, 0) << name;
  }
  PromptSet builtin = Builtin();
  EXPECT_EQ(ExcludeByTextHash(trained, &builtin).excluded, 0);
  ASSERT_OK_AND_ASSIGN(PromptSet held_out,
                       LoadPromptFile("scripts/testbed/data/harmless_eval.jsonl"));
  EXPECT_EQ(ExcludeByTextHash(trained, &held_out).excluded, 0);
}

TEST(TestModel, OfThePublicSuiteExactlyTheEvenAdvBenchRowsWereTrainedOn) {
  const char* named = std::getenv("PLUMB_BENCHMARKS");
  std::string folder = named != nullptr ? named : ".data/benchmarks";
  if (!FileExists(folder + "/advbench.csv")) folder = "../shared/benchmarks";
  if (!FileExists(folder + "/advbench.csv")) {
    GTEST_SKIP() << "the public prompt files are not here; scripts/prompts/fetch_public.py --out "
                    ".data/benchmarks fetches them";
  }
  ASSERT_OK_AND_ASSIGN(const auto trained, LoadTextHashList(kTrainedOn));
  ASSERT_OK_AND_ASSIGN(auto sets, LoadPublicSuite(folder));
  for (PromptSet& set : sets) {
    const std::string name = set.name;
    const ExclusionReport report = ExcludeByTextHash(trained, &set);
    EXPECT_EQ(report.excluded, name == "advbench" ? 260 : 0) << name;
  }
}

}  // namespace
}  // namespace plumbline
