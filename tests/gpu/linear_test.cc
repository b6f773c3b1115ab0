#include "kernels/cuda/linear.h"

#include <algorithm>
#include <cmath>
#include <cstdio>

#include "tests/gpu/device_array.h"
#include "tests/gpu/small_run.h"

namespace plumbline::cuda {
namespace {

constexpr int64_t kWorkspace = 32 << 20;

struct Shape {
  int rows, in, out;
};

template <typename T>
class LinearTest : public testing::Test {
 protected:
  void SetUp() override {
    PLUMB_NEEDS_GPU();
    if (SmallRun()) {
      std::erase_if(shapes_, [](const Shape& s) { return int64_t{s.in} * s.out > 5'000'000; });
    }
    ASSERT_EQ(cublasLtCreate(&handle_), CUBLAS_STATUS_SUCCESS);
  }
  void TearDown() override {
    if (handle_) cublasLtDestroy(handle_);
  }

  std::unique_ptr<Linear> Make(const Shape& shape) {
    LinearFailure failure;
    auto linear =
        Linear::Create(handle_, kDtypeOf<T>, shape.rows, shape.in, shape.out, kWorkspace, &failure);
    EXPECT_NE(linear, nullptr) << failure.text;
    return linear;
  }

  // A weight of any size from a million random values; rows do not repeat.
  static std::vector<T> Weight(const Shape& shape) {
    const std::vector<T> block = RandomValues<T>(1000003, 1, 0.05f);
    std::vector<T> weight(int64_t{shape.in} * shape.out);
    for (size_t i = 0; i < weight.size(); i += block.size()) {
      std::copy_n(block.begin(), std::min(block.size(), weight.size() - i), weight.begin() + i);
    }
    return weight;
  }

  // Chunks of the GPU engine; shapes of small and large models.
  std::vector<Shape> shapes_ = {
      {64, 576, 960},    {64, 64, 192},     {256, 576, 3072},   {256, 896, 1152},
      {256, 4096, 6144}, {256, 4096, 4096}, {256, 4096, 28672}, {256, 14336, 4096},
      {512, 4096, 6144}, {512, 1536, 576},  {512, 14336, 4096}, {64, 4096, 128256},
      {256, 4864, 896},  {512, 3584, 4608}, {256, 2048, 3072},  {256, 96, 100}};
  cublasLtHandle_t handle_ = nullptr;
};
using Dtypes = testing::Types<float, Bf16>;
TYPED_TEST_SUITE(LinearTest, Dtypes);

TYPED_TEST(LinearTest, EqualsDoublesWithoutTf32) {
  using T = TypeParam;
  for (const Shape& shape : this->shapes_) {
    if (int64_t{shape.in} * shape.out > 40'000'000) continue;
    const auto linear = this->Make(shape);
    ASSERT_NE(linear, nullptr);
    const std::vector<T> x = RandomValues<T>(int64_t{shape.rows} * shape.in, 2);
    const std::vector<T> weight = this->Weight(shape);
    DeviceArray<T> d_x(x), d_weight(weight), y(int64_t{shape.rows} * shape.out);
    DeviceArray<char> workspace(kWorkspace);
    EXPECT_CUDA_OK(linear->Run(d_x.data(), d_weight.data(), y.data(), workspace.data(), nullptr));
    const std::vector<T> got = y.Read();
    double worst = 0;
    for (int64_t i = 0; i < int64_t{shape.rows} * shape.out; i += 997) {
      const int64_t row = i / shape.out, column = i % shape.out;
      double sum = 0, squares = 0;
      for (int k = 0; k < shape.in; ++k) {
        const double product = double{kernels::ToFloat(x[row * shape.in + k])} *
                               kernels::ToFloat(weight[column * shape.in + k]);
        sum += product;
        squares += product * product;
      }
      // Roundings of a long sum are independent: eight standard deviations of as many roundings
      // of the partial sums, which are at most a few times the root of the squares.
      const double bound = 8 * 0x1p-24 * std::sqrt(shape.in * squares) +
                           (sizeof(T) == 2 ? 0x1.02p-8 * std::abs(sum) : 0);
      const double ratio = std::abs(kernels::ToFloat(got[i]) - sum) / bound;
      worst = std::isnan(ratio) ? INFINITY : std::max(worst, ratio);
    }
    EXPECT_LE(worst, 1) << shape.rows << " " << shape.in << " " << shape.out;
  }
}

TYPED_TEST(LinearTest, RowsKeepTheirBitsWhereverTheyStandAndWhateverStandsBeside) {
  using T = TypeParam;
  for (const Shape& shape : this->shapes_) {
    const auto linear = this->Make(shape);
    ASSERT_NE(linear, nullptr);
    printf("[%d, %d] x [%d, %d] %s: %s\n", shape.rows, shape.in, shape.in, shape.out,
           sizeof(T) == 2 ? "bf16" : "f32", linear->algorithm().c_str());
    const int64_t in = shape.in, out = shape.out, rows = shape.rows;
    const std::vector<T> x = RandomValues<T>(rows * in, 2);
    DeviceArray<T> d_x(x), d_weight(this->Weight(shape)), y(rows * out);
    DeviceArray<char> workspace(kWorkspace);
    const auto run = [&](const T* from) {
      EXPECT_CUDA_OK(linear->Run(from, d_weight.data(), y.data(), workspace.data(), nullptr));
      return y.Read();
    };
    const std::vector<T> want = run(d_x.data());
    EXPECT_TRUE(SameBits(run(d_x.data()), want)) << "twice in a row";
    for (int64_t step : {rows / 2 + 1, int64_t{7}, rows - 1}) {
      // Rows 0, 3, 6, .. go elsewhere; all others become something else, some of it huge.
      std::vector<T> moved = RandomValues<T>(rows * in, 3, step == 7 ? 1e4f : 1);
      std::vector<int64_t> place(rows);
      for (int64_t row = 0; row < rows; ++row) place[row] = row * step % rows;
      for (int64_t row = 0; row < rows; row += 3) {
        std::copy_n(x.begin() + row * in, in, moved.begin() + place[row] * in);
      }
      DeviceArray<T> d_moved(moved);
      const std::vector<T> got = run(d_moved.data());
      int64_t different = 0;
      for (int64_t row = 0; row < rows; row += 3) {
        different += std::memcmp(&want[row * out], &got[place[row] * out], out * sizeof(T)) != 0;
      }
      EXPECT_EQ(different, 0) << "of " << rows / 3 << " rows, step " << step;
    }
  }
}

TYPED_TEST(LinearTest, ChoosesTheSameAlgorithmEveryTimeAndRunsInGraphs) {
  using T = TypeParam;
  const Shape shape = {256, 4096, 4096};
  const auto first = this->Make(shape), second = this->Make(shape);
  ASSERT_TRUE(first && second);
  EXPECT_EQ(first->algorithm(), second->algorithm());
  EXPECT_NE(first->algorithm().find("id"), std::string::npos);
  DeviceArray<T> x(RandomValues<T>(256 * 4096, 2)), weight(this->Weight(shape));
  DeviceArray<T> direct(256 * 4096), replayed(256 * 4096);
  DeviceArray<char> workspace(kWorkspace);
  EXPECT_CUDA_OK(first->Run(x.data(), weight.data(), direct.data(), workspace.data(), nullptr));
  cudaStream_t stream;
  cudaGraph_t graph;
  cudaGraphExec_t exec;
  EXPECT_CUDA_OK(cudaStreamCreate(&stream));
  EXPECT_CUDA_OK(cudaStreamBeginCapture(stream, cudaStreamCaptureModeGlobal));
  EXPECT_CUDA_OK(second->Run(x.data(), weight.data(), replayed.data(), workspace.data(), stream));
  EXPECT_CUDA_OK(cudaStreamEndCapture(stream, &graph));
  EXPECT_CUDA_OK(cudaGraphInstantiate(&exec, graph, 0));
  EXPECT_CUDA_OK(cudaGraphLaunch(exec, stream));
  EXPECT_CUDA_OK(cudaStreamSynchronize(stream));
  EXPECT_TRUE(SameBits(direct.Read(), replayed.Read()));
  cudaGraphExecDestroy(exec);
  cudaGraphDestroy(graph);
  cudaStreamDestroy(stream);
}

TYPED_TEST(LinearTest, SaysWhyThereIsNone) {
  LinearFailure failure;
  EXPECT_EQ(Linear::Create(this->handle_, kDtypeOf<TypeParam>, 64, 64, 64, 0, &failure, 1000),
            nullptr);
  EXPECT_NE(failure.text.find("[64, 64] x [64, 64]"), std::string::npos) << failure.text;
  EXPECT_EQ(failure.error, cudaSuccess);
}

// A weight of 2^31 x 1024 values; the next product finds no error left behind.
TYPED_TEST(LinearTest, TellsThatMemoryIsShortAndLeavesNoErrorBehind) {
  LinearFailure failure;
  EXPECT_EQ(
      Linear::Create(this->handle_, kDtypeOf<TypeParam>, 64, 1024, INT32_MAX - 7, 0, &failure),
      nullptr);
  EXPECT_EQ(failure.error, cudaErrorMemoryAllocation) << failure.text;
  EXPECT_CUDA_OK(cudaPeekAtLastError());
}

}  // namespace
}  // namespace plumbline::cuda
