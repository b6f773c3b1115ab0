#include "kernels/matmul_double.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cstdint>
#include <random>
#include <tuple>
#include <vector>

namespace plumbline::kernels {
namespace {

struct Product {
  int64_t rows, depth, columns;
  std::vector<double> a;  // rows depth + 3 apart
  std::vector<float> b;   // rows columns + 5 apart
  std::vector<double> sums;
  int64_t a_stride() const { return depth + 3; }
  int64_t b_stride() const { return columns + 5; }
  int64_t sums_stride() const { return columns + 2; }
};

Product Draw(int64_t rows, int64_t depth, int64_t columns) {
  Product product{rows, depth, columns, {}, {}, {}};
  std::mt19937_64 random(static_cast<uint64_t>(rows * 10007 + depth * 101 + columns));
  std::normal_distribution<double> normal;
  product.a.resize(static_cast<size_t>(rows * product.a_stride()));
  product.b.resize(static_cast<size_t>(std::max<int64_t>(depth, 1) * product.b_stride()));
  product.sums.resize(static_cast<size_t>(rows * product.sums_stride()));
  for (double& x : product.a) x = normal(random);
  for (float& x : product.b) x = static_cast<float>(normal(random));
  for (double& x : product.sums) x = normal(random);
  return product;
}

// The contract written out: one product after the other, each rounded.
void Plain(Product* product) {
  for (int64_t r = 0; r < product->rows; ++r) {
    for (int64_t c = 0; c < product->columns; ++c) {
      double& sum = product->sums[static_cast<size_t>(r * product->sums_stride() + c)];
      for (int64_t k = 0; k < product->depth; ++k) {
        const double b = product->b[static_cast<size_t>(k * product->b_stride() + c)];
        sum += product->a[static_cast<size_t>(r * product->a_stride() + k)] * b;
      }
    }
  }
}

class MatmulDouble : public testing::TestWithParam<std::tuple<int64_t, int64_t, int64_t>> {};

TEST_P(MatmulDouble, AddsInOrderAndWritesNothingElse) {
  const auto [rows, depth, columns] = GetParam();
  Product expected = Draw(rows, depth, columns), seen = expected;
  Plain(&expected);
  AccumulateDouble(seen.a.data(), seen.a_stride(), rows, seen.b.data(), seen.b_stride(), depth,
                   columns, seen.sums.data(), seen.sums_stride());
  EXPECT_EQ(seen.sums, expected.sums);  // what lies between the rows too
}

INSTANTIATE_TEST_SUITE_P(Shapes, MatmulDouble,
                         testing::Combine(testing::Values(0, 1, 3, 4, 5, 9),
                                          testing::Values(0, 1, 31, 32, 33, 128),
                                          testing::Values(0, 1, 7, 8, 9, 16, 40)));

}  // namespace
}  // namespace plumbline::kernels
