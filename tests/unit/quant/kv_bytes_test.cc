#include <string>
#include <vector>

#include "services/quant/kv_format.h"
#include "services/quant/plan_parser.h"
#include "tests/support/status_matchers.h"

namespace plumbline {
namespace {

// One layer of 2 heads of 64 channels: 128 channels a token, keys and values.
KvBytes BytesOf(const std::string& text, int64_t tokens, int64_t prompt_tokens = -1) {
  const auto layers = ParsePlan(text)->Resolve(1, 2, 64);
  EXPECT_OK(layers);
  return KvBytesOfPlan(*layers, 2, 64, tokens, /*fp_bytes=*/2, prompt_tokens);
}

TEST(KvBytesTest, FullPrecisionIsAllFp) {
  const KvBytes bytes = BytesOf("*:fp", 100);
  EXPECT_EQ(bytes.fp, 2 * 100 * 128 * 2);
  EXPECT_EQ(bytes.total(), bytes.fp);
}

TEST(KvBytesTest, CodesAreCountedWithoutPadding) {
  EXPECT_EQ(BytesOf("*:int3.sym.tensor", 100).codes, 2 * 100 * 128 * 3 / 8.0);
  EXPECT_EQ(BytesOf("*:fp8_e4m3", 100).codes, 2 * 100 * 128);
  EXPECT_EQ(BytesOf("*:fp8_e4m3", 100).scales, 0);
}

TEST(KvBytesTest, EveryGranularityHasItsNumberOfScales) {
  EXPECT_EQ(BytesOf("*:int4.sym.token", 100).scales, 2 * 100 * 4);
  EXPECT_EQ(BytesOf("*:int4.asym.token", 100).scales, 2 * 100 * 4 * 2);
  EXPECT_EQ(BytesOf("*:int4.sym.token.perhead", 100).scales, 2 * 100 * 2 * 4);
  EXPECT_EQ(BytesOf("*:int4.sym.group48", 100).scales, 2 * 100 * 3 * 4);
  EXPECT_EQ(BytesOf("*:int4.sym.group48.perhead", 100).scales, 2 * 100 * 4 * 4);
  EXPECT_EQ(BytesOf("*:int4.sym.channel.prompt", 100).scales, 2 * 128 * 4);
  EXPECT_EQ(BytesOf("*:int4.affine.group32.s16", 100).scales, 2 * 100 * 4 * 2 * 2);
}

TEST(KvBytesTest, StepScopeBringsParametersWithEachDecodedToken) {
  EXPECT_EQ(BytesOf("*:int4.sym.tensor", 100).scales, 2 * 4);
  EXPECT_EQ(BytesOf("*:int4.sym.tensor", 100, 60).scales, 2 * (1 + 40) * 4);
  EXPECT_EQ(BytesOf("*:int4.sym.channel", 100, 60).scales, 2 * 128 * (1 + 40) * 4);
}

TEST(KvBytesTest, WindowsSinksAndUnselectedChannelsStayFp) {
  const double row = 128 * 2;
  EXPECT_EQ(BytesOf("*:fp|int4.affine.group32.window128", 300).fp, 300 * row + 128 * row);
  EXPECT_EQ(BytesOf("*:int4.affine.channel.window128x32|fp", 300).fp, 300 * row + 44 * row);
  EXPECT_EQ(BytesOf("*:int4.affine.channel.window128x32|fp", 300).scales, 8 * 128 * 2 * 4);
  EXPECT_EQ(BytesOf("*:int4.affine.channel.window128x32|fp", 127).codes, 0);
  EXPECT_EQ(BytesOf("*:int4.sym.token.sink4|fp", 10).fp, 10 * row + 4 * row);
  EXPECT_EQ(BytesOf("*:int4.sym.token.heads(1)|fp", 10).fp, 10 * row + 10 * row / 2);
  EXPECT_EQ(BytesOf("*:int4.sym.token.ch(0-2+64).perhead|fp", 10).scales, 10 * 2 * 4);
}

}  // namespace
}  // namespace plumbline
