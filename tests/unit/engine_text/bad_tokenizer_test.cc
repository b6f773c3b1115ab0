#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "services/engine/tokenizer.h"
#include "tests/support/status_matchers.h"
#include "tests/unit/engine_text/small_tokenizer.h"

namespace plumbline {
namespace {

using ::plumbline::testing::Json;
using ::plumbline::testing::SmallTokenizer;
using ::plumbline::testing::StatusIs;
using ::testing::HasSubstr;

constexpr auto kInvalid = absl::StatusCode::kInvalidArgument;

struct BadFile {
  const char* name;
  const char* pointer;  // where the sound file is changed
  const char* value;    // to what
  std::vector<std::string> message;
};

class BadTokenizerTest : public ::testing::TestWithParam<BadFile> {};

TEST_P(BadTokenizerTest, IsRefusedWithTheValue) {
  Json json = SmallTokenizer();
  json[Json::json_pointer(GetParam().pointer)] = Json::parse(GetParam().value);
  const absl::Status status = Tokenizer::Create(json.dump()).status();
  EXPECT_EQ(status.code(), kInvalid) << status;
  for (const std::string& part : GetParam().message) {
    EXPECT_THAT(std::string(status.message()), HasSubstr(part));
  }
}

INSTANTIATE_TEST_SUITE_P(
    Files, BadTokenizerTest,
    ::testing::Values(
        BadFile{"NoModel", "/model", "null", {"model"}},
        BadFile{"Unigram", "/model/type", "\"Unigram\"", {"model.type", "Unigram", "BPE"}},
        BadFile{"ByteFallback", "/model/byte_fallback", "true", {"byte_fallback"}},
        BadFile{"Dropout", "/model/dropout", "0.1", {"dropout", "0.1"}},
        BadFile{"WordPrefix",
                "/model/continuing_subword_prefix",
                "\"##\"",
                {"continuing_subword_prefix", "##"}},
        BadFile{
            "WordSuffix", "/model/end_of_word_suffix", "\"</w>\"", {"end_of_word_suffix", "</w>"}},
        BadFile{
            "UnknownTokenNotInVocabulary", "/model/unk_token", "\"<unk>\"", {"unk_token", "<unk>"}},
        BadFile{"VocabularyIsList", "/model/vocab", "[1]", {"vocab", "[1]"}},
        BadFile{"EmptyVocabulary", "/model/vocab", "{}", {"vocab"}},
        BadFile{"NegativeId", "/model/vocab/he", "-1", {"\"he\"", "-1"}},
        BadFile{"HugeId", "/model/vocab/he", "4294967296", {"\"he\"", "4294967296"}},
        BadFile{"FractionalId", "/model/vocab/he", "1.5", {"\"he\"", "1.5"}},
        BadFile{"SameIdTwice", "/model/vocab/he", "65", {"65"}},
        BadFile{"NoMerges", "/model/merges", "null", {"merges"}},
        BadFile{"MergeWithoutSpace", "/model/merges/0", "\"he\"", {"merges[0]", "he"}},
        BadFile{"MergeOfThree", "/model/merges/0", "\"h e l\"", {"merges[0]", "h e l"}},
        BadFile{"MergeOfOne", "/model/merges/1", "[\"l\"]", {"merges[1]"}},
        BadFile{"MergeUnresolved", "/model/merges/0", "\"x y\"", {"merges[0]", "\"xy\""}},
        BadFile{"NoPreTokenizer", "/pre_tokenizer", "null", {"pre_tokenizer"}},
        BadFile{"OtherPreTokenizer",
                "/pre_tokenizer/type",
                "\"Metaspace\"",
                {"Metaspace", "ByteLevel"}},
        BadFile{"NoByteLevelStep", "/pre_tokenizer", R"({"type": "Digits"})", {"ByteLevel"}},
        BadFile{"SplitWithoutPattern",
                "/pre_tokenizer",
                R"({"type": "Split", "behavior": "Isolated"})",
                {"pattern"}},
        BadFile{"SplitBehavior",
                "/pre_tokenizer",
                R"({"type": "Split", "behavior": "Glued", "pattern": {"String": "a"}})",
                {"behavior", "Glued"}},
        BadFile{"RegexDoesNotClose",
                "/pre_tokenizer",
                R"({"type": "Split", "behavior": "Isolated", "pattern": {"Regex": "(a"}})",
                {"(a"}},
        BadFile{"RegexOfAnotherDialect",
                "/pre_tokenizer",
                R"({"type": "Split", "behavior": "Isolated", "pattern": {"Regex": "[a&&[^b]]"}})",
                {"&&", "byte 2"}},
        BadFile{"OtherNormalizer",
                "/normalizer",
                R"({"type": "BertNormalizer"})",
                {"BertNormalizer", "NFC"}},
        BadFile{"OtherDecoder", "/decoder", R"({"type": "Metaspace"})", {"decoder", "Metaspace"}},
        BadFile{"NoDecoder", "/decoder", "null", {"decoder"}},
        BadFile{"AddedWithoutContent",
                "/added_tokens/0/content",
                "null",
                {"added_tokens[0]", "content"}},
        BadFile{"AddedIdIsText", "/added_tokens/1/id", "\"7\"", {"added_tokens[1]", "\"7\""}},
        BadFile{"AddedIdTaken", "/added_tokens/0/id", "65", {"added_tokens[0]", "65"}},
        BadFile{"AddedIdNotTheVocabularys",
                "/added_tokens/0/content",
                "\"he\"",
                {"added_tokens[0]", "256", "300"}},
        BadFile{
            "AddedFlagIsText", "/added_tokens/0/special", "\"yes\"", {"added_tokens[0]", "yes"}}),
    [](const auto& info) { return info.param.name; });

TEST(BadTokenizerTest, BytesThatAreNoJsonObjectAreRefused) {
  for (const std::string bytes :
       {"", "{", "[]", "null", "{\"a\": NaN}", "\xff\xfe", "{\"a\":\"\xff\"}"}) {
    EXPECT_THAT(Tokenizer::Create(bytes), StatusIs(kInvalid, HasSubstr("tokenizer.json")));
  }
}

TEST(BadTokenizerTest, DeepNestingIsRefusedNotFollowed) {
  Json nested = {{"type", "NFC"}};
  for (int i = 0; i < 50; ++i) nested = {{"type", "Sequence"}, {"normalizers", {nested}}};
  Json json = SmallTokenizer();
  json["normalizer"] = nested;
  EXPECT_THAT(Tokenizer::Create(json.dump()), StatusIs(kInvalid, HasSubstr("nested")));
}

}  // namespace
}  // namespace plumbline
