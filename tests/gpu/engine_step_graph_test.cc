#include <cublasLt.h>

#include "kernels/cuda/linear.h"
#include "services/engine/cuda/step_graph.h"
#include "tests/gpu/device_array.h"

namespace plumbline {
namespace {

using cuda::DeviceArray;

constexpr int kRows = 512, kIn = 1024, kOut = 28672, kCounterBytes = 1024;

size_t Nodes(cudaGraph_t graph) {
  size_t count = 0;
  EXPECT_EQ(cudaGraphGetNodes(graph, nullptr, &count), cudaSuccess);
  return count;
}

// Two products in a row, recorded; the second one's counters `apart` bytes after the first's.
class StepGraphTest : public testing::Test {
 protected:
  void SetUp() override {
    PLUMB_NEEDS_GPU();
    ASSERT_EQ(cudaStreamCreate(&stream_), cudaSuccess);
    ASSERT_EQ(cublasLtCreate(&handle_), CUBLAS_STATUS_SUCCESS);
    // The first algorithm for this shape that counts its tiles.
    for (int skip = 0; skip < 8; ++skip) {
      cuda::LinearFailure failure;
      linear_ = cuda::Linear::Create(handle_, cuda::Dtype::kBf16, kRows, kIn, kOut,
                                     int64_t{32} << 20, &failure, skip);
      if (linear_ == nullptr) break;
      if (linear_->workspace_bytes() > 0 && linear_->workspace_bytes() <= kCounterBytes) return;
    }
    GTEST_SKIP() << "SKIPPED: no algorithm of this library counts its tiles in a workspace";
  }
  void TearDown() override {
    if (handle_ != nullptr) cublasLtDestroy(handle_);
    if (stream_ != nullptr) cudaStreamDestroy(stream_);
  }

  cudaGraph_t Record(const DeviceArray<Bf16>& x, const DeviceArray<Bf16>& weight, int64_t apart,
                     DeviceArray<char>* counters, DeviceArray<Bf16>* first,
                     DeviceArray<Bf16>* second) {
    cudaGraph_t graph = nullptr;
    EXPECT_EQ(cudaStreamBeginCapture(stream_, cudaStreamCaptureModeThreadLocal), cudaSuccess);
    EXPECT_EQ(cudaMemsetAsync(first->data(), 0xff, 16, stream_), cudaSuccess);
    char* place = counters->data();
    EXPECT_EQ(linear_->Run(x.data(), weight.data(), first->data(), place, stream_), cudaSuccess);
    EXPECT_EQ(linear_->Run(x.data(), weight.data(), second->data(), place + apart, stream_),
              cudaSuccess);
    EXPECT_EQ(cudaStreamEndCapture(stream_, &graph), cudaSuccess);
    return graph;
  }

  cudaStream_t stream_ = nullptr;
  cublasLtHandle_t handle_ = nullptr;
  std::unique_ptr<cuda::Linear> linear_;
};

TEST_F(StepGraphTest, CountersClearedOnceGiveTheSameProductsEveryTime) {
  const DeviceArray<Bf16> x(cuda::RandomValues<Bf16>(size_t{kRows} * kIn, 1));
  const DeviceArray<Bf16> weight(cuda::RandomValues<Bf16>(size_t{kIn} * kOut, 2, 0.02f));
  DeviceArray<char> counters(2 * kCounterBytes);
  DeviceArray<Bf16> want(size_t{kRows} * kOut), first(want.size()), second(want.size());
  ASSERT_EQ(linear_->Run(x.data(), weight.data(), want.data(), counters.data(), stream_),
            cudaSuccess);
  ASSERT_EQ(cudaStreamSynchronize(stream_), cudaSuccess);
  const std::vector<Bf16> expected = want.Read();
  cudaGraph_t graph = Record(x, weight, kCounterBytes, &counters, &first, &second);
  const size_t before = Nodes(graph);
  ASSERT_TRUE(ClearCountersFirst(graph, counters.data(), 2 * kCounterBytes).ok());
  EXPECT_EQ(Nodes(graph), before - 1);  // two memsets became one
  cudaGraphExec_t replay = nullptr;
  ASSERT_EQ(cudaGraphInstantiate(&replay, graph, 0), cudaSuccess);
  for (int i = 0; i < 3; ++i) {
    ASSERT_EQ(cudaMemset(first.data(), 0xff, first.size() * 2), cudaSuccess);
    ASSERT_EQ(cudaMemset(second.data(), 0xff, second.size() * 2), cudaSuccess);
    ASSERT_EQ(cudaDeviceSynchronize(), cudaSuccess);
    ASSERT_EQ(cudaGraphLaunch(replay, stream_), cudaSuccess);
    ASSERT_EQ(cudaStreamSynchronize(stream_), cudaSuccess);
    EXPECT_TRUE(cuda::SameBits(first.Read(), expected)) << i;
    EXPECT_TRUE(cuda::SameBits(second.Read(), expected)) << i;
  }
  cudaGraphExecDestroy(replay);
  cudaGraphDestroy(graph);
}

TEST_F(StepGraphTest, SharedCountersAndOthersMemoryAreLeftAlone) {
  const DeviceArray<Bf16> x(size_t{kRows} * kIn), weight(size_t{kIn} * kOut);
  DeviceArray<char> counters(2 * kCounterBytes);
  DeviceArray<Bf16> first(size_t{kRows} * kOut), second(first.size());
  cudaGraph_t shared = Record(x, weight, 0, &counters, &first, &second);
  const size_t before = Nodes(shared);
  ASSERT_TRUE(ClearCountersFirst(shared, counters.data(), 2 * kCounterBytes).ok());
  EXPECT_EQ(Nodes(shared), before);
  cudaGraphDestroy(shared);
  cudaGraph_t apart = Record(x, weight, kCounterBytes, &counters, &first, &second);
  ASSERT_TRUE(ClearCountersFirst(apart, second.data(), 64).ok());
  EXPECT_EQ(Nodes(apart), before);
  cudaGraphDestroy(apart);
}

}  // namespace
}  // namespace plumbline
