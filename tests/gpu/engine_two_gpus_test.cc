// Two GPUs of one kind: the same bits of every sequence, and one numerics class.
#include <cuda_runtime.h>

#include <cstring>

#include "tests/gpu/engine_fixture.h"

namespace plumbline {
namespace {

using ::plumbline::testing::GpuOptions;
using ::plumbline::testing::GpuPlans;
using ::plumbline::testing::GpuVariant;
using ::plumbline::testing::GpuVariants;
using ::plumbline::testing::OpenGpu;
using ::plumbline::testing::Prompt;
using ::plumbline::testing::Request;
using ::plumbline::testing::RunAll;
using ::plumbline::testing::TinyBundle;

constexpr uint64_t kCells = 500;

class EngineTwoGpusTest : public ::testing::TestWithParam<GpuVariant> {
 protected:
  void SetUp() override {
    SKIP_WITHOUT_GPU();
    if (CountGpus() < 2) {
      std::puts("SKIPPED: no GPU beside the first");
      GTEST_SKIP() << "one GPU on this machine";
    }
    cudaDeviceProp first, second;
    ASSERT_EQ(cudaGetDeviceProperties(&first, 0), cudaSuccess);
    ASSERT_EQ(cudaGetDeviceProperties(&second, 1), cudaSuccess);
    if (std::strcmp(first.name, second.name) != 0) {
      std::puts("SKIPPED: no GPU of the first one's kind beside it");
      GTEST_SKIP() << first.name << " and " << second.name;
    }
  }
};

std::vector<SequenceRequest> Cells(const Engine& engine) {
  std::vector<SequenceRequest> requests;
  for (uint64_t id = 0; id < kCells; ++id) {
    const int length = 1 + static_cast<int>(id * 17 % 120);
    requests.push_back(Request(engine, id, Prompt(length, id % 13 + 1, 504),
                               GpuPlans()[id % GpuPlans().size()], 4 + static_cast<int>(id) % 9));
    if (id % 4 == 3) {
      requests.back().sampling.temperature = 0.8;
      requests.back().sampling.stream = id;
    }
    if (id % 7 == 3) requests.back().jitter_seed = id;
    if (id % 5 == 4 && length > 3) requests.back().score_from = length / 2;
  }
  return requests;
}

TEST_P(EngineTwoGpusTest, GiveTheSameBits) {
  const TinyBundle bundle(GetParam().model);
  GpuOptions options;
  options.dtype = GetParam().dtype;
  auto first = OpenGpu(bundle, options);
  options.device = 1;
  options.max_running = 90;  // other company, too
  auto second = OpenGpu(bundle, options);
  ASSERT_NE(first, nullptr);
  ASSERT_NE(second, nullptr);
  EXPECT_EQ(first->numerics_class(), second->numerics_class());
  const auto here = RunAll(first.get(), Cells(*first));
  const auto there = RunAll(second.get(), Cells(*second));
  ASSERT_EQ(here.size(), kCells);
  ASSERT_EQ(there.size(), kCells);
  for (const auto& [id, result] : here) {
    const SequenceResult& other = there.at(id);
    EXPECT_EQ(result.tokens, other.tokens) << "sequence " << id;
    EXPECT_EQ(result.logit_digest, other.logit_digest) << "sequence " << id;
    EXPECT_EQ(result.nll_sum, other.nll_sum) << "sequence " << id;
  }
}

INSTANTIATE_TEST_SUITE_P(Models, EngineTwoGpusTest, ::testing::ValuesIn(GpuVariants()),
                         [](const auto& info) { return info.param.name; });

}  // namespace
}  // namespace plumbline
