#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "kernels/cuda/linear.h"
#include "services/engine/cuda/cuda_engine.h"
#include "services/engine/cuda/device_memory.h"
#include "tests/support/status_matchers.h"

namespace plumbline {
namespace {

using ::plumbline::testing::StatusIs;
using ::testing::HasSubstr;

TEST(LinearFailureTest, CudasErrorIsTold) {
  if (CountGpus() > 0) GTEST_SKIP() << "a GPU is here: LinearTest in tests/gpu has it";
  cuda::LinearFailure failure;
  EXPECT_EQ(cuda::Linear::Create(nullptr, cuda::Dtype::kBf16, 64, 32, 16, 1 << 20, &failure),
            nullptr);
  if (failure.text.find("describe") != std::string::npos) GTEST_SKIP() << "no cublasLt here";
  EXPECT_NE(failure.error, cudaSuccess);
  EXPECT_THAT(failure.text, HasSubstr("[64, 32] x [32, 16]"));
}

TEST(LinearFailureTest, OutOfMemoryIsResourceExhausted) {
  EXPECT_THAT(CudaStatus(cudaErrorMemoryAllocation, "no product of 512 rows"),
              StatusIs(absl::StatusCode::kResourceExhausted, HasSubstr("no product of 512 rows")));
}

TEST(LinearFailureTest, ACheckTakesWeightRowsResultsAndWorkspace) {
  // The head of Llama-3.1-8B.
  const int64_t weight = int64_t{4096} * 128256, x = 512 * 4096, y = int64_t{512} * 128256;
  EXPECT_EQ(cuda::Linear::CheckBytes(cuda::Dtype::kBf16, 512, 4096, 128256, 1000),
            2 * (weight + x + y) + 1000);
  EXPECT_EQ(cuda::Linear::CheckBytes(cuda::Dtype::kF32, 512, 4096, 128256, 0),
            4 * (weight + x + y));
}

}  // namespace
}  // namespace plumbline
