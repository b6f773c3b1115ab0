#include "services/engine/tokenizer.h"

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/support/status_matchers.h"
#include "tests/unit/engine_text/small_tokenizer.h"

namespace plumbline {
namespace {

using ::plumbline::testing::Json;
using ::plumbline::testing::SmallTokenizer;
using ::testing::ElementsAre;
using ::testing::IsEmpty;

std::unique_ptr<Tokenizer> Make(const Json& json = SmallTokenizer()) {
  auto tokenizer = Tokenizer::Create(json.dump());
  EXPECT_OK(tokenizer);
  return *std::move(tokenizer);
}

TEST(TokenizerTest, MergesByRankInBothEncodings) {
  const auto tokenizer = Make();
  EXPECT_THAT(tokenizer->Encode("hello hello", SpecialTokens::kText), ElementsAre(259, 260));
  EXPECT_THAT(tokenizer->Encode("helloo", SpecialTokens::kText), ElementsAre(259, 'o'));
  EXPECT_THAT(tokenizer->Encode("hhe", SpecialTokens::kText), ElementsAre('h', 256));
  EXPECT_THAT(tokenizer->Encode("", SpecialTokens::kText), IsEmpty());
  EXPECT_EQ(tokenizer->vocab_size(), 303);
}

TEST(TokenizerTest, EarlierMergeWinsOverLeftmost) {
  Json json = SmallTokenizer();
  json["model"]["vocab"]["ell"] = 261;
  json["model"]["merges"] = {"e l", "l l"};
  json["model"]["vocab"]["el"] = 262;
  EXPECT_THAT(Make(json)->Encode("ell", SpecialTokens::kText), ElementsAre(262, 'l'));
  json["model"]["merges"] = {"l l", "e l"};
  EXPECT_THAT(Make(json)->Encode("ell", SpecialTokens::kText), ElementsAre('e', 257));
}

TEST(TokenizerTest, SpecialLookAlikeStaysTextUnlessParsed) {
  const auto tokenizer = Make();
  EXPECT_THAT(tokenizer->Encode("h<|end|>", SpecialTokens::kParse), ElementsAre('h', 300));
  EXPECT_THAT(tokenizer->Encode("h<|end|>", SpecialTokens::kText),
              ElementsAre('h', '<', '|', 'e', 'n', 'd', '|', '>'));
  EXPECT_THAT(tokenizer->Encode("<tool>", SpecialTokens::kText), ElementsAre(302));
  EXPECT_TRUE(tokenizer->is_special(300));
  EXPECT_FALSE(tokenizer->is_special(302));
}

TEST(TokenizerTest, MixedTextFindsSpecialTokensOutsidePlainSpansOnly) {
  const auto tokenizer = Make();
  const std::string text = "<|bos|><|end|><|end|>";
  EXPECT_THAT(tokenizer->EncodeMixed(text, {{7, 14}}),
              ElementsAre(301, '<', '|', 'e', 'n', 'd', '|', '>', 300));
}

TEST(TokenizerTest, UserTextCannotCompleteOrHideATokenOfTheTemplate) {
  const auto tokenizer = Make();
  // The user's "<|en" runs into the template's "d|>", and the template's own token follows.
  EXPECT_THAT(tokenizer->EncodeMixed("<|end|><|end|>", {{0, 4}}),
              ElementsAre('<', '|', 'e', 'n', 'd', '|', '>', 300));
  // A longer special token that would begin in the template's text and end in the user's.
  Json json = SmallTokenizer();
  Json longer = json["added_tokens"][0];
  longer["id"] = 303;
  longer["content"] = "<|end|>x";
  json["added_tokens"].push_back(longer);
  EXPECT_THAT(Make(json)->EncodeMixed("<|end|>x", {{7, 8}}), ElementsAre(300, 'x'));
  EXPECT_THAT(Make(json)->EncodeMixed("<|end|>x", {}), ElementsAre(303));
}

TEST(TokenizerTest, IgnoreMergesTakesWholeWordsButNeverASpecialOneFromText) {
  Json json = SmallTokenizer();
  json["model"]["ignore_merges"] = true;
  json["model"]["vocab"]["lo"] = 263;
  json["model"]["vocab"]["END"] = 264;
  Json special = json["added_tokens"][0];
  special["id"] = 264;
  special["content"] = "END";
  json["added_tokens"].push_back(special);
  const auto tokenizer = Make(json);
  EXPECT_THAT(tokenizer->Encode("lo", SpecialTokens::kText), ElementsAre(263));
  EXPECT_THAT(tokenizer->Encode("END", SpecialTokens::kText), ElementsAre('E', 'N', 'D'));
  EXPECT_THAT(tokenizer->Encode("END", SpecialTokens::kParse), ElementsAre(264));
}

TEST(TokenizerTest, BrokenUtf8IsEncodedAsReplacementCharacters) {
  const auto tokenizer = Make();
  EXPECT_EQ(tokenizer->Encode("a\xE2\x82z\xFF", SpecialTokens::kText),
            tokenizer->Encode("a\xEF\xBF\xBDz\xEF\xBF\xBD", SpecialTokens::kText));
}

TEST(TokenizerTest, BytesWithoutATokenAreDroppedAndListed) {
  Json json = SmallTokenizer();
  json["model"]["vocab"].erase("z");
  const auto tokenizer = Make(json);
  EXPECT_THAT(tokenizer->dropped_bytes(), ElementsAre('z'));
  EXPECT_THAT(tokenizer->Encode("azb", SpecialTokens::kText), ElementsAre('a', 'b'));
  EXPECT_THAT(Make()->dropped_bytes(), IsEmpty());
}

TEST(TokenizerTest, UnknownTokenStandsForThemWhereTheFileNamesOne) {
  Json json = SmallTokenizer();
  json["model"]["vocab"].erase("z");
  json["model"]["unk_token"] = "?";
  EXPECT_THAT(Make(json)->Encode("azzb", SpecialTokens::kText), ElementsAre('a', '?', '?', 'b'));
  json["model"]["fuse_unk"] = true;
  EXPECT_THAT(Make(json)->Encode("azzb", SpecialTokens::kText), ElementsAre('a', '?', 'b'));
  EXPECT_THAT(Make(json)->dropped_bytes(), IsEmpty());
}

TEST(TokenizerTest, DigitsAreSplitOneByOneWhereTheFileSaysSo) {
  Json json = SmallTokenizer();
  json["model"]["vocab"]["12"] = 265;
  json["model"]["merges"].push_back("1 2");
  EXPECT_THAT(Make(json)->Encode("12", SpecialTokens::kText), ElementsAre(265));
  json["pre_tokenizer"] = {{"type", "Sequence"},
                           {"pretokenizers",
                            {{{"type", "Digits"}, {"individual_digits", true}},
                             {{"type", "ByteLevel"}, {"add_prefix_space", false}}}}};
  EXPECT_THAT(Make(json)->Encode("12", SpecialTokens::kText), ElementsAre('1', '2'));
}

TEST(TokenizerTest, NfcJoinsWhatWasApart) {
  Json json = SmallTokenizer();
  json["normalizer"] = {{"type", "NFC"}};
  EXPECT_THAT(Make(json)->Encode("e\u0301", SpecialTokens::kText), ElementsAre(0xC3, 0xA9));
  EXPECT_THAT(Make()->Encode("e\u0301", SpecialTokens::kText), ElementsAre('e', 0xCC, 0x81));
}

TEST(TokenizerTest, DecodesBytesAndLeavesSpecialTokensOutOnRequest) {
  const auto tokenizer = Make();
  EXPECT_EQ(tokenizer->Decode({259, 300, 260}, /*skip_special=*/true), "hello hello");
  EXPECT_EQ(tokenizer->Decode({259, 300}, /*skip_special=*/false), "hello<|end|>");
  EXPECT_EQ(tokenizer->Decode({0xE2, 0x82, 'z', 9999, -1}, true), "\uFFFDz");
  EXPECT_EQ(tokenizer->TokenBytes(0xE2, true), "\xE2");
}

TEST(IncrementalDecoderTest, HoldsACharacterBackUntilItIsWhole) {
  const auto tokenizer = Make();
  IncrementalDecoder decoder(tokenizer.get());
  EXPECT_EQ(decoder.Push('a'), "a");
  EXPECT_EQ(decoder.Push(0xF0), "");
  EXPECT_EQ(decoder.Push(0x9F), "");
  EXPECT_EQ(decoder.Push(0x98), "");
  EXPECT_EQ(decoder.Push(0x80), "\U0001F600");
  EXPECT_EQ(decoder.Finish(), "");
}

TEST(IncrementalDecoderTest, BrokenSequenceIsReplacedAsSoonAsItIsKnownToBeBroken) {
  const auto tokenizer = Make();
  IncrementalDecoder decoder(tokenizer.get());
  EXPECT_EQ(decoder.Push(0xE2), "");
  EXPECT_EQ(decoder.Push('x'), "\uFFFDx");
  EXPECT_EQ(decoder.Push(0xFF), "\uFFFD");
  EXPECT_EQ(decoder.Push(0xE2), "");
  EXPECT_EQ(decoder.Push(300), "");
  EXPECT_EQ(decoder.Finish(), "\uFFFD");
  EXPECT_EQ(decoder.Finish(), "");
}

TEST(TokenizerTest, AMegabyteOfOneLetterIsEncodedInMoments) {
  const auto tokenizer = Make();
  EXPECT_EQ(tokenizer->Encode(std::string(1 << 20, 'l'), SpecialTokens::kText).size(), 1u << 19);
}

}  // namespace
}  // namespace plumbline
