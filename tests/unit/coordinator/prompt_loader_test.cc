#include "services/coordinator/prompt_loader.h"

#include <filesystem>
#include <fstream>
#include <set>
#include <string>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "services/prompts/prompt_library.h"
#include "tests/support/status_matchers.h"

namespace plumbline {
namespace {

using ::testing::AllOf;
using ::testing::HasSubstr;
using testing::IsOk;
using ::testing::Not;
using ::testing::SizeIs;
using testing::StatusIs;

// A prompt root with the set "garden" of 40 prompts, and a readable file of prompts beside it.
class PromptLoaderTest : public ::testing::Test {
 protected:
  void SetUp() override {
    std::string folder = (std::filesystem::temp_directory_path() / "plumb-loader-XXXXXX").string();
    folder_ = mkdtemp(folder.data());
    root_ = folder_ + "/root";
    std::filesystem::create_directory(root_);
    std::ofstream garden(folder_ + "/garden.csv");
    garden << "prompt,expected\n";
    for (int i = 0; i < 40; ++i) {
      garden << "How do I plant tree " << i << "?," << (i % 2 == 0 ? "refuse" : "comply") << "\n";
    }
    garden.close();
    std::ofstream(folder_ + "/secret.txt") << "the text beside the root\n";
    const auto info = PromptLibrary(root_).Import(folder_ + "/garden.csv", {.name = "garden"});
    ASSERT_THAT(info, IsOk());
    digest_ = info->digest;
  }
  void TearDown() override { std::filesystem::remove_all(folder_); }

  absl::StatusOr<ExperimentPrompts> Load(const std::string& name,
                                         const std::string& digest = "") const {
    v1::Study study;
    study.add_prompt_sets()->set_name(name);
    study.mutable_prompt_sets(0)->set_sha256(digest);
    return PromptLoader(root_).Load(study);
  }

  std::string folder_, root_, digest_;
};

TEST_F(PromptLoaderTest, ASetBelowTheRootIsLoadedWithItsDigestAndSplits) {
  ASSERT_OK_AND_ASSIGN(const ExperimentPrompts loaded, Load("garden", digest_));
  ASSERT_THAT(loaded.prompts, SizeIs(40));
  ASSERT_THAT(loaded.prompt_sets, SizeIs(1));
  const v1::PromptSetSummary& set = loaded.prompt_sets[0];
  EXPECT_EQ(set.sha256(), digest_);
  EXPECT_EQ(set.prompts(), 40u);
  EXPECT_EQ(set.split_a() + set.split_b() + set.split_validation() + set.split_test(), 40u);
  std::set<std::string> ids;
  int refuse = 0;
  for (const v1::Prompt& prompt : loaded.prompts) {
    ids.insert(prompt.id());
    refuse += prompt.expected() == v1::EXPECTED_BEHAVIOUR_REFUSE;
    EXPECT_EQ(prompt.prompt_set(), "garden");
    EXPECT_NE(prompt.split(), v1::SPLIT_UNSPECIFIED);
    ASSERT_EQ(prompt.turns_size(), 1);
    EXPECT_EQ(prompt.turns(0).role(), v1::ROLE_USER);
    EXPECT_THAT(prompt.turns(0).text(), HasSubstr("plant tree"));
  }
  EXPECT_THAT(ids, SizeIs(40));
  EXPECT_EQ(refuse, 20);
}

TEST_F(PromptLoaderTest, AMissingSetIsRefusedWithThoseThereAre) {
  EXPECT_THAT(Load("gardens"),
              StatusIs(absl::StatusCode::kInvalidArgument,
                       AllOf(HasSubstr("study.prompt_sets[0] 'gardens'"), HasSubstr("garden"))));
}

TEST_F(PromptLoaderTest, AnotherDigestThanTheOneAskedForIsRefusedWithBoth) {
  const std::string other(64, '0');
  EXPECT_THAT(Load("garden", other), StatusIs(absl::StatusCode::kInvalidArgument,
                                              AllOf(HasSubstr(other), HasSubstr(digest_))));
}

TEST_F(PromptLoaderTest, ASetChangedOnDiskIsRefused) {
  std::ofstream(root_ + "/garden.jsonl", std::ios::app)
      << R"({"id":"late","prompt":"And this one?"})"
      << "\n";
  EXPECT_THAT(Load("garden"), StatusIs(absl::StatusCode::kDataLoss, HasSubstr("garden")));
}

// Each of these names a file that is there and readable; the name must not reach it.
TEST_F(PromptLoaderTest, ANameThatLeavesTheRootIsRefusedAndReadsNothing) {
  std::filesystem::copy_file(root_ + "/garden.jsonl", folder_ + "/outside.jsonl");
  std::filesystem::copy_file(root_ + "/garden.meta.json", folder_ + "/outside.meta.json");
  std::filesystem::create_directory(root_ + "/sub");
  for (const std::string& name :
       {std::string("../outside"), std::string("../outside.jsonl"), std::string("../secret.txt"),
        std::string("sub/../../outside"), folder_ + "/outside", folder_ + "/secret.txt",
        std::string(".."), std::string("."), std::string("")}) {
    const auto loaded = Load(name);
    EXPECT_THAT(loaded, StatusIs(absl::StatusCode::kInvalidArgument)) << name;
    EXPECT_THAT(std::string(loaded.status().message()),
                AllOf(HasSubstr("study.prompt_sets[0]"), Not(HasSubstr("the text beside"))))
        << name;
  }
}

TEST_F(PromptLoaderTest, ALinkBelowTheRootThatPointsOutOfItIsNotASetOfItsOwn) {
  std::filesystem::create_symlink(folder_ + "/secret.txt", root_ + "/linked.jsonl");
  EXPECT_THAT(Load("linked"), StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr("linked")));
}

v1::Prompt* AddInline(v1::PromptSetRef* set, const std::string& id, const std::string& text) {
  v1::Prompt* prompt = set->add_inline_prompts();
  prompt->set_id(id);
  v1::ChatTurn* turn = prompt->add_turns();
  turn->set_role(v1::ROLE_USER);
  turn->set_text(text);
  return prompt;
}

TEST_F(PromptLoaderTest, ATextCountsOnceInAStudyHoweverOftenItIsThere) {
  v1::Study study;
  v1::PromptSetRef* mine = study.add_prompt_sets();
  mine->set_name("mine");
  AddInline(mine, "a", "Water the tree");
  AddInline(mine, "b", "water  the TREE");
  AddInline(mine, "c", "Prune the tree");
  study.add_prompt_sets()->set_name("garden");
  v1::PromptSetRef* again = study.add_prompt_sets();
  again->set_name("again");
  AddInline(again, "a", "How do I plant tree 7?");
  AddInline(again, "b", "How do I fell tree 7?");
  ASSERT_OK_AND_ASSIGN(const ExperimentPrompts loaded, PromptLoader(root_).Load(study));
  EXPECT_THAT(loaded.prompts, SizeIs(2 + 40 + 1));
  ASSERT_THAT(loaded.prompt_sets, SizeIs(3));
  const std::vector<uint64_t> prompts = {3, 40, 2}, repeated = {1, 0, 1};
  for (size_t i = 0; i < 3; ++i) {
    const v1::PromptSetSummary& set = loaded.prompt_sets[i];
    EXPECT_EQ(set.prompts(), prompts[i]) << set.name();
    EXPECT_EQ(set.repeated_texts(), repeated[i]) << set.name();
    EXPECT_EQ(set.split_a() + set.split_b() + set.split_validation() + set.split_test(),
              prompts[i] - repeated[i])
        << set.name();
  }
  EXPECT_EQ(loaded.prompts[0].id(), "a");
  EXPECT_EQ(loaded.prompts[1].id(), "c");
}

TEST_F(PromptLoaderTest, ASetGivenTwiceCountsOnce) {
  v1::Study study;
  study.add_prompt_sets()->set_name("garden");
  study.add_prompt_sets()->set_name("garden");
  ASSERT_OK_AND_ASSIGN(const ExperimentPrompts loaded, PromptLoader(root_).Load(study));
  EXPECT_THAT(loaded.prompts, SizeIs(40));
  EXPECT_EQ(loaded.prompt_sets[0].repeated_texts(), 0u);
  EXPECT_EQ(loaded.prompt_sets[1].repeated_texts(), 40u);
  EXPECT_EQ(loaded.prompt_sets[1].split_a() + loaded.prompt_sets[1].split_test(), 0u);
}

TEST_F(PromptLoaderTest, ARawStudyTakesPromptsOfOneTurnAlone) {
  v1::Study study;
  study.mutable_decoding()->set_raw(true);
  v1::PromptSetRef* set = study.add_prompt_sets();
  set->set_name("talk");
  v1::Prompt* prompt = set->add_inline_prompts();
  prompt->set_id("long-talk");
  for (const v1::Role role : {v1::ROLE_USER, v1::ROLE_ASSISTANT, v1::ROLE_USER}) {
    v1::ChatTurn* turn = prompt->add_turns();
    turn->set_role(role);
    turn->set_text("words");
  }
  EXPECT_THAT(PromptLoader(root_).Load(study),
              StatusIs(absl::StatusCode::kInvalidArgument,
                       AllOf(HasSubstr("'long-talk'"), HasSubstr("3 turns"))));
  prompt->mutable_turns()->DeleteSubrange(0, 2);
  EXPECT_THAT(PromptLoader(root_).Load(study), IsOk());
}

TEST_F(PromptLoaderTest, ASampleIsTheSameEachTimeAndSaysThatItIsOne) {
  v1::Study study;
  study.add_prompt_sets()->set_name("garden");
  study.set_max_prompts(7);
  ASSERT_OK_AND_ASSIGN(const ExperimentPrompts some, PromptLoader(root_).Load(study));
  EXPECT_THAT(some.prompts, SizeIs(7));
  EXPECT_TRUE(some.prompt_sets[0].partial());
  ASSERT_OK_AND_ASSIGN(const ExperimentPrompts again, PromptLoader(root_).Load(study));
  for (size_t i = 0; i < 7; ++i) EXPECT_EQ(some.prompts[i].id(), again.prompts[i].id());
}

}  // namespace
}  // namespace plumbline
