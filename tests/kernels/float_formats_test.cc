// The narrow formats against the compiler's own _Float16 and against a search over all codes.
#include "kernels/float_formats.h"

#include <cmath>
#include <cstdint>
#include <limits>
#include <vector>

#include "gtest/gtest.h"

namespace plumbline {
namespace {

// A few million floats of every exponent, both signs, with many ties.
template <typename Check>
void ForManyFloats(Check check) {
  uint32_t state = 12345;
  for (uint32_t i = 0; i < (1u << 21); ++i) {
    state = state * 1664525u + 1013904223u;
    // Clearing low bits makes values that lie half-way between narrow ones frequent.
    const uint32_t cleared = (state >> 7) % 24;
    check(FloatFromBits(state >> cleared << cleared));
  }
  for (uint32_t bits : {0u, 0x80000000u, 1u, 0x007fffffu, 0x7f7fffffu, 0x7f800000u, 0xff800000u,
                        0x7fc00000u, 0xffc00000u, 0x7f800001u}) {
    check(FloatFromBits(bits));
  }
}

TEST(FloatFormatsTest, HalfRoundingEqualsTheCompilers) {
  ForManyFloats([](float x) {
    const float expected = static_cast<float>(static_cast<_Float16>(x));
    const float got = RoundToHalf(x);
    if (std::isnan(expected)) {
      ASSERT_TRUE(std::isnan(got)) << x;
    } else {
      ASSERT_EQ(FloatBits(got), FloatBits(expected)) << x;
    }
  });
}

TEST(FloatFormatsTest, Bf16IsTheNearestWithTiesToEven) {
  ForManyFloats([](float x) {
    const uint16_t got = Bf16FromFloat(x);
    if (std::isnan(x)) {
      ASSERT_TRUE(std::isnan(FloatFromBf16(got)));
      return;
    }
    const uint32_t bits = FloatBits(x);
    const uint16_t below = static_cast<uint16_t>(bits >> 16);
    const uint32_t rest = bits & 0xffffu;
    const bool up = rest > 0x8000u || (rest == 0x8000u && (below & 1));
    ASSERT_EQ(got, static_cast<uint16_t>(below + (up ? 1 : 0))) << x;
  });
}

TEST(FloatFormatsTest, EveryFp8CodeDecodesAndEncodesToItself) {
  for (int code = 0; code < 256; ++code) {
    const float e4m3 = FloatFromE4m3(static_cast<uint8_t>(code));
    const float e5m2 = FloatFromE5m2(static_cast<uint8_t>(code));
    if (std::isfinite(e4m3)) {
      EXPECT_EQ(E4m3FromFloat(e4m3, false), code);
      EXPECT_EQ(E4m3FromFloat(e4m3, true), code);
    }
    if (std::isfinite(e5m2)) {
      EXPECT_EQ(E5m2FromFloat(e5m2, false), code);
      EXPECT_EQ(E5m2FromFloat(e5m2, true), code);
    }
  }
  EXPECT_EQ(FloatFromE4m3(0x7e), 448);
  EXPECT_EQ(FloatFromE4m3(0x01), 0.001953125f);
  EXPECT_EQ(FloatFromE5m2(0x7b), 57344);
  EXPECT_TRUE(std::isinf(FloatFromE5m2(0x7c)));
}

// The code whose value is nearest, the even one of two equally near.
template <typename Decode>
uint8_t NearestCode(float x, int codes, Decode decode) {
  const double magnitude = std::abs(static_cast<double>(x));
  int best = 0;
  for (int code = 1; code < codes; ++code) {
    const double error = std::abs(static_cast<double>(decode(code)) - magnitude);
    const double best_error = std::abs(static_cast<double>(decode(best)) - magnitude);
    if (error < best_error || (error == best_error && code % 2 == 0)) best = code;
  }
  return static_cast<uint8_t>(best | (std::signbit(x) ? 0x80 : 0));
}

TEST(FloatFormatsTest, Fp8RoundsToTheNearestCodeAndSaturates) {
  uint32_t state = 99;
  for (int i = 0; i < 100000; ++i) {
    state = state * 1664525u + 1013904223u;
    const float x = std::ldexp(static_cast<float>(static_cast<int32_t>(state) >> 20), i % 30 - 22);
    ASSERT_EQ(E4m3FromFloat(x, false), NearestCode(x, 0x7f, FloatFromE4m3)) << x;
    ASSERT_EQ(E5m2FromFloat(x, false), NearestCode(x, 0x7c, FloatFromE5m2)) << x;
  }
}

TEST(FloatFormatsTest, OverflowFollowsTheChosenRule) {
  const float inf = std::numeric_limits<float>::infinity();
  EXPECT_EQ(E4m3FromFloat(464, true), 0x7e);  // the tie rounds down to 448
  EXPECT_EQ(E4m3FromFloat(465, true), 0x7f);
  EXPECT_EQ(E4m3FromFloat(-465, true), 0xff);
  EXPECT_EQ(E4m3FromFloat(465, false), 0x7e);
  EXPECT_EQ(E4m3FromFloat(inf, false), 0x7f);
  EXPECT_EQ(E5m2FromFloat(61439, true), 0x7b);
  EXPECT_EQ(E5m2FromFloat(61440, true), 0x7c);
  EXPECT_EQ(E5m2FromFloat(-1e30f, false), 0xfb);
  EXPECT_EQ(E5m2FromFloat(-inf, true), 0xfc);
  EXPECT_EQ(E5m2FromFloat(inf, false), 0x7f);
}

}  // namespace
}  // namespace plumbline
