// Lists of the most probable tokens against the CPU's, of the same logits.
#include <cmath>
#include <limits>

#include "kernels/cuda/top_tokens.h"
#include "services/engine/sampling/logits.h"
#include "tests/gpu/device_array.h"
#include "tests/gpu/small_run.h"

namespace plumbline::cuda {
namespace {

// Both sum in double; what differs is one rounding to float.
constexpr double kRounding = 1.2e-7;

template <typename T>
class TopTokensTest : public testing::Test {
 protected:
  void SetUp() override { PLUMB_NEEDS_GPU(); }

  std::vector<ProbableToken> List(const std::vector<T>& logits, int vocab,
                                  const std::vector<int>& rows, int top) {
    DeviceArray<T> d_logits(logits);
    DeviceArray<ProbableToken> d_lists(rows.size() * kMaxTop);
    TopRows asked;
    asked.top = top;
    for (const int row : rows) asked.row[asked.count++] = static_cast<uint16_t>(row);
    EXPECT_CUDA_OK(
        LaunchTopTokens(kDtypeOf<T>, d_logits.data(), vocab, asked, d_lists.data(), nullptr));
    return d_lists.Read();
  }

  // How many entries differ from the CPU's lists in token, or in log probability beyond the bound.
  static int Mistakes(const std::vector<ProbableToken>& lists, const std::vector<T>& logits,
                      int vocab, const std::vector<int>& rows, int top) {
    int mistakes = 0;
    std::vector<float> wide(vocab);
    LogitTask task;
    task.top = top;
    for (size_t list = 0; list < rows.size(); ++list) {
      for (int i = 0; i < vocab; ++i) {
        wide[i] = kernels::ToFloat(logits[int64_t{rows[list]} * vocab + i]);
      }
      const std::vector<TopToken> expected = ReadLogits(wide.data(), vocab, task).top;
      for (size_t i = 0; i < expected.size(); ++i) {
        const ProbableToken& got = lists[list * kMaxTop + i];
        const double bound = kRounding * std::fabs(expected[i].log_probability) + 1e-13;
        const double off = std::fabs(double{got.log_probability} - expected[i].log_probability);
        mistakes += got.token != expected[i].token || !(off <= bound);
      }
    }
    return mistakes;
  }

  void ExpectLikeCpu(const std::vector<T>& logits, int vocab, const std::vector<int>& rows,
                     int top) {
    SCOPED_TRACE(testing::Message() << "vocab " << vocab << ", top " << top);
    EXPECT_EQ(Mistakes(List(logits, vocab, rows, top), logits, vocab, rows, top), 0);
  }
};
using Dtypes = testing::Types<float, Bf16>;
TYPED_TEST_SUITE(TopTokensTest, Dtypes);

// Under a sanitizer: little of everything.
std::vector<int> Vocabs() {
  if (SmallRun()) return {31, 2050};
  return {1, 2, 31, 100, 1003, 1024, 32000, 128256};
}
const std::vector<int> kRows = {7, 0, 3, 3, 11};  // in any order, also twice

TYPED_TEST(TopTokensTest, ListsAreTheCpus) {
  for (int vocab : Vocabs()) {
    for (double spread : {0.01, 4.0, 300.0}) {
      const auto logits = RandomValues<TypeParam>(12 * size_t(vocab), vocab, spread);
      for (int top : {1, 5, 32, kMaxTop}) this->ExpectLikeCpu(logits, vocab, kRows, top);
    }
  }
}

// Also zeros of both signs, and all of a thread's tokens in the list.
TYPED_TEST(TopTokensTest, TiesGoToTheLowerId) {
  for (int vocab : Vocabs()) {
    auto logits = RandomValues<TypeParam>(12 * size_t(vocab), vocab, 4);
    for (size_t row = 0; row < 12; ++row) {
      for (int i = 0; i < vocab; i += static_cast<int>(row) + 1) {
        logits[row * vocab + (i * 7919L + row) % vocab] = Narrow<TypeParam>(row % 2 ? 50.0f : 9.0f);
      }
    }
    for (int i = 0; i < vocab; ++i) {
      logits[i] = Narrow<TypeParam>(i % 3 == 0 ? -0.0f : 0.0f);
      logits[3 * size_t(vocab) + i] = Narrow<TypeParam>(i % 1024 == 5 ? 30.0f + i / 2048 : -8.0f);
    }
    for (int top : {2, 17, kMaxTop}) this->ExpectLikeCpu(logits, vocab, kRows, top);
  }
}

TYPED_TEST(TopTokensTest, FarApartLogitsStayFinite) {
  std::vector<TypeParam> logits(12 * 2000, Narrow<TypeParam>(-3e38f));
  for (size_t row = 0; row < 12; ++row) logits[row * 2000 + 77 * row] = Narrow<TypeParam>(3e38f);
  this->ExpectLikeCpu(logits, 2000, kRows, 32);
}

TYPED_TEST(TopTokensTest, RowsThatAreNotFiniteHarmNoOthers) {
  auto logits = RandomValues<TypeParam>(12 * 5000, 3, 4);
  for (size_t i = 0; i < 5000; ++i) {
    logits[i] = Narrow<TypeParam>(i % 2 ? std::nanf("") : std::numeric_limits<float>::infinity());
  }
  const auto lists = this->List(logits, 5000, kRows, 32);
  const std::vector<int> sound = {7};
  EXPECT_EQ(this->Mistakes(lists, logits, 5000, sound, 32), 0);
}

TYPED_TEST(TopTokensTest, WrongEntriesAreSeen) {
  const auto logits = RandomValues<TypeParam>(12 * 5000, 3, 4);
  const auto lists = this->List(logits, 5000, kRows, 32);
  ASSERT_EQ(this->Mistakes(lists, logits, 5000, kRows, 32), 0);
  auto swapped = lists;
  std::swap(swapped[kMaxTop + 30].token, swapped[kMaxTop + 31].token);
  EXPECT_EQ(this->Mistakes(swapped, logits, 5000, kRows, 32), 2);
  auto moved = lists;
  moved[2 * kMaxTop].log_probability *= 1 + 1e-6f;
  EXPECT_EQ(this->Mistakes(moved, logits, 5000, kRows, 32), 1);
}

TEST(TopTokensLimitsTest, WhatIsNotSupportedIsRefused) {
  TopRows rows;
  rows.count = 1;
  rows.top = kMaxTop + 1;
  EXPECT_EQ(LaunchTopTokens(Dtype::kF32, nullptr, 10, rows, nullptr, nullptr),
            cudaErrorInvalidValue);
}

}  // namespace
}  // namespace plumbline::cuda
