// Properties of the quantization kernels that hold on every device. The device is a parameter of
// the body (`QuantizeLanes`), so that another device's functions pass through the same checks.
#include "kernels/quantize.h"

#include <cmath>
#include <limits>
#include <random>
#include <string>
#include <tuple>
#include <vector>

#include "gtest/gtest.h"
#include "kernels/float_formats.h"

namespace plumbline {
namespace {

struct Blocks {
  std::vector<int32_t> group_begin;
  QuantLayout layout;
};

Blocks MakeBlocks(int32_t lanes, int32_t group, int64_t tokens_per_block, bool padded) {
  Blocks blocks;
  for (int32_t begin = 0; begin < lanes; begin += group) blocks.group_begin.push_back(begin);
  blocks.group_begin.push_back(lanes);
  blocks.layout.lanes = lanes;
  blocks.layout.groups = static_cast<int32_t>(blocks.group_begin.size()) - 1;
  blocks.layout.padded_group = padded ? group : 0;
  blocks.layout.tokens_per_block = tokens_per_block;
  return blocks;
}

struct Result {
  std::vector<float> scale, zero, values;
  std::vector<uint8_t> codes;
};

Result QuantizeLanes(const QuantSpec& spec, const Blocks& blocks, std::vector<float> lanes,
                     int64_t tokens) {
  QuantLayout layout = blocks.layout;
  layout.group_begin = blocks.group_begin.data();
  const int64_t count = ParameterCount(layout, tokens);
  std::vector<float> lo(count), hi(count);
  Result result{std::vector<float>(count), std::vector<float>(count), std::move(lanes),
                std::vector<uint8_t>(tokens * layout.lanes)};
  ResetStatistics(count, lo.data(), hi.data());
  AccumulateStatistics(spec, layout, result.values.data(), tokens, lo.data(), hi.data());
  ComputeParameters(spec, count, lo.data(), hi.data(), result.scale.data(), result.zero.data());
  RoundTrip(spec, layout, tokens, result.scale.data(), result.zero.data(), result.values.data(),
            result.codes.data());
  return result;
}

std::vector<float> RandomLanes(int64_t n, bool bf16) {
  std::mt19937 rng(static_cast<uint32_t>(n));
  std::normal_distribution<float> normal;
  std::vector<float> lanes(n);
  for (float& x : lanes) {
    x = normal(rng) * (rng() % 50 == 0 ? 30.0f : 1.0f);
    if (bf16) x = RoundToBf16(x);
  }
  return lanes;
}

bool SameBits(const std::vector<float>& a, const std::vector<float>& b) {
  if (a.size() != b.size()) return false;
  for (size_t i = 0; i < a.size(); ++i) {
    if (FloatBits(a[i]) != FloatBits(b[i])) return false;
  }
  return true;
}

using Parameters = std::tuple<QuantCode, QuantSymmetry, int, QuantElement, bool, QuantScaleType>;

class QuantizeTest : public ::testing::TestWithParam<Parameters> {
 protected:
  QuantSpec Spec() const {
    QuantSpec spec;
    std::tie(spec.code, spec.symmetry, spec.bits, spec.element, spec.native, spec.scale_type) =
        GetParam();
    return spec;
  }
  bool bf16() const { return Spec().element == QuantElement::kBf16; }
};

const struct {
  int32_t lanes, group;
  int64_t tokens, tokens_per_block;
  bool padded;
} kShapes[] = {{64, 64, 5, 0, false}, {192, 64, 7, 1, false}, {100, 32, 3, 1, true},
               {48, 1, 9, 0, false},  {48, 1, 9, 3, false},   {7, 7, 1, 0, false},
               {1, 1, 1, 1, false},   {33, 16, 0, 1, true}};

TEST_P(QuantizeTest, DecodingTheCodesGivesTheValuesBitForBit) {
  for (const auto& shape : kShapes) {
    const Blocks blocks =
        MakeBlocks(shape.lanes, shape.group, shape.tokens_per_block, shape.padded);
    const Result result = QuantizeLanes(
        Spec(), blocks, RandomLanes(shape.lanes * shape.tokens, bf16()), shape.tokens);
    std::vector<float> decoded(result.values.size());
    QuantLayout layout = blocks.layout;
    layout.group_begin = blocks.group_begin.data();
    DecodeLanes(Spec(), layout, shape.tokens, result.scale.data(), result.zero.data(),
                result.codes.data(), decoded.data());
    EXPECT_TRUE(SameBits(decoded, result.values)) << shape.lanes << " lanes";
  }
}

TEST_P(QuantizeTest, ValuesDoNotDependOnWhetherCodesAreWanted) {
  const Blocks blocks = MakeBlocks(100, 32, 1, true);
  Result with = QuantizeLanes(Spec(), blocks, RandomLanes(300, bf16()), 3);
  std::vector<float> without = RandomLanes(300, bf16());
  QuantLayout layout = blocks.layout;
  layout.group_begin = blocks.group_begin.data();
  RoundTrip(Spec(), layout, 3, with.scale.data(), with.zero.data(), without.data(), nullptr);
  EXPECT_TRUE(SameBits(with.values, without));
}

TEST_P(QuantizeTest, StatisticsDoNotDependOnHowTokensAreSplitIntoCalls) {
  const Blocks blocks = MakeBlocks(64, 16, 0, false);
  QuantLayout layout = blocks.layout;
  layout.group_begin = blocks.group_begin.data();
  const auto lanes = RandomLanes(64 * 10, bf16());
  std::vector<float> lo(4), hi(4), split_lo(4), split_hi(4);
  ResetStatistics(4, lo.data(), hi.data());
  AccumulateStatistics(Spec(), layout, lanes.data(), 10, lo.data(), hi.data());
  ResetStatistics(4, split_lo.data(), split_hi.data());
  for (int64_t t : {0, 3, 4}) {
    const int64_t tokens = t == 0 ? 3 : t == 3 ? 1 : 6;
    AccumulateStatistics(Spec(), layout, lanes.data() + t * 64, tokens, split_lo.data(),
                         split_hi.data());
  }
  EXPECT_TRUE(SameBits(hi, split_hi));
  if (HasZero(Spec())) {
    EXPECT_TRUE(SameBits(lo, split_lo));
  }
}

TEST_P(QuantizeTest, AllZeroRowsStayZero) {
  const Result result =
      QuantizeLanes(Spec(), MakeBlocks(64, 64, 1, false), std::vector<float>(64), 1);
  for (float x : result.values) EXPECT_EQ(x, 0);
}

TEST_P(QuantizeTest, ANotANumberReachesItsValueAndNoOtherToken) {
  auto lanes = RandomLanes(3 * 64, bf16());
  const Result clean = QuantizeLanes(Spec(), MakeBlocks(64, 64, 1, false), lanes, 3);
  lanes[64 + 5] = QuietNan();
  const Result result = QuantizeLanes(Spec(), MakeBlocks(64, 64, 1, false), lanes, 3);
  EXPECT_TRUE(std::isnan(result.values[64 + 5]));
  for (int i = 0; i < 64; ++i) {
    EXPECT_EQ(result.values[i], clean.values[i]);
    EXPECT_EQ(result.values[128 + i], clean.values[128 + i]);
  }
}

std::string ParameterName(const ::testing::TestParamInfo<Parameters>& info) {
  const auto& [code, symmetry, bits, element, native, scale] = info.param;
  static constexpr const char* kCodes[] = {"int", "e4m3", "e5m2"};
  static constexpr const char* kSymmetries[] = {"sym", "asym", "affine"};
  static constexpr const char* kScales[] = {"s32", "s16", "sb16"};
  return std::string(kCodes[static_cast<int>(code)]) + std::to_string(bits) +
         kSymmetries[static_cast<int>(symmetry)] +
         (element == QuantElement::kF32 ? "_f32" : "_bf16") + (native ? "_native_" : "_upcast_") +
         kScales[static_cast<int>(scale)];
}

INSTANTIATE_TEST_SUITE_P(
    Int, QuantizeTest,
    ::testing::Combine(
        ::testing::Values(QuantCode::kInt),
        ::testing::Values(QuantSymmetry::kSym, QuantSymmetry::kAsym, QuantSymmetry::kAffine),
        ::testing::Values(2, 3, 4, 5, 6, 8),
        ::testing::Values(QuantElement::kF32, QuantElement::kBf16), ::testing::Bool(),
        ::testing::Values(QuantScaleType::kF32, QuantScaleType::kF16, QuantScaleType::kBf16)),
    ParameterName);
INSTANTIATE_TEST_SUITE_P(
    Fp8, QuantizeTest,
    ::testing::Combine(::testing::Values(QuantCode::kFp8E4m3, QuantCode::kFp8E5m2),
                       ::testing::Values(QuantSymmetry::kSym), ::testing::Values(8),
                       ::testing::Values(QuantElement::kF32, QuantElement::kBf16),
                       ::testing::Bool(), ::testing::Values(QuantScaleType::kF32)),
    ParameterName);

TEST(RotateTest, IsItsOwnInverseAndKeepsLengths) {
  for (int32_t head_dim : {1, 2, 64, 256}) {
    const auto x = RandomLanes(head_dim * 3, false);
    auto y = x;
    RotateLanes(QuantSpec(), head_dim, 3, y.data());
    double before = 0, after = 0;
    for (size_t i = 0; i < x.size(); ++i) {
      before += double{x[i]} * x[i];
      after += double{y[i]} * y[i];
    }
    EXPECT_NEAR(after / before, 1, 1e-5);
    RotateLanes(QuantSpec(), head_dim, 3, y.data());
    for (size_t i = 0; i < x.size(); ++i) EXPECT_NEAR(y[i], x[i], 1e-4);
  }
}

TEST(GatherScatterTest, SelectedLanesOfStridedRowsComeBackToTheirPlaces) {
  const std::vector<int32_t> channels = {1, 2, 6};
  QuantLayout layout;
  layout.lanes = 3;
  layout.lane_channel = channels.data();
  std::vector<uint16_t> rows(2 * 10, 0x3f80);  // ones, row stride 10
  for (int i = 0; i < 20; ++i) rows[i] = Bf16FromFloat(static_cast<float>(i));
  const auto before = rows;
  std::vector<float> lanes(6);
  GatherLanes(layout, QuantElement::kBf16, rows.data(), 10, 2, lanes.data());
  EXPECT_EQ(lanes, (std::vector<float>{1, 2, 6, 11, 12, 16}));
  for (float& x : lanes) x += 100;
  ScatterLanes(layout, QuantElement::kBf16, lanes.data(), 2, rows.data(), 10);
  for (int i = 0; i < 20; ++i) {
    const bool selected = i % 10 == 1 || i % 10 == 2 || i % 10 == 6;
    EXPECT_EQ(FloatFromBf16(rows[i]), i + (selected ? 100 : 0));
    EXPECT_EQ(rows[i] == before[i], !selected);
  }
}

}  // namespace
}  // namespace plumbline
