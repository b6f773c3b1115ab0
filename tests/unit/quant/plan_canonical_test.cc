// Resolving plans and their canonical text: equal behaviour, equal text, equal digest.
#include <random>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "services/quant/kv_format.h"
#include "services/quant/plan_parser.h"
#include "tests/support/status_matchers.h"

namespace plumbline {
namespace {

using ::testing::HasSubstr;
using testing::StatusIs;

constexpr int kLayers = 30, kHeads = 3, kHeadDim = 64;

std::vector<LayerFormat> Resolved(const std::string& text) {
  auto plan = ParsePlan(text);
  EXPECT_OK(plan) << text;
  auto layers = plan->Resolve(kLayers, kHeads, kHeadDim);
  EXPECT_OK(layers) << text;
  return layers.ok() ? *layers : std::vector<LayerFormat>();
}

std::string Canonical(const std::string& text) { return CanonicalPlanText(Resolved(text)); }

TEST(CanonicalPlanTest, EquivalentSpellingsGetOneText) {
  const std::pair<const char*, const char*> kCases[] = {
      {"*:int4.asym.token", "*:int4.asym.token"},
      {"0-29:int4.token.asym.step.joint.pre.seen.f32.s32", "*:int4.asym.token"},
      {"*:int4.asym.token|int4.asym.token", "*:int4.asym.token"},
      {"*:fp,7:int3.sym.tensor", "*:fp,7:int3.sym.tensor"},
      {"7:int3.sym.tensor,0-6+8-29:fp", "*:fp,7:int3.sym.tensor"},
      {"*:int3.sym.tensor,0-6+8-29:fp", "*:fp,7:int3.sym.tensor"},
      {"*:int4.asym.token,*:fp", "*:fp"},
      {"*:fp,3+1+2+2:int8.sym.token", "*:fp,1-3:int8.sym.token"},
      {"*:fp,5:int8.sym.token,1:int4.sym.token", "*:fp,1:int4.sym.token,5:int8.sym.token"},
      {"0-14:fp,15-29:int8.sym.token", "*:fp,15-29:int8.sym.token"},
      {"*:fp8_e4m3.tensor.satur", "*:fp8_e4m3"},
      {"*:fp8_e4m3.perhead", "*:fp8_e4m3"},
      {"*:int4.sym.channel.prompt.perhead", "*:int4.sym.channel.prompt"},
      {"*:int4.asym.token.post", "*:int4.asym.token.post"},
      {"*:int4.asym.token.post|int4.asym.token", "*:int4.asym.token.post"},
      {"*:int4.asym.token|int4.asym.token.post", "*:int4.asym.token"},
      {"*:int4.asym.token.heads(0-2)", "*:int4.asym.token"},
      {"*:int4.asym.token.heads(2,0)", "*:int4.asym.token.heads(0+2)"},
      {"*:int4.asym.token.ch(0-191)", "*:int4.asym.token"},
      {"*:int4.asym.token|fp", "*:int4.asym.token|fp"},
  };
  for (const auto& [text, canonical] : kCases) EXPECT_EQ(Canonical(text), canonical) << text;
}

// A random plan text that the grammar accepts, or nearly always does.
std::string RandomFormat(std::mt19937* rng) {
  const auto pick = [rng](std::vector<std::string> words) {
    return words[(*rng)() % words.size()];
  };
  if ((*rng)() % 5 == 0) return "fp";
  std::string text = pick({"int2", "int3", "int4", "int5", "int6", "int8"});
  text += "." + pick({"sym", "asym", "affine"}) + "." + pick({"tensor", "token", "group32"});
  for (const auto& options : std::vector<std::vector<std::string>>{{"", ".window64x8", ".step"},
                                                                   {"", ".perhead", ".joint"},
                                                                   {"", ".post", ".pre"},
                                                                   {"", ".exact", ".seen"},
                                                                   {"", ".native", ".f32"},
                                                                   {"", ".s16", ".sb16", ".s32"},
                                                                   {"", ".heads(1)", ".ch(3+70)"},
                                                                   {"", "", ".sink4"}}) {
    text += pick(options);
  }
  return text;
}

TEST(CanonicalPlanTest, CanonicalTextParsesBackToTheSameLayers) {
  std::mt19937 rng(7);
  for (int i = 0; i < 2000; ++i) {
    std::string text = absl::StrCat("*:", RandomFormat(&rng));
    for (int rule = rng() % 4; rule > 0; --rule) {
      const int first = rng() % kLayers, last = first + rng() % (kLayers - first);
      absl::StrAppend(&text, ",", first, "-", last, ":", RandomFormat(&rng),
                      rng() % 2 ? "|" + RandomFormat(&rng) : "");
    }
    const std::vector<LayerFormat> layers = Resolved(text);
    const std::string canonical = CanonicalPlanText(layers);
    EXPECT_EQ(Resolved(canonical), layers) << text << "\n" << canonical;
    EXPECT_EQ(Canonical(canonical), canonical) << text;
  }
}

TEST(CanonicalPlanTest, FormatTextParsesBack) {
  for (const char* text : {"fp", "int4.asym.token",
                           "int2.affine.group16.window64x8.post.perhead.exact.native.sb16."
                           "heads(0+2).sink4.hadamard",
                           "fp8_e5m2.channel.calibrated(0123abcd).s16.torchcast"}) {
    ASSERT_OK_AND_ASSIGN(const TensorFormat format, ParseFormat(text));
    EXPECT_EQ(FormatText(format), text);
  }
}

TEST(PlanDigestTest, EqualPlansHaveEqualDigestsAndOthersDiffer) {
  EXPECT_EQ(PlanDigest(Resolved("7:int3.sym.tensor,0-6+8-29:fp")),
            PlanDigest(Resolved("*:fp,7:int3.sym.tensor")));
  EXPECT_NE(PlanDigest(Resolved("*:fp,8:int3.sym.tensor")),
            PlanDigest(Resolved("*:fp,7:int3.sym.tensor")));
  EXPECT_EQ(PlanDigest(Resolved("*:fp")).size(), 64u);
}

TEST(PlanResolveTest, LaterRulesWin) {
  const auto layers = Resolved("*:fp,3-5:int4.sym.token,4:int8.sym.token");
  EXPECT_TRUE(layers[2].key.is_fp());
  EXPECT_EQ(layers[3].key.bits(), 4);
  EXPECT_EQ(layers[4].value.bits(), 8);
  EXPECT_EQ(layers[5].key.bits(), 4);
}

TEST(PlanResolveTest, WhatTheModelLacksIsRefusedWithRuleAndSize) {
  const std::pair<const char*, const char*> kCases[] = {
      {"0-28:fp", "no format for layers 29 of 30"},
      {"3:fp", "no format for layers 0-2+4-29 of 30"},
      {"*:fp,30:int4.sym.token", "layer 30 is not in 0 to 29"},
      {"*:int4.sym.token.heads(3)", "head 3 is not in 0 to 2"},
      {"*:fp|int4.sym.token.ch(192)", "channel 192 is not in 0 to 191"},
      {"*:int4.sym.group256", "group256 exceeds the 192 channels"},
  };
  for (const auto& [text, message] : kCases) {
    ASSERT_OK_AND_ASSIGN(const Plan plan, ParsePlan(text));
    EXPECT_THAT(plan.Resolve(kLayers, kHeads, kHeadDim),
                StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr(message)));
  }
  ASSERT_OK_AND_ASSIGN(const Plan plan, ParsePlan("*:int4.sym.token.hadamard"));
  EXPECT_OK(plan.Resolve(kLayers, kHeads, 64));
  EXPECT_THAT(plan.Resolve(kLayers, kHeads, 80),
              StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr("power of two")));
}

TEST(PlanResolveTest, FormatsThatWereNotParsedAreCheckedToo) {
  PlanRule rule;
  rule.format.key.type = KvType::kInt4;
  EXPECT_THAT(Plan({rule}).Resolve(kLayers, kHeads, kHeadDim),
              StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr("needs a symmetry")));
  EXPECT_THAT(CheckFormat(rule.format.key),
              StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr("'int4'")));
  EXPECT_OK(CheckFormat(TensorFormat()));
}

TEST(PlanResolveTest, AllFpCoversEveryLayer) {
  ASSERT_OK_AND_ASSIGN(const auto layers, Plan::AllFp().Resolve(2, kHeads, kHeadDim));
  EXPECT_EQ(CanonicalPlanText(layers), "*:fp");
}

}  // namespace
}  // namespace plumbline
