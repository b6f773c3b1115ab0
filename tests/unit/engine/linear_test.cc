// The products that everything rests on: each row depends on itself alone, and fp32 sums are
// exactly the chains that kernels/matmul.h promises.
#include "services/engine/cpu/linear.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <new>
#include <random>
#include <vector>

#include "gtest/gtest.h"
#include "kernels/matmul.h"
#include "services/common/parallel.h"

namespace plumbline {
namespace {

void Assign(float value, float* out) { *out = value; }
void Assign(float value, Bf16* out) { *out = kernels::ToBf16(value); }

template <typename T>
class LinearTest : public ::testing::Test {
 protected:
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

struct Shape {
  int in, out;
  bool bias;
};
// The shapes of a 135M model, and shapes that fill neither panel nor vector.
constexpr Shape kShapes[] = {{576, 960, false}, {576, 3072, false}, {1536, 576, false},
                             {64, 96, true},    {72, 101, true},    {1, 1, false},
                             {33, 47, true},    {16, 49, false}};

TYPED_TEST(LinearTest, ARowIsTheSameAmongAnyNumberOfRowsAtAnyPlaceOnAnyThreads) {
  for (const Shape& shape : kShapes) {
    const int in = shape.in, out = shape.out;
    const auto weight = this->Normal(int64_t{out} * in, 0.05f);
    const Linear<TypeParam> linear(weight, out, in,
                                   shape.bias ? this->Normal(out, 1) : AlignedBuffer<TypeParam>());
    constexpr int kRows = 23;
    const auto x = this->Normal(kRows * in, 1);
    AlignedBuffer<TypeParam> y(kRows * out), again(kRows * out);
    SetThreads(1);
    linear.Apply(x.data(), kRows, y.data());
    for (int threads : {1, 2, 3}) {
      SetThreads(threads);
      for (int rows : {1, 2, 4, 5, 7, 8, 9, 12, 13, 23}) {
        const int first = kRows - rows;
        linear.Apply(x.data() + first * in, rows, again.data());
        ASSERT_EQ(std::memcmp(y.data() + first * out, again.data(), sizeof(TypeParam) * rows * out),
                  0)
            << in << "x" << out << ", " << rows << " rows, " << threads << " threads";
      }
    }
  }
  SetThreads(2);
}

TEST(LinearF32Test, EveryElementIsTheSumOfChainsOfFusedMultiplyAdds) {
  SetThreads(2);
  std::mt19937 random(5);
  std::normal_distribution<float> normal;
  for (const Shape& shape : kShapes) {
    const int rows = 13;
    AlignedBuffer<float> weight(shape.out * shape.in), bias(shape.bias ? shape.out : 0);
    AlignedBuffer<float> x(rows * shape.in), y(rows * shape.out);
    for (auto* buffer : {&weight, &bias, &x}) {
      for (int64_t i = 0; i < buffer->size(); ++i) buffer->data()[i] = normal(random);
    }
    const std::vector<float> biases(bias.data(), bias.data() + bias.size());
    const Linear<float> linear(weight, shape.out, shape.in, std::move(bias));
    linear.Apply(x.data(), rows, y.data());
    for (int row = 0; row < rows; ++row) {
      for (int c = 0; c < shape.out; ++c) {
        float sum = 0, chain = 0;
        for (int k = 0; k < shape.in; ++k) {
          chain = std::fma(x.data()[row * shape.in + k], weight.data()[c * shape.in + k], chain);
          if (k % kernels::kChainLength == kernels::kChainLength - 1 || k == shape.in - 1) {
            sum += chain;
            chain = 0;
          }
        }
        if (shape.bias) sum += biases[c];
        ASSERT_EQ(y.data()[row * shape.out + c], sum) << row << " " << c;
      }
    }
  }
}

// Sums of n products in fp32, then one rounding to 8 bits: half a unit in the last place of the
// result, and for results near zero what n roundings of 2^-24 of the terms leave.
TEST(LinearBf16Test, ResultsAreTheRoundedSums) {
  SetThreads(2);
  std::mt19937 random(5);
  std::normal_distribution<float> normal;
  const int in = 576, out = 130, rows = 5;
  AlignedBuffer<Bf16> weight(out * in), x(rows * in), y(rows * out);
  for (int i = 0; i < out * in; ++i) weight.data()[i] = kernels::ToBf16(0.05f * normal(random));
  for (int i = 0; i < rows * in; ++i) x.data()[i] = kernels::ToBf16(normal(random));
  const Linear<Bf16> linear(weight, out, in, {});
  linear.Apply(x.data(), rows, y.data());
  for (int row = 0; row < rows; ++row) {
    for (int c = 0; c < out; ++c) {
      double sum = 0;
      for (int k = 0; k < in; ++k) {
        sum += double{kernels::ToFloat(x.data()[row * in + k])} *
               kernels::ToFloat(weight.data()[c * in + k]);
      }
      EXPECT_NEAR(kernels::ToFloat(y.data()[row * out + c]), sum,
                  std::abs(sum) * 0x1p-8 * 1.01 + 1e-5);
    }
  }
}

TEST(ParallelForTest, CoversEveryItemOnceWhateverTheThreads) {
  for (int threads : {1, 2, 5}) {
    EXPECT_EQ(SetThreads(threads), threads);
    for (int64_t count : {0, 1, 7, 100}) {
      for (int64_t grain : {1, 3, 200}) {
        std::vector<int> seen(count, 0);
        ParallelFor(count, grain, [&](int64_t begin, int64_t end) {
          for (int64_t i = begin; i < end; ++i) {
            ++seen[i];
            ParallelFor(3, 1, [](int64_t, int64_t) {});  // nested: runs in place
          }
        });
        EXPECT_EQ(std::count(seen.begin(), seen.end(), 1), count);
      }
    }
  }
  EXPECT_GE(SetThreads(0), 1);
  SetThreads(2);
}

TEST(ParallelForTest, AnExceptionReachesTheCallerAndThePoolGoesOn) {
  SetThreads(3);
  for (int round = 0; round < 20; ++round) {
    EXPECT_THROW(ParallelFor(50, 1,
                             [](int64_t begin, int64_t) {
                               if (begin == 31) throw std::bad_alloc();
                             }),
                 std::bad_alloc);
  }
  std::vector<int> seen(50, 0);
  ParallelFor(50, 1, [&](int64_t begin, int64_t) { ++seen[begin]; });
  EXPECT_EQ(std::count(seen.begin(), seen.end(), 1), 50);
  SetThreads(2);
}

TEST(ParallelForTest, ManyShortLoopsEndAndSeeEachOthersWrites) {
  SetThreads(3);
  std::vector<int64_t> values(64, 0);
  for (int round = 0; round < 2000; ++round) {
    ParallelFor(64, 4, [&](int64_t begin, int64_t end) {
      for (int64_t i = begin; i < end; ++i) values[i] += values[i] == round;
    });
  }
  EXPECT_EQ(std::count(values.begin(), values.end(), 2000), 64);
  SetThreads(2);
}

}  // namespace
}  // namespace plumbline
