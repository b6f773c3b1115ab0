// Row operations against double-precision references.
#include "kernels/row_ops.h"

#include <cmath>
#include <cstring>
#include <limits>
#include <random>
#include <vector>

#include "gtest/gtest.h"

namespace plumbline::kernels {
namespace {

constexpr float kInf = std::numeric_limits<float>::infinity();

std::vector<float> Normal(int64_t n, uint32_t seed, float scale = 1) {
  std::mt19937 random(seed);
  std::normal_distribution<float> normal(0, scale);
  std::vector<float> x(n);
  for (float& v : x) v = normal(random);
  return x;
}

std::vector<Bf16> AsBf16(const std::vector<float>& x) {
  std::vector<Bf16> out;
  for (float v : x) out.push_back(ToBf16(v));
  return out;
}

class RowOpsTest : public ::testing::TestWithParam<int64_t> {};
INSTANTIATE_TEST_SUITE_P(Widths, RowOpsTest,
                         ::testing::Values(1, 2, 15, 16, 17, 31, 64, 100, 576, 1536));

TEST_P(RowOpsTest, RmsNormIsWithinAFewRoundings) {
  const int64_t n = GetParam();
  const std::vector<float> x = Normal(n, 1), weight = Normal(n, 2);
  std::vector<float> out(n);
  RmsNormF32(x.data(), weight.data(), n, 1e-5f, out.data());
  double sum = 0;
  for (float v : x) sum += double{v} * v;
  const double inverse = 1 / std::sqrt(sum / n + 1e-5);
  for (int64_t i = 0; i < n; ++i) {
    const double expected = weight[i] * (x[i] * inverse);
    EXPECT_NEAR(out[i], expected, 6e-7 * std::abs(expected)) << i;
  }
}

TEST_P(RowOpsTest, SiluMulIsWithinAFewRoundings) {
  const int64_t n = GetParam();
  const std::vector<float> gate = Normal(n, 1, 10), up = Normal(n, 2);
  std::vector<float> out(n);
  SiluMulF32(gate.data(), up.data(), n, out.data());
  for (int64_t i = 0; i < n; ++i) {
    const double expected = gate[i] / (1 + std::exp(-double{gate[i]})) * up[i];
    EXPECT_NEAR(out[i], expected, 6e-7 * std::abs(expected)) << gate[i];
  }
}

TEST_P(RowOpsTest, AddIsExact) {
  const int64_t n = GetParam();
  const std::vector<float> x = Normal(n, 1), y = Normal(n, 2);
  std::vector<float> out = x;
  AddF32(y.data(), n, out.data());
  std::vector<Bf16> half = AsBf16(x);
  AddBf16(AsBf16(y).data(), n, half.data());
  for (int64_t i = 0; i < n; ++i) {
    EXPECT_EQ(out[i], x[i] + y[i]);
    EXPECT_EQ(half[i].bits, ToBf16(ToFloat(ToBf16(x[i])) + ToFloat(ToBf16(y[i]))).bits);
  }
}

TEST(RotateTest, PairsChannelsHalfAHeadApartAndWorksInPlace) {
  for (int head_dim : {8, 16, 24, 64, 80, 128}) {
    const int heads = 3, half = head_dim / 2;
    const std::vector<float> x = Normal(heads * head_dim, 4);
    std::vector<float> cos(half), sin(half), out(x.size());
    for (int i = 0; i < half; ++i) cos[i] = std::cos(0.3f * i), sin[i] = std::sin(0.3f * i);
    RotateF32(x.data(), heads, head_dim, cos.data(), sin.data(), out.data());
    for (int h = 0; h < heads; ++h) {
      for (int i = 0; i < half; ++i) {
        const float a = x[h * head_dim + i], b = x[h * head_dim + half + i];
        EXPECT_EQ(out[h * head_dim + i], a * cos[i] - b * sin[i]);
        EXPECT_EQ(out[h * head_dim + half + i], b * cos[i] + a * sin[i]);
      }
    }
    std::vector<float> in_place = x;
    RotateF32(in_place.data(), heads, head_dim, cos.data(), sin.data(), in_place.data());
    EXPECT_EQ(in_place, out);
  }
}

TEST(RotateTest, Bf16RoundsEachProductAndTheSum) {
  const std::vector<Bf16> x = AsBf16(Normal(32, 5));
  std::vector<float> cos(16), sin(16);
  for (int i = 0; i < 16; ++i) {
    cos[i] = ToFloat(ToBf16(std::cos(0.7f * i)));
    sin[i] = ToFloat(ToBf16(std::sin(0.7f * i)));
  }
  std::vector<Bf16> out(32);
  RotateBf16(x.data(), 1, 32, cos.data(), sin.data(), out.data());
  const auto rounded = [](float v) { return ToFloat(ToBf16(v)); };
  for (int i = 0; i < 16; ++i) {
    const float a = ToFloat(x[i]), b = ToFloat(x[16 + i]);
    EXPECT_EQ(out[i].bits, ToBf16(rounded(a * cos[i]) + rounded(-b * sin[i])).bits);
    EXPECT_EQ(out[16 + i].bits, ToBf16(rounded(b * cos[i]) + rounded(a * sin[i])).bits);
  }
}

// silu(x) = x / (1 + exp(-x)) with up = 1 reads exp off the kernel.
TEST(ExpTest, ExtremesAndNansPassThrough) {
  const std::vector<float> gate = {-kInf, kInf, -200, 200, 0, std::nanf(""), -88, 88};
  const std::vector<float> up(gate.size(), 1.0f);
  std::vector<float> out(gate.size());
  SiluMulF32(gate.data(), up.data(), static_cast<int64_t>(gate.size()), out.data());
  EXPECT_TRUE(std::isnan(out[0]));  // -inf / inf, as in torch
  EXPECT_EQ(out[1], kInf);
  EXPECT_EQ(out[2], 0);
  EXPECT_EQ(out[3], 200);
  EXPECT_EQ(out[4], 0);
  EXPECT_TRUE(std::isnan(out[5]));
  EXPECT_NEAR(out[6], -88 * std::exp(-88.0), 1e-41);
  EXPECT_EQ(out[7], 88);
}

TEST(Bf16Test, RoundsToNearestEvenAndKeepsNans) {
  const auto bits = [](uint32_t b) {
    float f;
    std::memcpy(&f, &b, 4);
    return f;
  };
  EXPECT_EQ(ToBf16(bits(0x3f808000)).bits, 0x3f80);  // a tie, down to even
  EXPECT_EQ(ToBf16(bits(0x3f818000)).bits, 0x3f82);  // a tie, up to even
  EXPECT_EQ(ToBf16(bits(0x3f808001)).bits, 0x3f81);
  EXPECT_EQ(ToBf16(bits(0x7f7fffff)).bits, 0x7f80);  // overflows to infinity
  EXPECT_TRUE(std::isnan(ToFloat(ToBf16(bits(0x7f800001)))));
  // The vector path agrees, tails included.
  std::vector<float> x = Normal(1000, 6);
  x[3] = kInf, x[998] = std::nanf(""), x[999] = -kInf;
  std::vector<Bf16> zero(1000, Bf16{0}), y = AsBf16(x);
  AddBf16(zero.data(), 1000, y.data());
  for (int i = 0; i < 1000; ++i) {
    EXPECT_EQ(y[i].bits, ToBf16(x[i]).bits) << i;
  }
}

TEST(JitterTest, MovesEachValueByOneUnitInItsLastPlace) {
  const std::vector<float> x = Normal(1000, 7);
  std::vector<float> moved = x;
  JitterF32(5, 1000, moved.data());
  int up = 0;
  for (int i = 0; i < 1000; ++i) {
    EXPECT_TRUE(moved[i] == std::nextafter(x[i], kInf) || moved[i] == std::nextafter(x[i], -kInf));
    up += moved[i] > x[i];
  }
  EXPECT_NEAR(up, 500, 60);  // 4 standard deviations of a fair coin
}

TEST(JitterTest, IsAFunctionOfTheSeed) {
  const std::vector<float> x = Normal(100, 7);
  std::vector<float> a = x, b = x, c = x;
  JitterF32(5, 100, a.data());
  JitterF32(5, 100, b.data());
  JitterF32(6, 100, c.data());
  EXPECT_EQ(a, b);
  EXPECT_NE(a, c);
}

TEST(JitterTest, LeavesZerosInfinitiesAndNansAndNeverOverflows) {
  std::vector<float> x = {0.0f, -0.0f, kInf, -kInf, std::numeric_limits<float>::max()};
  for (uint64_t seed = 1; seed < 50; ++seed) {
    std::vector<float> moved = x;
    JitterF32(seed, 5, moved.data());
    for (int i = 0; i < 4; ++i) EXPECT_EQ(moved[i], x[i]);
    EXPECT_TRUE(std::isfinite(moved[4]));
  }
  std::vector<Bf16> half = {Bf16{0x7f7f}, Bf16{0x3f80}, Bf16{0x7fc0}};
  JitterBf16(3, 3, half.data());
  EXPECT_EQ(half[0].bits, 0x7f7e);
  EXPECT_TRUE(half[1].bits == 0x3f81 || half[1].bits == 0x3f7f);
  EXPECT_EQ(half[2].bits, 0x7fc0);
}

}  // namespace
}  // namespace plumbline::kernels
