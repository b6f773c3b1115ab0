// Windows, sinks and selections: which elements are quantized, and when.
#include <algorithm>
#include <cmath>
#include <random>
#include <vector>

#include "tests/unit/quant/quantizer_fixture.h"

namespace plumbline {
namespace {

constexpr int kHeads = 2, kHeadDim = 4, kChannels = kHeads * kHeadDim;

std::vector<float> RandomRows(int tokens, uint32_t seed) {
  std::mt19937 rng(seed);
  std::normal_distribution<float> normal;
  std::vector<float> rows(tokens * kChannels);
  for (float& x : rows) x = normal(rng);
  return rows;
}

// Per token: whether any of its channels differs from the raw values.
std::vector<bool> ChangedRows(const QuantizedSequence& sequence, const std::vector<float>& raw) {
  std::vector<bool> changed(sequence.tokens());
  for (size_t i = 0; i < sequence.rows().size(); ++i) {
    if (sequence.rows()[i] != raw[i]) changed[i / kChannels] = true;
  }
  return changed;
}

std::vector<bool> FirstChanged(int64_t changed, int64_t tokens) {
  std::vector<bool> expected(tokens, false);
  std::fill_n(expected.begin(), changed, true);
  return expected;
}

std::vector<float> Slice(const std::vector<float>& rows, int64_t begin, int64_t end) {
  return {rows.begin() + begin * kChannels, rows.begin() + end * kChannels};
}

TEST(WindowTest, ValuesKeepExactlyTheNewestTokens) {
  const auto raw = RandomRows(40, 1);
  QuantizedSequence sequence("int2.affine.token.window8", kHeads, kHeadDim);
  sequence.Append(Slice(raw, 0, 5));
  EXPECT_EQ(ChangedRows(sequence, raw), FirstChanged(0, 5));
  for (int64_t t = 5; t < 40; ++t) {
    sequence.Append(Slice(raw, t, t + 1));
    EXPECT_EQ(ChangedRows(sequence, raw), FirstChanged(std::max<int64_t>(0, t + 1 - 8), t + 1));
  }
}

TEST(WindowTest, KeysFlushTheWholeWindowWhenItIsFull) {
  const auto raw = RandomRows(70, 2);
  QuantizedSequence sequence("int2.affine.channel.window16x4", kHeads, kHeadDim);
  sequence.Append(Slice(raw, 0, 35));  // 35 = 2 * 16 + 3: the prompt leaves 3 in full precision
  EXPECT_EQ(ChangedRows(sequence, raw), FirstChanged(32, 35));
  for (int64_t t = 35; t < 70; ++t) {
    const RowRange changed = sequence.Append(Slice(raw, t, t + 1));
    EXPECT_EQ(ChangedRows(sequence, raw), FirstChanged((t + 1) / 16 * 16, t + 1));
    EXPECT_EQ(changed.begin, (t + 1) % 16 == 0 ? t + 1 - 16 : t);
    EXPECT_EQ(changed.end, t + 1);
  }
}

TEST(WindowTest, BlocksOfGTokensShareStatisticsAndNoOthersDo) {
  auto raw = RandomRows(16, 3);
  QuantizedSequence plain("int3.affine.channel.window16x4", kHeads, kHeadDim);
  plain.Append(raw);
  auto louder = raw;
  for (int i = 4 * kChannels; i < 8 * kChannels; ++i) louder[i] *= 100;
  QuantizedSequence other("int3.affine.channel.window16x4", kHeads, kHeadDim);
  other.Append(louder);
  for (int64_t t = 0; t < 16; ++t) {
    EXPECT_EQ(plain.Row(t) == other.Row(t), t < 4 || t >= 8) << t;
  }
}

TEST(WindowTest, PromptOrTokenByTokenGiveTheSameCache) {
  const auto raw = RandomRows(50, 4);
  for (const char* format : {"int4.affine.channel.window16x8", "int4.affine.group4.window16",
                             "int4.affine.tensor.window16x16.sink3"}) {
    QuantizedSequence whole(format, kHeads, kHeadDim), steps(format, kHeads, kHeadDim);
    whole.Append(raw);
    for (int64_t t = 0; t < 50; ++t) steps.Append(Slice(raw, t, t + 1));
    EXPECT_EQ(whole.rows(), steps.rows()) << format;
  }
}

TEST(SinkTest, TheFirstTokensStayExactAndTakeNoPartInStatistics) {
  auto raw = RandomRows(12, 5);
  QuantizedSequence sequence("int3.sym.tensor.sink4", kHeads, kHeadDim);
  sequence.Append(raw);
  std::vector<bool> expected(12, true);
  std::fill_n(expected.begin(), 4, false);
  EXPECT_EQ(ChangedRows(sequence, raw), expected);
  raw[0] = 1e6f;  // in a sink row
  QuantizedSequence other("int3.sym.tensor.sink4", kHeads, kHeadDim);
  other.Append(raw);
  EXPECT_EQ(Slice(sequence.rows(), 4, 12), Slice(other.rows(), 4, 12));
}

TEST(SinkTest, PromptStatisticsComeFromTheFirstRowsBehindTheSinks) {
  const auto raw = RandomRows(8, 6);
  QuantizedSequence sequence("int8.sym.tensor.prompt.sink4", kHeads, kHeadDim);
  sequence.Append(Slice(raw, 0, 3));
  EXPECT_EQ(sequence.quantizer().elements_quantized(), 0);
  sequence.Append(Slice(raw, 3, 5));
  EXPECT_EQ(sequence.quantizer().elements_quantized(), kChannels);
  const std::vector<float> first = Slice(raw, 4, 5);
  float absmax = 0;
  for (float x : first) absmax = std::max(absmax, std::abs(x));
  sequence.Append(std::vector<float>(kChannels, 50 * absmax));
  EXPECT_FLOAT_EQ(sequence.Row(5)[0], absmax);
}

TEST(SelectTest, OnlyTheSelectedChannelsChange) {
  const auto raw = RandomRows(9, 7);
  QuantizedSequence sequence("int2.sym.tensor.ch(1+6)", kHeads, kHeadDim);
  sequence.Append(raw);
  for (size_t i = 0; i < raw.size(); ++i) {
    const size_t channel = i % kChannels;
    if (channel != 1 && channel != 6) {
      EXPECT_EQ(sequence.rows()[i], raw[i]);
    }
  }
  EXPECT_EQ(sequence.quantizer().elements_quantized(), 9 * 2);
  EXPECT_EQ(sequence.quantizer().elements_total(), 9 * kChannels);
}

TEST(SelectTest, StatisticsAreThoseOfTheSliceAlone) {
  auto raw = RandomRows(9, 8);
  QuantizedSequence sequence("int3.sym.tensor.heads(1)", kHeads, kHeadDim);
  sequence.Append(raw);
  raw[0] = 1e5f;  // head 0
  QuantizedSequence other("int3.sym.tensor.heads(1)", kHeads, kHeadDim);
  other.Append(raw);
  for (int64_t t = 0; t < 9; ++t) {
    for (int c = kHeadDim; c < kChannels; ++c) EXPECT_EQ(sequence.Row(t)[c], other.Row(t)[c]);
  }
}

TEST(CountingTest, TheShareOfQuantizedElementsIsKnownAfterEveryCall) {
  QuantizedSequence fp("fp", kHeads, kHeadDim);
  fp.Append(RandomRows(5, 9));
  EXPECT_EQ(fp.quantizer().elements_total(), 5 * kChannels);
  EXPECT_EQ(fp.quantizer().elements_quantized(), 0);
  QuantizedSequence kivi("int4.affine.channel.window128x32", kHeads, kHeadDim);
  kivi.Append(RandomRows(100, 10));
  EXPECT_EQ(kivi.quantizer().elements_quantized(), 0);
  kivi.Append(RandomRows(28, 11));
  EXPECT_EQ(kivi.quantizer().elements_quantized(), 128 * kChannels);
}

}  // namespace
}  // namespace plumbline
