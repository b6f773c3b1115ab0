#include "services/engine/text/utf8.h"

#include "gtest/gtest.h"
#include "services/engine/text/byte_level.h"

namespace plumbline {
namespace {

TEST(Utf8Test, EachMaximalBrokenPrefixBecomesOneReplacement) {
  EXPECT_EQ(ReplaceBrokenUtf8("ok \u00e9 \u4f60 \U0001F600"), "ok \u00e9 \u4f60 \U0001F600");
  EXPECT_EQ(ReplaceBrokenUtf8("\xF0\x9F\x98"), "\uFFFD");
  EXPECT_EQ(ReplaceBrokenUtf8("\xF0\x9F\x41"), "\uFFFDA");
  EXPECT_EQ(ReplaceBrokenUtf8("\xC0\xAF"), "\uFFFD\uFFFD");                      // overlong
  EXPECT_EQ(ReplaceBrokenUtf8("\xED\xA0\x80"), "\uFFFD\uFFFD\uFFFD");            // surrogate
  EXPECT_EQ(ReplaceBrokenUtf8("\xF4\x90\x80\x80"), "\uFFFD\uFFFD\uFFFD\uFFFD");  // above U+10FFFF
  EXPECT_EQ(ReplaceBrokenUtf8("\x80\xBF"), "\uFFFD\uFFFD");
}

TEST(Utf8Test, IncompleteTailIsWhatMoreBytesCouldComplete) {
  EXPECT_EQ(IncompleteTail("a"), 0u);
  EXPECT_EQ(IncompleteTail("a\xC3"), 1u);
  EXPECT_EQ(IncompleteTail("a\xE2\x82"), 2u);
  EXPECT_EQ(IncompleteTail("\xF0\x9F\x98"), 3u);
  EXPECT_EQ(IncompleteTail("\xF0\x9F\x98\x80"), 0u);
  EXPECT_EQ(IncompleteTail("\xED\xA0"), 0u);  // already broken
  EXPECT_EQ(IncompleteTail("\x82"), 0u);
}

TEST(ByteLevelTest, EveryByteHasACharacterOfItsOwnAndComesBack) {
  for (int byte = 0; byte < 256; ++byte) {
    const char raw = static_cast<char>(byte);
    EXPECT_EQ(CharacterToByte(ByteToCharacter(static_cast<uint8_t>(byte))), byte);
    EXPECT_EQ(FromByteLevel(ToByteLevel(absl::string_view(&raw, 1))), std::string(1, raw));
  }
  EXPECT_EQ(ByteToCharacter(' '), U'\u0120');
  EXPECT_EQ(ByteToCharacter('\n'), U'\u010A');
  EXPECT_EQ(ByteToCharacter('A'), U'A');
  EXPECT_EQ(CharacterToByte(U' '), -1);
  EXPECT_EQ(FromByteLevel("<two words>"), "<two words>");
}

}  // namespace
}  // namespace plumbline
