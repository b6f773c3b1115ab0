// Attention against a plain double-precision reference, over dtypes and odd shapes.
#include "kernels/attention.h"

#include <algorithm>
#include <cmath>
#include <random>
#include <vector>

#include "gtest/gtest.h"

namespace plumbline::kernels {
namespace {

void Assign(float value, float* out) { *out = value; }
void Assign(float value, Bf16* out) { *out = ToBf16(value); }

void Run(const AttentionShape& shape, int head, const float* q, const float* k, const float* v,
         int64_t n, float* scratch, float* out) {
  AttendF32(shape, head, q, k, v, n, scratch, out);
}
void Run(const AttentionShape& shape, int head, const Bf16* q, const Bf16* k, const Bf16* v,
         int64_t n, float* scratch, Bf16* out) {
  AttendBf16(shape, head, q, k, v, n, scratch, out);
}

template <typename T>
struct Problem {
  AttentionShape shape;
  int64_t kv_len;
  std::vector<T> query, keys, values;

  Problem(int heads, int kv_heads, int head_dim, int64_t len, uint32_t seed) : kv_len(len) {
    shape = {heads, kv_heads, head_dim, 1.0f / std::sqrt(static_cast<float>(head_dim))};
    std::mt19937 random(seed);
    std::normal_distribution<float> normal;
    for (auto [tensor, size] :
         {std::pair(&query, int64_t{heads} * head_dim), std::pair(&keys, len * kv_heads * head_dim),
          std::pair(&values, len * kv_heads * head_dim)}) {
      tensor->resize(size);
      for (T& x : *tensor) Assign(normal(random), &x);
    }
  }

  std::vector<T> Attend() const {
    std::vector<T> out(query.size());
    std::vector<float> scratch(AttentionScratchFloats(kv_len));
    for (int head = 0; head < shape.kv_heads; ++head) {
      Run(shape, head, query.data(), keys.data(), values.data(), kv_len, scratch.data(),
          out.data());
    }
    return out;
  }

  double Reference(int head, int channel) const {
    const int kv_head = head / (shape.heads / shape.kv_heads);
    const int64_t stride = int64_t{shape.kv_heads} * shape.head_dim;
    double total = 0, sum = 0;
    for (int64_t t = 0; t < kv_len; ++t) {
      double score = 0;
      for (int c = 0; c < shape.head_dim; ++c) {
        score += double{ToFloat(query[head * shape.head_dim + c])} *
                 ToFloat(keys[t * stride + kv_head * shape.head_dim + c]);
      }
      const double weight = std::exp(score * shape.scale);
      total += weight;
      sum += weight * ToFloat(values[t * stride + kv_head * shape.head_dim + channel]);
    }
    return sum / total;
  }
};

struct Case {
  int heads, kv_heads, head_dim;
  int64_t kv_len;
};

class AttentionTest : public ::testing::TestWithParam<Case> {
 protected:
  // Largest difference from the reference.
  template <typename T>
  double Error() {
    const Case& c = GetParam();
    const Problem<T> problem(c.heads, c.kv_heads, c.head_dim, c.kv_len, 17);
    const std::vector<T> out = problem.Attend();
    double worst = 0;
    for (int head = 0; head < c.heads; ++head) {
      for (int channel = 0; channel < c.head_dim; ++channel) {
        worst = std::max(worst, std::abs(problem.Reference(head, channel) -
                                         ToFloat(out[head * c.head_dim + channel])));
      }
    }
    return worst;
  }
};

// Scores are sums of head_dim products near 1, weights sums over kv_len: in fp32 a few dozen
// roundings of 6e-8 on values up to about 4. In bf16 each score (up to about 4) is rounded twice by
// 2^-9 relative, which moves its weight by up to 3%, at random over positions; then the output is
// rounded.
TEST_P(AttentionTest, F32IsCloseToTheReference) { EXPECT_LT(Error<float>(), 1e-5); }
TEST_P(AttentionTest, Bf16IsCloseToTheReference) { EXPECT_LT(Error<Bf16>(), 0.04); }

INSTANTIATE_TEST_SUITE_P(Shapes, AttentionTest,
                         ::testing::Values(Case{1, 1, 16, 1}, Case{9, 3, 64, 1}, Case{9, 3, 64, 15},
                                           Case{9, 3, 64, 16}, Case{9, 3, 64, 17},
                                           Case{4, 4, 80, 100}, Case{8, 1, 96, 255},
                                           Case{2, 2, 128, 256}, Case{4, 2, 256, 257},
                                           Case{3, 1, 24, 700}, Case{2, 1, 8, 33}));

TEST(AttentionTeethTest, OneMovedValueLeavesTheTolerance) {
  Problem<float> problem(2, 1, 64, 40, 3);
  const double before = problem.Reference(0, 5);
  problem.values[20 * 64 + 5] += 0.01f;
  EXPECT_GT(std::abs(problem.Reference(0, 5) - before), 1e-5);
}

TEST(AttentionTeethTest, RowsPastTheEndAreNotRead) {
  Problem<float> problem(3, 1, 64, 40, 3);
  problem.kv_len = 23;
  const std::vector<float> before = problem.Attend();
  for (size_t i = 23 * 64; i < problem.keys.size(); ++i) {
    problem.keys[i] = problem.values[i] = std::nanf("");
  }
  EXPECT_EQ(problem.Attend(), before);
}

TEST(AttentionTeethTest, ANanKeyOrValueReachesTheOutput) {
  for (int position : {0, 11, 39}) {
    Problem<float> keys(1, 1, 16, 40, 3), values(1, 1, 16, 40, 3);
    keys.keys[position * 16 + 2] = std::nanf("");
    values.values[position * 16 + 2] = std::nanf("");
    EXPECT_TRUE(std::isnan(keys.Attend()[0]));
    EXPECT_TRUE(std::isnan(values.Attend()[2]));
  }
}

}  // namespace
}  // namespace plumbline::kernels
