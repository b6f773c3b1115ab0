// Channel statistics against references in long double, and what they must not depend on.
#include "kernels/channel_stats.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <random>
#include <vector>

#include "gtest/gtest.h"

namespace plumbline::kernels {
namespace {

constexpr double kUnit = 0x1p-53;

struct Measured {
  std::vector<double> memory;
  ChannelStats at;
};

Measured Measure(const std::vector<float>& rows, int64_t stride, int heads, int head_dim) {
  Measured measured;
  measured.memory.resize(ChannelStatsBytes(heads, head_dim) / sizeof(double), -1);
  measured.at = ChannelStatsAt(reinterpret_cast<char*>(measured.memory.data()), heads, head_dim);
  MeasureRowsF32(rows.data(), static_cast<int64_t>(rows.size()) / stride, stride, heads, head_dim,
                 measured.at);
  return measured;
}

// Every channel with a mean and a spread of its own; the first row far off, as attention sinks are.
std::vector<float> Rows(int64_t n, int64_t stride, uint32_t seed) {
  std::mt19937 random(seed);
  std::normal_distribution<float> normal;
  std::vector<float> rows(n * stride);
  for (int64_t i = 0; i < n * stride; ++i) {
    const int64_t c = i % stride;
    const float spread = std::ldexp(1.0f, static_cast<int>(c % 7) - 3);
    rows[i] = normal(random) * spread + static_cast<float>(c % 5) * 20 * spread;
    if (i < stride && c % 3 == 0) rows[i] *= 100;
  }
  return rows;
}

struct Reference {
  long double mean = 0, squares = 0, absmax = 0;
};
Reference Slow(const std::vector<float>& rows, int64_t stride, int64_t channel) {
  Reference reference;
  const auto n = static_cast<int64_t>(rows.size()) / stride;
  for (int64_t i = 0; i < n; ++i) {
    const long double x = rows[i * stride + channel];
    reference.mean += x / n;
    reference.absmax = std::max(reference.absmax, std::fabs(x));
  }
  for (int64_t i = 0; i < n; ++i) {
    const long double d = rows[i * stride + channel] - reference.mean;
    reference.squares += d * d;
  }
  return reference;
}

// With S segments of up to 32 rows: a segment's mean errs by at most 33 units of rounding of
// absmax, and every merge adds at most 4. A deviation is at most 2 absmax, so a square of it errs
// by 2 x 2 absmax times the mean's error and 3 roundings of its own, 32 of them are summed, and a
// merge adds 8.
double MeanBound(int64_t n, long double absmax) {
  const double segments = std::ceil(static_cast<double>(n) / kStatsSegmentRows);
  return (33 + 4 * segments) * kUnit * static_cast<double>(absmax);
}
double VarianceBound(int64_t n, long double absmax) {
  const double segments = std::ceil(static_cast<double>(n) / kStatsSegmentRows);
  return 4 * static_cast<double>(absmax * absmax) * (33 + 4 * segments + 35 + 8 * segments) * kUnit;
}

class ChannelStatsTest : public ::testing::TestWithParam<int64_t> {};
INSTANTIATE_TEST_SUITE_P(Rows, ChannelStatsTest, ::testing::Values(1, 2, 31, 32, 33, 64, 100, 517));

TEST_P(ChannelStatsTest, EqualReferencesWithinABoundThatAPerturbedValueBreaks) {
  constexpr int kHeads = 3, kHeadDim = 20, kStride = 70;
  const int64_t n = GetParam();
  std::vector<float> rows = Rows(n, kStride, 5);
  const Measured measured = Measure(rows, kStride, kHeads, kHeadDim);
  for (int c = 0; c < kHeads * kHeadDim; ++c) {
    const Reference reference = Slow(rows, kStride, c);
    EXPECT_NEAR(measured.at.mean[c], static_cast<double>(reference.mean),
                MeanBound(n, reference.absmax));
    EXPECT_NEAR(measured.at.squares[c] / n, static_cast<double>(reference.squares / n),
                VarianceBound(n, reference.absmax));
    float low = rows[c], high = rows[c];
    for (int64_t i = 0; i < n; ++i) {
      low = std::min(low, rows[i * kStride + c]);
      high = std::max(high, rows[i * kStride + c]);
    }
    EXPECT_EQ(measured.at.min[c], low);
    EXPECT_EQ(measured.at.max[c], high);
  }
  // The smallest change of one value of fp32 shows in mean and, of two rows and more, in variance.
  const int channel = 7;
  float& value = rows[(n - 1) * kStride + channel];
  value = std::nextafter(value, 1e30f);
  const Reference changed = Slow(rows, kStride, channel);
  EXPECT_GT(std::fabs(measured.at.mean[channel] - static_cast<double>(changed.mean)),
            MeanBound(n, changed.absmax));
  if (n == 1) return;
  EXPECT_GT(std::fabs(measured.at.squares[channel] / n - static_cast<double>(changed.squares / n)),
            VarianceBound(n, changed.absmax));
}

TEST_P(ChannelStatsTest, CountsEqualASlowSearchOfTheBins) {
  constexpr int kHeads = 2, kHeadDim = 24;
  const int64_t n = GetParam();
  std::vector<float> rows = Rows(n, kHeads * kHeadDim, 9);
  rows[0] = 0, rows[1] = -0.0f, rows[2] = 0x1p-16f, rows[3] = -0x1p-17f, rows[4] = 0x1p16f;
  rows[5] = -0x1.fffffep15f, rows[6] = 1.25f, rows[7] = std::nextafter(1.25f, 0.0f),
  rows[8] = 1e-40f;
  const Measured measured = Measure(rows, kHeads * kHeadDim, kHeads, kHeadDim);
  std::vector<uint32_t> counts(kHeads * kStatsBins);
  for (size_t i = 0; i < rows.size(); ++i) {
    const double x = std::fabs(rows[i]);
    int bin = x == 0 ? 0 : 1;
    for (int b = 0; b < kStatsExponents * kStatsSubBins; ++b) {
      if (x >= std::ldexp(1 + (b % 4) / 4.0, -16 + b / 4)) bin = b + 2;
    }
    if (x >= 65536) bin = kStatsBins - 1;
    ++counts[i % (kHeads * kHeadDim) / kHeadDim * kStatsBins + bin];
  }
  EXPECT_EQ(std::vector<uint32_t>(measured.at.counts, measured.at.counts + counts.size()), counts);
}

TEST_P(ChannelStatsTest, Bf16RowsAreMeasuredAsTheFloatsTheyAre) {
  constexpr int kHeads = 2, kHeadDim = 16, kStride = 40;
  const int64_t n = GetParam();
  std::vector<Bf16> narrow;
  std::vector<float> wide;
  for (const float x : Rows(n, kStride, 3)) {
    narrow.push_back(ToBf16(x));
    wide.push_back(ToFloat(narrow.back()));
  }
  const Measured expected = Measure(wide, kStride, kHeads, kHeadDim);
  Measured measured = Measure(Rows(n, kStride, 4), kStride, kHeads, kHeadDim);
  MeasureRowsBf16(narrow.data(), n, kStride, kHeads, kHeadDim, measured.at);
  EXPECT_EQ(std::memcmp(measured.memory.data(), expected.memory.data(),
                        expected.memory.size() * sizeof(double)),
            0);
}

TEST_P(ChannelStatsTest, PartsMergeToTheWhole) {
  constexpr int kStride = 12;
  const int64_t n = GetParam(), cut = n / 3;
  if (cut == 0) return;
  const std::vector<float> rows = Rows(n, kStride, 8);
  const Measured whole = Measure(rows, kStride, 1, kStride);
  const Measured a = Measure({rows.begin(), rows.begin() + cut * kStride}, kStride, 1, kStride);
  const Measured b = Measure({rows.begin() + cut * kStride, rows.end()}, kStride, 1, kStride);
  for (int c = 0; c < kStride; ++c) {
    const StatsMoments merged = MergeMoments({cut, a.at.mean[c], a.at.squares[c]},
                                             {n - cut, b.at.mean[c], b.at.squares[c]});
    const double absmax = std::max(std::fabs(whole.at.min[c]), std::fabs(whole.at.max[c]));
    EXPECT_EQ(merged.rows, n);
    EXPECT_NEAR(merged.mean, whole.at.mean[c], 3 * MeanBound(n, absmax));
    EXPECT_NEAR(merged.squares / n, whole.at.squares[c] / n, 3 * VarianceBound(n, absmax));
    // The parts by the other's size are another mean.
    const StatsMoments wrong = MergeMoments({n - cut, a.at.mean[c], a.at.squares[c]},
                                            {cut, b.at.mean[c], b.at.squares[c]});
    if (cut * 2 != n) {
      EXPECT_GT(std::fabs(wrong.mean - whole.at.mean[c]), 3 * MeanBound(n, absmax));
    }
  }
}

TEST(ChannelStatsConstantTest, HasNoVarianceAndItsValueAsMean) {
  for (const int64_t n : {1, 33, 1000}) {
    const std::vector<float> rows(n * 4, 0.1f);
    const Measured measured = Measure(rows, 4, 2, 2);
    for (int c = 0; c < 4; ++c) {
      EXPECT_EQ(measured.at.mean[c], static_cast<double>(0.1f));
      EXPECT_EQ(measured.at.squares[c], 0);
    }
  }
}

}  // namespace
}  // namespace plumbline::kernels
