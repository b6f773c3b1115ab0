#include "kernels/channel_stats.h"

#include <cmath>

#include "kernels/cuda/channel_stats.h"
#include "tests/gpu/device_array.h"

namespace plumbline::cuda {
namespace {

using PromptRun = Run;  // a test has a Run of its own

void MeasureOnCpu(const float* rows, int64_t n, int64_t stride, const ModelDims& dims,
                  const kernels::ChannelStats& stats) {
  kernels::MeasureRowsF32(rows, n, stride, dims.kv_heads, dims.head_dim, stats);
}
void MeasureOnCpu(const Bf16* rows, int64_t n, int64_t stride, const ModelDims& dims,
                  const kernels::ChannelStats& stats) {
  kernels::MeasureRowsBf16(rows, n, stride, dims.kv_heads, dims.head_dim, stats);
}

template <typename T>
class ChannelStatsTest : public testing::Test {
 protected:
  void SetUp() override { PLUMB_NEEDS_GPU(); }

  static ModelDims Dims(int kv_heads, int head_dim) {
    ModelDims dims;
    dims.layers = 3;
    dims.heads = 2 * kv_heads;
    dims.kv_heads = kv_heads;
    dims.head_dim = head_dim;
    return dims;
  }

  // Runs of these lengths, one after the other; every second one is measured, into slots from 1 on.
  void ExpectEqualBits(const ModelDims& dims, const std::vector<int>& lengths) {
    std::vector<PromptRun> runs;
    std::vector<int32_t> list;
    int rows = 0;
    for (size_t i = 0; i < lengths.size(); ++i) {
      PromptRun run;
      run.first_row = rows;
      run.rows = lengths[i];
      run.prompt = 1;
      runs.push_back(run);
      rows += lengths[i];
      if (i % 2 == 0) list.push_back(static_cast<int32_t>(i));
    }
    std::vector<T> qkv = RandomValues<T>(static_cast<size_t>(rows) * dims.qkv_dim(), 3, 2);
    // Zeros of both signs, values below and above all bins, means far from zero.
    for (size_t i = 0; i < qkv.size(); ++i) {
      const float x = kernels::ToFloat(qkv[i]);
      if (i % 97 == 0) qkv[i] = Narrow<T>(i % 2 == 0 ? 0.0f : -0.0f);
      if (i % 89 == 0) qkv[i] = Narrow<T>(x * 0x1p-20f);
      if (i % 83 == 0) qkv[i] = Narrow<T>(x * 0x1p17f);
      if (i % 7 == 0) qkv[i] = Narrow<T>(x + 300);
    }
    std::vector<int32_t> measured = {static_cast<int32_t>(list.size()), 1};
    measured.insert(measured.end(), list.begin(), list.end());
    const DeviceArray<T> d_qkv(qkv);
    const DeviceArray<PromptRun> d_runs(runs);
    const DeviceArray<int32_t> d_measured(measured);
    const int64_t tensor = kernels::ChannelStatsBytes(dims.kv_heads, dims.head_dim);
    const int64_t slot = dims.layers * MeasuredLayerBytes(dims);
    const DeviceArray<char> d_out(static_cast<size_t>((list.size() + 2) * slot));
    MeasureKv args;
    args.dtype = kDtypeOf<T>;
    args.dims = dims;
    args.layer = 2;
    args.step.runs = d_runs.data();
    args.step.measured = reinterpret_cast<const MeasuredRuns*>(d_measured.data());
    args.qkv = d_qkv.data();
    args.out = d_out.data();
    EXPECT_CUDA_OK(LaunchMeasureKv(args, nullptr));
    const std::vector<char> out = d_out.Read();

    std::vector<char> expected(out.size(), static_cast<char>(0xff));
    const auto fill = [&](std::vector<char>* to) {
      for (size_t i = 0; i < list.size(); ++i) {
        const PromptRun& run = runs[list[i]];
        for (int values = 0; values < 2; ++values) {
          const T* from = qkv.data() + int64_t{run.first_row} * dims.qkv_dim() + dims.q_dim() +
                          values * dims.kv_dim();
          char* at = to->data() + (i + 1) * slot + 2 * MeasuredLayerBytes(dims) + values * tensor;
          MeasureOnCpu(from, run.rows, dims.qkv_dim(), dims,
                       kernels::ChannelStatsAt(at, dims.kv_heads, dims.head_dim));
        }
      }
    };
    fill(&expected);
    EXPECT_TRUE(SameBits(out, expected)) << dims.kv_heads << " heads of " << dims.head_dim;
    // One value of the last measured run, one unit in its last place.
    const int64_t row = runs[list.back()].first_row + runs[list.back()].rows - 1;
    T& value = qkv[row * dims.qkv_dim() + dims.q_dim() + dims.kv_dim() + 1];
    value = Narrow<T>(kernels::ToFloat(value) * 1.01f + 0x1p-18f);
    fill(&expected);
    EXPECT_FALSE(SameBits(out, expected));
  }
};
using Dtypes = testing::Types<float, Bf16>;
TYPED_TEST_SUITE(ChannelStatsTest, Dtypes);

TYPED_TEST(ChannelStatsTest, EqualsTheCpuBitForBit) {
  for (const int head_dim : {64, 80, 96, 128, 256}) {
    this->ExpectEqualBits(this->Dims(2, head_dim), {1, 7, 33, 1, 32, 5, 200});
  }
  this->ExpectEqualBits(this->Dims(8, 128), {700, 3, 64});
}

TYPED_TEST(ChannelStatsTest, MoreRunsThanBlocksShareTheWork) {
  std::vector<int> lengths;
  for (int i = 0; i < 75; ++i) lengths.push_back(1 + i * 11 % 70);
  this->ExpectEqualBits(this->Dims(3, 64), lengths);
}

}  // namespace
}  // namespace plumbline::cuda
