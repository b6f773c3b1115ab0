#include "services/quant/plan_parser.h"

#include <string>

#include "tests/support/status_matchers.h"

namespace plumbline {
namespace {

using ::testing::HasSubstr;
using testing::StatusIs;

struct BadPlan {
  const char* text;
  int character;  // where the caret stands, from 1
  const char* message;
};

const BadPlan kBadPlans[] = {
    // Structure.
    {"", 1, "expected a layer number"},
    {"   ", 4, "expected a layer number"},
    {"*", 2, "expected ':'"},
    {"*:", 3, "expected a type"},
    {"*;fp", 2, "expected ':'"},
    {"fp", 1, "bad layer 'fp'"},
    {"*:fp,", 6, "expected a layer number"},
    {",*:fp", 1, "expected a layer number"},
    {"*:fp;7:fp", 5, "expected '.', '|' or ','"},
    {"*:fp|", 6, "expected a type"},
    {"*:fp|fp|fp", 8, "expected '.', '|' or ','"},
    {"*:fp fp", 6, "expected '.', '|' or ','"},
    {"**:fp", 2, "expected ':'"},
    // Layers.
    {"7-:fp", 3, "expected a layer number"},
    {"-7:fp", 1, "expected a layer number"},
    {"7-3:fp", 1, "range 7-3 runs backwards"},
    {"1+:fp", 3, "expected a layer number"},
    {"1++2:fp", 3, "expected a layer number"},
    {"1,2:fp", 2, "expected ':'"},
    {"007:fp", 1, "bad layer '007'"},
    {"4096:fp", 1, "bad layer '4096'"},
    {"99999999999999999999:fp", 1, "bad layer '99999999999999999999'"},
    {"7a:fp", 1, "bad layer '7a'"},
    {"*+7:fp", 2, "expected ':'"},
    // Types.
    {"*:int8.asym.token|fp_8", 19, "unknown type 'fp_8'"},
    {"*:int7.sym.token", 3, "unknown type 'int7'"},
    {"*:INT4.asym.token", 3, "unknown type 'INT4'"},
    {"*:fp8.token", 3, "unknown type 'fp8'"},
    {"*:sym.int4.token", 3, "unknown type 'sym'"},
    // Options.
    {"*:fp.token", 6, "fp takes no options"},
    {"*:int4", 3, "int4 needs a symmetry"},
    {"*:int4.token", 3, "int4 needs a symmetry"},
    {"*:int4.asym", 3, "int4 needs a granularity"},
    {"*:int4.asym.", 13, "expected an option after '.'"},
    {"*:int4..asym", 8, "expected an option after '.'"},
    {"*:int4.asym.tokens", 13, "unknown option 'tokens'"},
    {"*:int4.asym.sym.token", 13, "a second symmetry option"},
    {"*:int4.asym.token.channel", 19, "a second granularity option"},
    {"*:int4.sym.tensor.prompt.step", 26, "a second scope option"},
    {"*:int4.asym.token.pre.post", 23, "a second place option"},
    {"*:int4.asym.token.seen.exact", 24, "a second prefill option"},
    {"*:int4.asym.token.f32.native", 23, "a second arith option"},
    {"*:int4.asym.token.s16.sb16", 23, "a second scale option"},
    {"*:int4.asym.token.joint.perhead", 25, "a second heads option"},
    {"*:int4.asym.token.sink4.sink4", 25, "a second sink option"},
    {"*:int4.asym.token.hadamard.hadamard", 28, "a second hadamard option"},
    {"*:int4.asym.token.heads(0).ch(1)", 28, "a second select option"},
    // Numbers.
    {"*:int4.sym.group", 12, "bad number ''"},
    {"*:int4.sym.group0", 12, "bad number '0'"},
    {"*:int4.sym.group1", 12, "bad number '1'"},
    {"*:int4.sym.group64k", 12, "bad number '64k'"},
    {"*:int4.sym.group65537", 12, "bad number '65537'"},
    {"*:int4.asym.token.sink0", 19, "bad number '0'"},
    {"*:int4.asym.token.sink", 19, "bad number ''"},
    {"*:int4.asym.token.window", 19, "bad number ''"},
    {"*:int4.asym.token.window0", 19, "bad number '0'"},
    {"*:int4.asym.token.window128x", 19, "bad number ''"},
    {"*:int4.asym.token.windowx32", 19, "bad number ''"},
    {"*:int4.asym.token.window128x32x2", 19, "bad number '32x2'"},
    // Lists and digests.
    {"*:int4.asym.token.heads", 24, "expected '('"},
    {"*:int4.asym.token.heads()", 25, "expected a head number"},
    {"*:int4.asym.token.heads(0", 26, "expected ')'"},
    {"*:int4.asym.token.ch(0-)", 24, "expected a channel number"},
    {"*:int4.asym.token.ch(9-2)", 22, "range 9-2 runs backwards"},
    {"*:int4.asym.token.ch(65536)", 22, "bad channel '65536'"},
    {"*:int4.sym.tensor.calibrated", 29, "expected '('"},
    {"*:int4.sym.tensor.calibrated()", 19, "calibration digest ''"},
    {"*:int4.sym.tensor.calibrated(abc)", 19, "calibration digest 'abc'"},
    {"*:int4.sym.tensor.calibrated(ABCDEF0123)", 19, "calibration digest 'ABCDEF0123'"},
    {"*:int4.sym.tensor.calibrated(xyzxyzxyz)", 19, "calibration digest 'xyzxyzxyz'"},
    // Combinations.
    {"*:int4.asym.channel", 13, "asym.channel.step returns about 0"},
    {"*:int4.asym.channel.step", 21, "asym.channel.step returns about 0"},
    {"*:int4.asym.token.prompt", 19, "prompt statistics need a granularity"},
    {"*:int4.asym.group64.prompt", 21, "prompt statistics need a granularity"},
    {"*:int4.asym.token.calibrated(01234567)", 19, "calibrated statistics need a granularity"},
    {"*:int4.affine.channel.window128", 23, "in a window need several tokens"},
    {"*:int4.sym.tensor.window128", 19, "in a window need several tokens"},
    {"*:int4.affine.channel.window128x1", 23, "in a window need several tokens"},
    {"*:int4.affine.channel.window100x32", 23, "no multiple of its flush of 32"},
    {"*:int4.asym.token.torchcast", 19, "torchcast is an fp8 option"},
    {"*:int4.asym.token.hadamard.ch(3)", 28, "hadamard mixes all channels"},
    {"*:int4.sym.tensor.hadamard.calibrated(01234567)", 19, "not rotated"},
    {"*:fp8_e4m3.sym", 12, "fp8 has no symmetry"},
    {"*:fp8_e4m3.prompt", 12, "unless calibrated"},
    {"*:fp8_e4m3.token", 12, "a granularity has no effect"},
    {"*:fp8_e4m3.token.calibrated(01234567)", 18, "calibrated statistics need a granularity"},
    {"*:fp8_e4m3.s16", 12, "stores no scale unless calibrated"},
    {"*:fp8_e5m2.window64x32", 12, "forms no statistics over tokens"},
    {"*:fp8_e4m3.satur.torchcast", 18, "a second fp8 overflow option"},
};

TEST(PlanParserTest, EveryBadPlanIsRefusedAtItsCharacter) {
  static_assert(std::size(kBadPlans) >= 40);
  for (const BadPlan& bad : kBadPlans) {
    const auto plan = ParsePlan(bad.text);
    ASSERT_THAT(plan, StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr(bad.message)))
        << bad.text;
    EXPECT_THAT(std::string(plan.status().message()),
                HasSubstr(" at character " + std::to_string(bad.character) + "\n"))
        << bad.text;
  }
}

TEST(PlanParserTest, TheCaretStandsUnderTheOffendingCharacterWithTheWayOutBelow) {
  EXPECT_EQ(ParsePlan("*:int8.asym.token|fp_8").status().message(),
            "plan: unknown type 'fp_8' at character 19\n"
            "  *:int8.asym.token|fp_8\n"
            "                    ^\n"
            "  types: fp int2 int3 int4 int5 int6 int8 fp8_e4m3 fp8_e5m2");
}

TEST(PlanParserTest, LongTextsAreCutRoundTheCaret) {
  const std::string text = std::string(300, ' ') + "*:bad" + std::string(300, ' ');
  const std::string message(ParsePlan(text).status().message());
  EXPECT_THAT(message, HasSubstr("at character 303"));
  EXPECT_LT(message.size(), 400u);
  const size_t excerpt = message.find("\n  ") + 3;
  const size_t caret_line = message.find("\n  ", excerpt) + 3;
  EXPECT_EQ(message.substr(excerpt + message.find('^') - caret_line, 3), "bad");
}

TEST(PlanParserTest, BytesOutsideAsciiAreShownAsQuestionMarks) {
  EXPECT_THAT(ParsePlan("*:\xff\x01").status(),
              StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr("  *:??\n")));
}

TEST(PlanParserTest, TextsAndListsBeyondTheLimitsAreRefused) {
  EXPECT_THAT(ParsePlan(std::string(70000, ' ')),
              StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr("70000 bytes")));
  std::string many = "*:fp";
  for (int i = 0; i < 300; ++i) many += ",0-4095:fp";
  EXPECT_THAT(ParsePlan(many), StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr("indices")));
}

TEST(PlanParserTest, TheKiviPlanHasItsTwoFormats) {
  ASSERT_OK_AND_ASSIGN(const Plan plan,
                       ParsePlan("*:int4.affine.channel.window128x32.post.perhead.exact|"
                                 "int4.affine.group32.window128.perhead.exact"));
  const TensorFormat& key = plan.rules().at(0).format.key;
  EXPECT_EQ(key.symmetry, Symmetry::kAffine);
  EXPECT_EQ(key.granularity, Granularity::kChannel);
  EXPECT_EQ(key.scope, Scope::kWindow);
  EXPECT_EQ(key.window, 128);
  EXPECT_EQ(key.window_flush, 32);
  EXPECT_EQ(key.place, RopePlace::kPostRope);
  EXPECT_EQ(key.prefill, PrefillReads::kExact);
  const TensorFormat& value = plan.rules().at(0).format.value;
  EXPECT_EQ(value.granularity, Granularity::kGroup);
  EXPECT_EQ(value.group_size, 32);
  EXPECT_EQ(value.window, 128);
  EXPECT_EQ(value.window_flush, 0);
  EXPECT_EQ(value.heads, HeadGrouping::kPerHead);
  EXPECT_EQ(value.place, RopePlace::kPreRope);
}

TEST(PlanParserTest, EveryOptionReachesItsField) {
  ASSERT_OK_AND_ASSIGN(const TensorFormat f,
                       ParseFormat("int6.sym.group48.post.perhead.exact.native.sb16."
                                   "heads(0+2-4).sink7.hadamard"));
  EXPECT_EQ(f.type, KvType::kInt6);
  EXPECT_EQ(f.bits(), 6);
  EXPECT_EQ(f.group_size, 48);
  EXPECT_EQ(f.place, RopePlace::kPostRope);
  EXPECT_EQ(f.heads, HeadGrouping::kPerHead);
  EXPECT_EQ(f.prefill, PrefillReads::kExact);
  EXPECT_EQ(f.arithmetic, Arithmetic::kNative);
  EXPECT_EQ(f.scale_type, ScaleType::kBf16);
  EXPECT_EQ(f.select_heads, (std::vector<int32_t>{0, 2, 3, 4}));
  EXPECT_EQ(f.sink_tokens, 7);
  EXPECT_TRUE(f.hadamard);
  ASSERT_OK_AND_ASSIGN(const TensorFormat fp8,
                       ParseFormat("fp8_e5m2.channel.calibrated(0123abcd).torchcast.s16"));
  EXPECT_EQ(fp8.calibration_digest, "0123abcd");
  EXPECT_EQ(fp8.fp8_overflow, Fp8Overflow::kTorchCast);
  EXPECT_EQ(fp8.scale_type, ScaleType::kF16);
}

TEST(PlanParserTest, BlanksAndOptionOrderDoNotMatter) {
  ASSERT_OK_AND_ASSIGN(const Plan spaced,
                       ParsePlan(" 0 - 2 + 5 : int4 . token\t. asym |\nfp , * : fp "));
  ASSERT_OK_AND_ASSIGN(const Plan tight, ParsePlan("0-2+5:int4.asym.token|fp,*:fp"));
  EXPECT_EQ(spaced.rules(), tight.rules());
}

TEST(PlanParserTest, OneFormatServesKeysAndValues) {
  ASSERT_OK_AND_ASSIGN(const Plan plan, ParsePlan("*:int4.asym.token"));
  EXPECT_EQ(plan.rules().at(0).format.key, plan.rules().at(0).format.value);
}

TEST(PlanParserTest, PaperQuirksAllowAsymChannelStep) {
  EXPECT_OK(ParsePlan("*:int4.asym.channel", {.paper_quirks = true}));
  EXPECT_OK(ParsePlan("*:int4.asym.channel.prompt"));
  EXPECT_OK(ParsePlan("*:int4.sym.channel.step"));
}

TEST(PlanParser, AFormatWithoutLayersIsOfferedAsAPlan) {
  for (const char* format :
       {"int4.asym.token", "int4.asym.token|fp", "fp", "fp,7:int3.sym.tensor"}) {
    EXPECT_THAT(ParsePlan(format), StatusIs(absl::StatusCode::kInvalidArgument,
                                            HasSubstr(std::string("did you mean *:") + format)));
  }
  // Where more is wrong than the layers, nothing is offered.
  for (const char* text : {"int4.asym", "int4", "7a:fp", "4096:fp", ""}) {
    const std::string message(ParsePlan(text).status().message());
    EXPECT_EQ(message.find("did you mean"), std::string::npos) << message;
  }
}

}  // namespace
}  // namespace plumbline
