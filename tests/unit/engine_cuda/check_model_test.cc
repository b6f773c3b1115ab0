// Models that the GPU engine has no kernels for are refused before a GPU is looked for.
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "kernels/cuda/kv_write.h"
#include "services/engine/cuda/cuda_parts.h"
#include "tests/support/status_matchers.h"

namespace plumbline {
namespace {

using ::plumbline::testing::StatusIs;
using ::testing::AllOf;
using ::testing::HasSubstr;

ModelConfig Model(int kv_heads, int head_dim) {
  ModelConfig config;
  config.family = "llama";
  config.num_layers = 2;
  config.num_heads = kv_heads;
  config.num_kv_heads = kv_heads;
  config.head_dim = head_dim;
  config.hidden_size = 256;
  config.intermediate_size = 512;
  config.vocab_size = 512;
  config.max_context = 512;
  return config;
}

absl::Status Create(const ModelConfig& config) {
  CudaOptions cuda;
  cuda.device = 9999;  // none has it: what passes the check ends here
  EngineOptions options;
  return CreateCudaForward(
             config, options, cuda,
             [](const CudaWeights&) { return absl::InternalError("weights were asked for"); })
      .status();
}

TEST(CheckModelTest, KeysTooWideForABlocksSharedMemoryAreRefusedWithTheLimit) {
  EXPECT_EQ(cuda::MostKvDim(), 11609);  // 227 KiB - 256 bytes, 20 bytes a channel
  EXPECT_THAT(Create(Model(46, 256)),
              StatusIs(absl::StatusCode::kInvalidArgument,
                       AllOf(HasSubstr("11609"), HasSubstr("46 heads of 256 are 11776"),
                             HasSubstr("use the device cpu"))));
  EXPECT_THAT(Create(Model(45, 256)), StatusIs(absl::StatusCode::kUnavailable));
}

TEST(CheckModelTest, HeadsAndChunksWithoutKernelsAreRefused) {
  EXPECT_THAT(Create(Model(2, 72)), StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr("72")));
  ModelConfig many = Model(2, 64);
  many.num_heads = 18;
  EXPECT_THAT(Create(many), StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr("18 for 2")));
}

}  // namespace
}  // namespace plumbline
