// The products' contract: chains of fused multiply-adds, the same bits from vector and plain
// code.
#include "kernels/matmul.h"

#include <cmath>
#include <random>
#include <vector>

#include "gtest/gtest.h"

namespace plumbline::kernels {
namespace {

std::vector<float> Normal(int64_t n, uint32_t seed) {
  std::mt19937 random(seed);
  std::normal_distribution<float> normal;
  std::vector<float> x(n);
  for (float& v : x) v = normal(random);
  return x;
}

TEST(MatmulTest, VectorAndPlainCodeAgreeBitForBit) {
  for (int64_t in : {1, 2, 63, 64, 65, 576, 600}) {
    for (int64_t rows : {1, 3, 4, 6, 7, 8, 11, 17}) {
      for (int columns : {1, 17, 47, 48}) {
        const std::vector<float> x = Normal(rows * in, 1), bias = Normal(columns, 3);
        std::vector<float> panel(in * kPanelColumns);
        PackPanels(Normal(columns * in, 2).data(), columns, in, panel.data());
        for (const float* b : {static_cast<const float*>(nullptr), bias.data()}) {
          std::vector<float> fast(rows * 50, -1), plain(rows * 50, -1);
          MultiplyPanel(x.data(), rows, in, panel.data(), b, columns, fast.data(), 50);
          MultiplyPanelPlain(x.data(), rows, in, panel.data(), b, columns, plain.data(), 50);
          ASSERT_EQ(fast, plain) << in << " " << rows << " " << columns;
          // Nothing past the panel's columns is written.
          for (int64_t i = columns; i < 50; ++i) ASSERT_EQ(fast[i], -1);
        }
      }
    }
  }
}

TEST(MatmulTest, PanelsHoldColumnsSideBySideAndZerosPastTheEnd) {
  const std::vector<float> weight = Normal(50 * 3, 4);
  std::vector<float> panels(PanelCount(50) * 3 * kPanelColumns);
  PackPanels(weight.data(), 50, 3, panels.data());
  EXPECT_EQ(panels[1 * kPanelColumns + 7], weight[7 * 3 + 1]);
  EXPECT_EQ(panels[3 * kPanelColumns + 2 * kPanelColumns + 1], weight[49 * 3 + 2]);
  EXPECT_EQ(panels[3 * kPanelColumns + 2], 0);
}

TEST(MatmulTest, NansAndInfinitiesReachTheirRowAlone) {
  std::vector<float> x = Normal(9 * 20, 1);
  x[4 * 20 + 3] = std::nanf("");
  x[6 * 20 + 3] = HUGE_VALF;
  std::vector<float> panel(20 * kPanelColumns), y(9 * 48);
  PackPanels(Normal(48 * 20, 2).data(), 48, 20, panel.data());
  MultiplyPanel(x.data(), 9, 20, panel.data(), nullptr, 48, y.data(), 48);
  for (int row = 0; row < 9; ++row) {
    for (int c = 0; c < 48; ++c) {
      EXPECT_EQ(std::isfinite(y[row * 48 + c]), row != 4 && row != 6);
    }
  }
}

}  // namespace
}  // namespace plumbline::kernels
