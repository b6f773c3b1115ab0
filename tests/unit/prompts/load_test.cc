#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "services/common/digest.h"
#include "services/prompts/prompt_set.h"
#include "tests/support/status_matchers.h"

namespace plumbline {
namespace {

PromptSet Parse(const std::string& bytes, const std::string& where, LoadOptions options = {}) {
  auto set = ParsePromptText(bytes, where, options);
  EXPECT_OK(set);
  return set.ok() ? *set : PromptSet{};
}

TEST(Load, TextFileCountsCommentsAndBlankLines) {
  const PromptSet set = Parse("# head\nfirst\n\n  second \r\n# x\n", "dir/mine.txt");
  ASSERT_EQ(set.prompts.size(), 2u);
  EXPECT_EQ(set.name, "mine");
  EXPECT_EQ(set.prompts[0].id, "mine-0001");
  EXPECT_EQ(LastUserText(set.prompts[1]), "second");
  EXPECT_EQ(set.report.comment_lines, 2);
  EXPECT_EQ(set.report.blank_lines, 1);
  EXPECT_EQ(set.report.rows, 2);
  EXPECT_EQ(set.report.format, "txt");
}

TEST(Load, OwnCsvWithAllColumns) {
  const PromptSet set = Parse(
      "prompt,id,system,expected,category,family\n\"hello, you\",p1,Be kind,comply,chat,greeting\n"
      "bye,,,,,\n",
      "own.csv", {.default_category = "misc", .default_expected = Expected::kRefuse});
  ASSERT_EQ(set.prompts.size(), 2u);
  EXPECT_EQ(set.prompts[0], (Prompt{"p1",
                                    {{"system", "Be kind"}, {"user", "hello, you"}},
                                    "chat",
                                    "greeting",
                                    Expected::kComply,
                                    "own"}));
  EXPECT_EQ(set.prompts[1],
            (Prompt{"own-0002", {{"user", "bye"}}, "misc", "", Expected::kRefuse, "own"}));
}

TEST(Load, AdvBenchColumnsExpectRefusalAndIgnoreTheTarget) {
  const PromptSet set = Parse("goal,target\nDo it,\"Sure, here\"\n", "advbench.csv");
  EXPECT_EQ(set.report.format, "csv/advbench");
  EXPECT_EQ(LastUserText(set.prompts[0]), "Do it");
  EXPECT_EQ(set.prompts[0].expected, Expected::kRefuse);
}

TEST(Load, HarmBenchContextGoesBeforeTheBehavior) {
  const PromptSet set = Parse(
      "Behavior,FunctionalCategory,SemanticCategory,Tags,ContextString,BehaviorID\r\n"
      "Explain this,contextual,cyber,context,\"line one\r\nline two\",b_1\r\n"
      "Say it,standard,cyber,,,b_2\r\n",
      "harmbench.csv");
  ASSERT_EQ(set.prompts.size(), 2u);
  EXPECT_EQ(LastUserText(set.prompts[0]), "line one\r\nline two\n\n---\n\nExplain this");
  EXPECT_EQ(LastUserText(set.prompts[1]), "Say it");
  EXPECT_EQ(set.prompts[0].category, "contextual");
  EXPECT_EQ(set.prompts[0].id, "b_1");
}

TEST(Load, XsTestLabelsGiveTheExpectedBehaviour) {
  const PromptSet set = Parse(
      "id,prompt,type,label,focus,note\n1,How?,homonyms,safe,kill,\n2,Why?,contrast,unsafe,,\n",
      "xstest.csv");
  EXPECT_EQ(set.prompts[0].expected, Expected::kComply);
  EXPECT_EQ(set.prompts[1].expected, Expected::kRefuse);
  EXPECT_EQ(set.prompts[1].id, "xstest-2");
  EXPECT_EQ(set.prompts[1].family, "contrast");
}

TEST(Load, JsonlWithTurnsSystemAndIfEvalRows) {
  const PromptSet set = Parse(
      "{\"id\":\"a\",\"turns\":[{\"role\":\"user\",\"text\":\"q1\"},{\"role\":\"assistant\","
      "\"text\":"
      "\"r1\"},{\"role\":\"user\",\"text\":\"q2 \\u00e9\"}],\"expected\":\"refuse\"}\n"
      "{\"key\": 1000, \"prompt\": \"p\", \"instruction_id_list\": [\"x\"], \"kwargs\": [{}]}\n",
      "f.jsonl");
  ASSERT_EQ(set.prompts.size(), 2u);
  EXPECT_EQ(LastUserText(set.prompts[0]), "q2 \xC3\xA9");
  EXPECT_EQ(NormalizedText(set.prompts[0]), "q1\nq2 \xC3\xA9");
  EXPECT_EQ(set.prompts[1].id, "f-1000");
  EXPECT_EQ(set.prompts[1].expected, Expected::kComply);
}

TEST(Load, ByteOrderMarkIsSkippedAndReported) {
  const PromptSet set = Parse("\xEF\xBB\xBFprompt\nhello\n", "f.csv");
  EXPECT_TRUE(set.report.had_bom);
  EXPECT_EQ(LastUserText(set.prompts[0]), "hello");
}

TEST(Load, RepeatedTextsAreKeptAndCounted) {
  const PromptSet set = Parse("Same  text\nsame text\nother\n", "f.txt");
  EXPECT_EQ(set.prompts.size(), 3u);
  EXPECT_EQ(set.report.repeated_texts, 1);
}

TEST(Load, CanonicalFormLoadsBackEqualAndItsBytesAreTheDigest) {
  const PromptSet set = Parse(
      "{\"prompt\":\"one \\\"q\\\" \\n two\",\"category\":\"c\",\"expected\":\"comply\"}\n"
      "{\"system\":\"s\",\"prompt\":\"two\",\"family\":\"f\"}\n"
      "{\"turns\":[{\"role\":\"system\",\"text\":\"s\"},{\"role\":\"user\",\"text\":\"a\"},"
      "{\"role\":\"assistant\",\"text\":\"b\"},{\"role\":\"user\",\"text\":\"\xF0\x9F\x98\x80\"}]}"
      "\n",
      "f.jsonl");
  const std::string canonical = ToCanonicalJsonl(set.prompts);
  EXPECT_EQ(set.digest, Sha256Hex(canonical));
  const PromptSet again = Parse(canonical, "other.jsonl", {.set_name = "f"});
  EXPECT_EQ(again.prompts, set.prompts);
  EXPECT_EQ(again.digest, set.digest);
}

TEST(Load, DigestTellsApartTextOrderIdAndExpectation) {
  const std::string base = "{\"id\":\"a\",\"prompt\":\"x\"}\n{\"id\":\"b\",\"prompt\":\"y\"}\n";
  const std::string digest = Parse(base, "f.jsonl").digest;
  for (const char* other : {"{\"id\":\"b\",\"prompt\":\"y\"}\n{\"id\":\"a\",\"prompt\":\"x\"}\n",
                            "{\"id\":\"a\",\"prompt\":\"x\"}\n{\"id\":\"c\",\"prompt\":\"y\"}\n",
                            "{\"id\":\"a\",\"prompt\":\"x\"}\n{\"id\":\"b\",\"prompt\":\"y \"}\n",
                            "{\"id\":\"a\",\"prompt\":\"x\",\"expected\":\"refuse\"}\n{\"id\":"
                            "\"b\",\"prompt\":\"y\"}\n"}) {
    EXPECT_NE(Parse(other, "f.jsonl").digest, digest) << other;
  }
  EXPECT_EQ(
      Parse("{\"prompt\":\"x\",\"id\":\"a\"}\n{\"id\":\"b\",\"prompt\":\"y\"}", "g.jsonl").digest,
      digest);
}

}  // namespace
}  // namespace plumbline
