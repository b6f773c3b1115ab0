// What each format does to values, as method.md states it; the bit-exact comparison is in
// tests/parity/quantizers.
#include "services/quant/tensor_quantizer.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <random>
#include <set>
#include <vector>

#include "tests/unit/quant/quantizer_fixture.h"

namespace plumbline {
namespace {

using ::testing::Each;
using ::testing::Eq;
using ::testing::HasSubstr;
using testing::StatusIs;

std::vector<float> RandomRow(int n, float scale, uint32_t seed) {
  std::mt19937 rng(seed);
  std::normal_distribution<float> normal(0, scale);
  std::vector<float> row(n);
  for (float& x : row) x = normal(rng);
  return row;
}

class CodeRecorder final : public QuantObserver {
 public:
  void OnBlock(const QuantizedBlock& block) override {
    for (int64_t i = 0; i < block.tokens * block.lanes; ++i) {
      codes.insert(static_cast<int8_t>(block.codes[i]));
    }
    ++blocks;
    new_parameters += block.new_parameters;
  }
  std::set<int> codes;
  int blocks = 0;
  int new_parameters = 0;
};

TEST(AsymTest, OneSidedDataComesBackNearFifteen) {
  for (const char* format : {"int4.asym.token", "int8.asym.token", "int2.asym.group64"}) {
    QuantizedSequence sequence(format, 1, 64);
    std::vector<float> row(64);
    for (int i = 0; i < 64; ++i) row[i] = 80 + 15 * i / 63.0f;
    sequence.Append(row);
    double error = 0, energy = 0;
    for (int i = 0; i < 64; ++i) {
      EXPECT_NEAR(sequence.rows()[i], 15, 0.1) << format;
      error += std::pow(sequence.rows()[i] - row[i], 2);
      energy += row[i] * row[i];
    }
    EXPECT_NEAR(error / energy, 0.69, 0.02) << format;
  }
}

TEST(AffineTest, OneSidedDataIsKept) {
  QuantizedSequence sequence("int4.affine.token", 1, 64);
  std::vector<float> row(64);
  for (int i = 0; i < 64; ++i) row[i] = 80 + 15 * i / 63.0f;
  sequence.Append(row);
  for (int i = 0; i < 64; ++i) EXPECT_NEAR(sequence.rows()[i], row[i], 0.5001);
}

TEST(SymTest, TheLowestCodeIsNeverReachedWhileStatisticsCoverTheData) {
  const std::pair<const char*, int> kCases[] = {{"int2.sym.tensor", 3},
                                                {"int3.sym.tensor", 7},
                                                {"int3.sym.token", 7},
                                                {"int4.sym.group16", 15}};
  for (const auto& [format, codes] : kCases) {
    CodeRecorder recorder;
    QuantizedSequence sequence(format, 1, 64);
    sequence.quantizer().SetObserver(&recorder);
    std::vector<float> rows = RandomRow(64 * 200, 1, 1);
    for (size_t i = 0; i < rows.size(); i += 2) rows[i + 1] = -rows[i];  // both ends of the range
    sequence.Append(rows);
    EXPECT_EQ(static_cast<int>(recorder.codes.size()), codes) << format;
    EXPECT_EQ(*recorder.codes.begin(), -(codes / 2)) << format;
    EXPECT_EQ(*recorder.codes.rbegin(), codes / 2) << format;
  }
}

TEST(SymTest, FrozenStatisticsReachTheLowestCode) {
  CodeRecorder recorder;
  QuantizedSequence sequence("int3.sym.tensor.prompt", 1, 64);
  sequence.Append(RandomRow(64, 1, 2));
  sequence.quantizer().SetObserver(&recorder);
  sequence.Append(RandomRow(64, 100, 3));
  EXPECT_EQ(*recorder.codes.begin(), -4);
}

TEST(SymTest, TwoBitsAreTernary) {
  QuantizedSequence sequence("int2.sym.token", 1, 64);
  sequence.Append(RandomRow(64, 1, 4));
  EXPECT_EQ(std::set<float>(sequence.rows().begin(), sequence.rows().end()).size(), 3u);
}

TEST(SymTest, TinyTensorsAreReturnedUnchanged) {
  const std::vector<float> tiny = {9e-11f, -3e-12f, 0, 1e-40f};
  QuantizedSequence tensor("int3.sym.tensor", 1, 4), token("int3.sym.token", 1, 4);
  tensor.Append(tiny);
  token.Append(tiny);
  EXPECT_EQ(tensor.rows(), tiny);
  EXPECT_THAT(token.rows(), Each(Eq(0.0f)));  // the floor of 1e-8 takes them all to code 0
}

TEST(ChannelStepTest, ASingleTokenIsLosslessUnderSymAndVanishesUnderAsym) {
  const auto prompt = RandomRow(64 * 5, 1, 5);
  const auto token = RandomRow(64, 1, 6);
  QuantizedSequence sym("int3.sym.channel", 1, 64), asym("int8.asym.channel", 1, 64);
  sym.Append(prompt);
  asym.Append(prompt);
  sym.Append(token);
  asym.Append(token);
  for (int i = 0; i < 64; ++i) {
    EXPECT_NEAR(sym.Row(5)[i], token[i], 1e-6 * std::abs(token[i]));
    EXPECT_NEAR(asym.Row(5)[i], 0, 1e-5);
  }
}

TEST(ScopeTest, StepSeesTheWholePromptButPromptStatisticsStayFrozen) {
  const auto prompt = RandomRow(64 * 5, 1, 7);
  const auto loud = RandomRow(64, 50, 8);
  QuantizedSequence step("int8.sym.tensor", 1, 64), frozen("int8.sym.tensor.prompt", 1, 64);
  step.Append(prompt);
  frozen.Append(prompt);
  EXPECT_EQ(step.rows(), frozen.rows());
  step.Append(loud);
  frozen.Append(loud);
  float prompt_max = 0, stored_max = 0, step_error = 0;
  for (float x : prompt) prompt_max = std::max(prompt_max, std::abs(x));
  for (int i = 0; i < 64; ++i) {
    stored_max = std::max(stored_max, std::abs(frozen.Row(5)[i]));
    step_error = std::max(step_error, std::abs(step.Row(5)[i] - loud[i]));
  }
  EXPECT_LE(stored_max, prompt_max * 128 / 127 + 1e-5);
  EXPECT_LT(step_error, 1);
}

TEST(ScopeTest, DecodedRowsAreOneStepEachHoweverTheyArrive) {
  const auto prompt = RandomRow(64 * 3, 1, 9);
  const auto later = RandomRow(64 * 4, 1, 10);
  QuantizedSequence together("int4.affine.channel", 1, 64), single("int4.affine.channel", 1, 64);
  together.Append(prompt);
  single.Append(prompt);
  together.Append(later);
  for (int t = 0; t < 4; ++t) {
    single.Append({later.begin() + t * 64, later.begin() + (t + 1) * 64});
  }
  EXPECT_EQ(together.rows(), single.rows());
}

TEST(ScopeTest, LongPromptsAreOneBlockForStatistics) {
  // Longer than what is worked on at once: one loud element at the end sets every row's scale.
  const int tokens = 1000;
  auto rows = RandomRow(64 * tokens, 1, 11);
  rows.back() = 700;
  QuantizedSequence sequence("int4.sym.tensor", 1, 64);
  sequence.Append(rows);
  for (int64_t i = 0; i + 1 < static_cast<int64_t>(rows.size()); ++i) {
    ASSERT_EQ(sequence.rows()[i], 0);
  }
  EXPECT_EQ(sequence.rows().back(), 700);
}

TEST(ScopeTest, CalibratedStatisticsComeFromTheCapture) {
  Calibration calibration;
  calibration.channel_absmax = {127, 12.7f};
  calibration.channel_min = {-127, -12.7f};
  calibration.channel_max = {127, 12.7f};
  QuantizedSequence channel("int8.sym.channel.calibrated(01234567)", 1, 2, &calibration);
  channel.Append({10.4f, 20.0f});
  EXPECT_FLOAT_EQ(channel.Row(0)[0], 10);
  EXPECT_FLOAT_EQ(channel.Row(0)[1], 12.7f);
  QuantizedSequence tensor("int8.sym.tensor.calibrated(01234567)", 1, 2, &calibration);
  tensor.Append({10.4f, 20.4f});
  EXPECT_EQ(tensor.rows(), (std::vector<float>{10, 20}));
}

TEST(HeadsTest, PerHeadKeepsAQuietHeadNextToALoudOne) {
  std::vector<float> row(128);
  for (int i = 0; i < 64; ++i) row[i] = 1000.0f * (i % 7 - 3);
  for (int i = 64; i < 128; ++i) row[i] = i % 7 - 3;
  QuantizedSequence joint("int4.sym.token", 2, 64), perhead("int4.sym.token.perhead", 2, 64);
  joint.Append(row);
  perhead.Append(row);
  for (int i = 64; i < 128; ++i) {
    EXPECT_EQ(joint.rows()[i], 0);
    EXPECT_NEAR(perhead.rows()[i], row[i], 0.25);
  }
}

TEST(HadamardTest, AnOutlierNoLongerErasesItsHead) {
  auto row = RandomRow(64, 1, 12);
  row[5] = 60;
  const auto error = [&row](const char* format) {
    QuantizedSequence sequence(format, 1, 64);
    sequence.Append(row);
    double sum = 0;
    for (int i = 0; i < 64; ++i) {
      if (i != 5) sum += std::pow(sequence.rows()[i] - row[i], 2);
    }
    return sum;
  };
  EXPECT_LT(error("int4.sym.token.hadamard"), error("int4.sym.token") / 2);
}

TEST(Fp8Test, OverflowSaturatesOrFollowsTorch) {
  QuantizedSequence saturate("fp8_e4m3", 1, 2), torch("fp8_e4m3.torchcast", 1, 2),
      e5m2("fp8_e5m2.torchcast", 1, 2);
  saturate.Append({1e6f, -500});
  torch.Append({1e6f, -17.2f});
  e5m2.Append({-1e6f, 1.1f});
  EXPECT_EQ(saturate.rows(), (std::vector<float>{448, -448}));
  EXPECT_TRUE(std::isnan(torch.rows()[0]));
  EXPECT_EQ(torch.rows()[1], -18);
  EXPECT_EQ(e5m2.rows()[0], -std::numeric_limits<float>::infinity());
  EXPECT_EQ(e5m2.rows()[1], 1);
}

TEST(NonFiniteTest, NeverBecomesANumber) {
  const float inf = std::numeric_limits<float>::infinity();
  for (const char* format :
       {"int4.asym.token", "int3.sym.tensor", "int4.affine.group4", "int4.sym.channel.prompt",
        "int8.affine.tensor.prompt", "fp8_e4m3", "fp8_e5m2", "int4.asym.token.hadamard"}) {
    for (float bad : {inf, -inf, std::nanf("")}) {
      QuantizedSequence sequence(format, 1, 8);
      sequence.Append(RandomRow(8, 1, 13));
      auto row = RandomRow(8, 1, 14);
      row[3] = bad;
      sequence.Append(row);
      EXPECT_FALSE(std::isfinite(sequence.Row(1)[3])) << format << " " << bad;
    }
  }
}

TEST(CreateTest, FormatsThatDoNotFitAreRefusedWithBothSizes) {
  const TensorShape shape{.kv_heads = 2, .head_dim = 80, .dtype = KvDtype::kF32};
  const std::pair<const char*, const char*> kCases[] = {
      {"int4.sym.group256", "group256 exceeds the 160 channels"},
      {"int4.sym.token.heads(2)", "head 2 is not in 0 to 1"},
      {"int4.sym.token.ch(160)", "channel 160 is not in 0 to 159"},
      {"int4.sym.token.hadamard", "the model's is 80"},
      {"int4.sym.tensor.calibrated(01234567)", "without the capture's statistics"},
  };
  for (const auto& [format, message] : kCases) {
    EXPECT_THAT(TensorQuantizer::Create(*ParseFormat(format), shape, nullptr),
                StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr(message)));
  }
  EXPECT_THAT(TensorQuantizer::Create(*ParseFormat("fp"), TensorShape(), nullptr),
              StatusIs(absl::StatusCode::kInvalidArgument));
}

TEST(CreateTest, BadCalibrationsAreRefused) {
  const TensorFormat format = *ParseFormat("int4.sym.tensor.calibrated(01234567)");
  const TensorShape shape{.kv_heads = 1, .head_dim = 2, .dtype = KvDtype::kF32};
  Calibration calibration{{1}, {1}, {1}};
  EXPECT_THAT(TensorQuantizer::Create(format, shape, &calibration),
              StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr("1 channels")));
  calibration = {{1, std::nanf("")}, {1, 1}, {1, 1}};
  EXPECT_THAT(TensorQuantizer::Create(format, shape, &calibration),
              StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr("channel 1")));
}

TEST(ObserverTest, FrozenParametersAreReportedOnce) {
  CodeRecorder recorder;
  QuantizedSequence sequence("int8.sym.tensor.prompt", 1, 64);
  sequence.quantizer().SetObserver(&recorder);
  for (int i = 0; i < 5; ++i) sequence.Append(RandomRow(64, 1, i));
  EXPECT_EQ(recorder.blocks, 5);
  EXPECT_EQ(recorder.new_parameters, 1);
}

TEST(AppendTest, NoTokensChangeNothing) {
  QuantizedSequence sequence("int4.asym.token", 1, 64);
  const RowRange changed = sequence.Append({});
  EXPECT_EQ(changed.begin, changed.end);
  EXPECT_EQ(sequence.quantizer().elements_total(), 0);
}

}  // namespace
}  // namespace plumbline
