// The products that everything rests on: on this machine, with these libraries, a row of a tile
// does not depend on its place or its neighbours.
#include "services/engine/cpu/linear.h"

#include <algorithm>
#include <cmath>
#include <numeric>
#include <random>
#include <vector>

#include "gtest/gtest.h"
#include "services/engine/cpu/parallel.h"

namespace plumbline {
namespace {

void Assign(float value, float* out) { *out = value; }
void Assign(float value, Bf16* out) { *out = kernels::ToBf16(value); }
uint32_t Bits(float x) { return *reinterpret_cast<uint32_t*>(&x); }
uint32_t Bits(Bf16 x) { return x.bits; }

template <typename T>
class LinearTest : public ::testing::Test {
 protected:
  LinearTest() {
    RequireExactProducts();
    SetThreads(2);
  }

  AlignedBuffer<T> Normal(int64_t count, float scale) {
    AlignedBuffer<T> buffer(count);
    std::normal_distribution<float> normal(0, scale);
    for (int64_t i = 0; i < count; ++i) Assign(normal(random_), buffer.data() + i);
    return buffer;
  }

  std::mt19937 random_{3};
};

using Types = ::testing::Types<float, Bf16>;
TYPED_TEST_SUITE(LinearTest, Types);

TYPED_TEST(LinearTest, ARowDependsOnItselfAlone) {
  // The shapes of a 135M model, a bias, and shapes that fill no vector.
  for (const auto& [in, out, bias] :
       {std::tuple(576, 960, false), std::tuple(576, 3072, false), std::tuple(1536, 576, false),
        std::tuple(576, 4099, false), std::tuple(64, 96, true), std::tuple(72, 101, true)}) {
    const Linear<TypeParam> linear(this->Normal(int64_t{out} * in, 0.05f), out, in,
                                   bias ? this->Normal(out, 1) : AlignedBuffer<TypeParam>());
    const auto x = this->Normal(kTileRows * in, 1);
    AlignedBuffer<TypeParam> y(kTileRows * out), other_x(kTileRows * in), other_y(kTileRows * out);
    linear.ApplyTile(x.data(), y.data());
    for (int round = 0; round < 4; ++round) {
      // Row `from` of x goes to place `to` among rows that are all others.
      const int from = static_cast<int>(this->random_() % kTileRows);
      const int to = static_cast<int>(this->random_() % kTileRows);
      const auto noise = this->Normal(kTileRows * in, 3);
      std::copy_n(noise.data(), kTileRows * in, other_x.data());
      std::copy_n(x.data() + from * in, in, other_x.data() + to * in);
      linear.ApplyTile(other_x.data(), other_y.data());
      for (int i = 0; i < out; ++i) {
        ASSERT_EQ(Bits(y.data()[from * out + i]), Bits(other_y.data()[to * out + i]))
            << in << "x" << out << " row " << from << " at " << to << " column " << i;
      }
    }
  }
}

// A sum of n products of normal numbers with weights of .05 has size .05 sqrt(n); fp32 sums err by
// about 6e-8 sqrt(n) of that, a bf16 or tf32 product would by 1e-3.
TEST(LinearF32Test, ProductsAreWholeFloats) {
  RequireExactProducts();
  SetThreads(2);
  std::mt19937 random(5);
  std::normal_distribution<float> normal;
  const int in = 576, out = 960;
  AlignedBuffer<float> weight(out * in), x(kTileRows * in), y(kTileRows * out);
  for (int i = 0; i < out * in; ++i) weight.data()[i] = 0.05f * normal(random);
  for (int i = 0; i < kTileRows * in; ++i) x.data()[i] = normal(random);
  std::vector<float> kept(weight.data(), weight.data() + out * in);
  const Linear<float> linear(std::move(weight), out, in, {});
  linear.ApplyTile(x.data(), y.data());
  double worst = 0;
  for (int row : {0, 31, 63}) {
    for (int column = 0; column < out; ++column) {
      double sum = 0;
      for (int i = 0; i < in; ++i) sum += double{x.data()[row * in + i]} * kept[column * in + i];
      worst = std::max(worst, std::abs(sum - y.data()[row * out + column]));
    }
  }
  EXPECT_LT(worst, 2e-5);
  EXPECT_GT(worst, 0);
}

}  // namespace
}  // namespace plumbline
