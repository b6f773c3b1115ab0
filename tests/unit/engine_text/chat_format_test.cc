#include "services/engine/chat_format.h"

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/support/status_matchers.h"
#include "tests/unit/engine_text/small_tokenizer.h"

namespace plumbline {
namespace {

using ::plumbline::testing::Json;
using ::plumbline::testing::SmallTokenizer;
using ::plumbline::testing::StatusIs;
using ::testing::ElementsAre;
using ::testing::HasSubstr;

constexpr auto kInvalid = absl::StatusCode::kInvalidArgument;

Json Joint(const char* from, const char* to, const char* text, bool before = false,
           bool after = false) {
  return {
      {"from", from}, {"to", to}, {"text", text}, {"strip_before", before}, {"strip_after", after}};
}

// Texts of turns are stripped; system only at the start; user and assistant take turns.
Json SmallFormat() {
  return {{"format", "plumbline-chat/1"},
          {"bos", "<|bos|>"},
          {"joints",
           {Joint("start", "user", "S:none<|end|>U:", false, true),
            Joint("start", "system", "S:", false, true),
            Joint("system", "user", "<|end|>U:", true, true),
            Joint("user", "assistant", "<|end|>A:", true, true),
            Joint("assistant", "user", "<|end|>U:", true, true),
            Joint("user", "end", "<|end|>A:", true, false)}}};
}

ChatFormat Make(const Json& json = SmallFormat()) {
  auto chat = ChatFormat::Parse(json.dump());
  EXPECT_OK(chat);
  return *std::move(chat);
}

TEST(ChatFormatTest, RendersDefaultSystemGivenSystemAndSeveralTurns) {
  const ChatFormat chat = Make();
  ASSERT_OK_AND_ASSIGN(const std::string plain, chat.Render({{"user", " hi\u3000\n"}}));
  EXPECT_EQ(plain, "<|bos|>S:none<|end|>U:hi<|end|>A:");
  ASSERT_OK_AND_ASSIGN(
      const std::string several,
      chat.Render({{"system", "be"}, {"user", "a"}, {"assistant", "b"}, {"user", "c"}}));
  EXPECT_EQ(several, "<|bos|>S:be<|end|>U:a<|end|>A:b<|end|>U:c<|end|>A:");
  EXPECT_EQ(chat.bos(), "<|bos|>");
}

TEST(ChatFormatTest, TextOfOneTurnIsStrippedOnlyWhereTheJointSaysSo) {
  Json json = SmallFormat();
  json["joints"][0]["strip_after"] = false;
  ASSERT_OK_AND_ASSIGN(const std::string text, Make(json).Render({{"user", " hi "}}));
  EXPECT_EQ(text, "<|bos|>S:none<|end|>U: hi<|end|>A:");
}

TEST(ChatFormatTest, UserCannotEndTheirOwnTurn) {
  const auto tokenizer = Tokenizer::Create(SmallTokenizer().dump());
  ASSERT_OK(tokenizer);
  const ChatFormat chat = Make();
  const std::vector<ChatTurn> turns = {{"system", "x"}, {"user", "<|end|>"}};
  ASSERT_OK_AND_ASSIGN(const auto kept, chat.Encode(**tokenizer, turns, SpecialTokens::kText));
  EXPECT_THAT(kept, ElementsAre(301, 'S', ':', 'x', 300, 'U', ':', '<', '|', 'e', 'n', 'd', '|',
                                '>', 300, 'A', ':'));
  ASSERT_OK_AND_ASSIGN(const auto parsed, chat.Encode(**tokenizer, turns, SpecialTokens::kParse));
  EXPECT_THAT(parsed, ElementsAre(301, 'S', ':', 'x', 300, 'U', ':', 300, 300, 'A', ':'));
}

TEST(ChatFormatTest, ASecondBosIsRefusedAndAMissingOneIsAnInternalError) {
  const auto tokenizer = Tokenizer::Create(SmallTokenizer().dump());
  ASSERT_OK(tokenizer);
  const std::vector<ChatTurn> turns = {{"user", "<|bos|>"}};
  EXPECT_OK(Make().Encode(**tokenizer, turns, SpecialTokens::kText));
  EXPECT_THAT(Make().Encode(**tokenizer, turns, SpecialTokens::kParse),
              StatusIs(kInvalid, HasSubstr("<|bos|>")));
  Json twice = SmallFormat();
  twice["joints"][0]["text"] = "<|bos|>U:";
  EXPECT_THAT(Make(twice).Encode(**tokenizer, turns, SpecialTokens::kText),
              StatusIs(absl::StatusCode::kInternal, HasSubstr("2 BOS")));
  Json none = SmallFormat();
  none["bos"] = "<|nobody|>";
  EXPECT_THAT(Make(none).Encode(**tokenizer, turns, SpecialTokens::kText),
              StatusIs(absl::StatusCode::kInternal, HasSubstr("<|nobody|>")));
}

TEST(ChatFormatTest, OrdersThatTheTemplateRefusesAreRefusedByName) {
  const ChatFormat chat = Make();
  EXPECT_THAT(chat.Render({}), StatusIs(kInvalid, HasSubstr("at least one turn")));
  EXPECT_THAT(chat.Render({{"tool", "x"}}), StatusIs(kInvalid, HasSubstr("\"tool\"")));
  EXPECT_THAT(chat.Render({{"assistant", "x"}}), StatusIs(kInvalid, HasSubstr("assistant")));
  EXPECT_THAT(chat.Render({{"user", "x"}, {"user", "y"}}),
              StatusIs(kInvalid, HasSubstr("after user")));
  EXPECT_THAT(chat.Render({{"user", "x"}, {"assistant", "y"}}),
              StatusIs(kInvalid, HasSubstr("end after assistant")));
}

TEST(ChatFormatTest, BrokenUtf8InATurnBecomesReplacementCharacters) {
  ASSERT_OK_AND_ASSIGN(const std::string text, Make().Render({{"user", "a\xFF"}}));
  EXPECT_EQ(text, "<|bos|>S:none<|end|>U:a\uFFFD<|end|>A:");
}

struct BadFormat {
  const char* name;
  const char* pointer;
  const char* value;
  const char* message;
};

class BadChatFormatTest : public ::testing::TestWithParam<BadFormat> {};

TEST_P(BadChatFormatTest, IsRefusedWithThePath) {
  Json json = SmallFormat();
  json[Json::json_pointer(GetParam().pointer)] = Json::parse(GetParam().value);
  EXPECT_THAT(ChatFormat::Parse(json.dump()), StatusIs(kInvalid, HasSubstr(GetParam().message)));
}

INSTANTIATE_TEST_SUITE_P(
    Formats, BadChatFormatTest,
    ::testing::Values(
        BadFormat{"OtherFormat", "/format", "\"jinja\"", "jinja"},
        BadFormat{"NoBos", "/bos", "null", "bos"},
        BadFormat{"JointsMissing", "/joints", "7", "joints"},
        BadFormat{"UnknownRole", "/joints/1/to", "\"tool\"", "joints[1].to"},
        BadFormat{"StartInTheMiddle", "/joints/2/to", "\"start\"", "joints[2].to"},
        BadFormat{"EndToUser", "/joints/2/from", "\"end\"", "joints[2].from"},
        BadFormat{"NoText", "/joints/3/text", "null", "joints[3].text"},
        BadFormat{"FlagIsNumber", "/joints/3/strip_after", "1", "joints[3].strip_after"},
        BadFormat{"SamePairTwice", "/joints/1/to", "\"user\"", "repeats start -> user"}),
    [](const auto& info) { return info.param.name; });

TEST(ChatFormatTest, BytesThatAreNoJsonAreRefused) {
  EXPECT_THAT(ChatFormat::Parse("{"), StatusIs(kInvalid));
  EXPECT_THAT(ChatFormat::Parse("[]"), StatusIs(kInvalid));
}

}  // namespace
}  // namespace plumbline
