#include "kernels/row_ops.h"

#include <algorithm>
#include <cmath>
#include <functional>

#include "kernels/cuda/row_ops.h"
#include "tests/gpu/device_array.h"

namespace plumbline::cuda {
namespace {

struct CpuOps {
  static void Add(const float* y, int64_t n, float* x) { kernels::AddF32(y, n, x); }
  static void Add(const Bf16* y, int64_t n, Bf16* x) { kernels::AddBf16(y, n, x); }
  static void SiluMul(const float* g, const float* u, int64_t n, float* out) {
    kernels::SiluMulF32(g, u, n, out);
  }
  static void SiluMul(const Bf16* g, const Bf16* u, int64_t n, Bf16* out) {
    kernels::SiluMulBf16(g, u, n, out);
  }
};

template <typename T>
class RowOpsTest : public testing::Test {
 protected:
  void SetUp() override { PLUMB_NEEDS_GPU(); }

  // Every width: aligned to 16 bytes or not, of less than a warp, of more than a thread keeps.
  const std::vector<int> widths_ = {1, 7, 64, 100, 576, 960, 4096, 4099, 8960, 20480};
  static constexpr int kRows = 5;

  // x of every size, then values at the edges of the format.
  std::vector<T> Edgy(size_t count, uint64_t seed, float spread) {
    std::vector<T> values = RandomValues<T>(count, seed, spread);
    const float edges[] = {0.0f,  -0.0f,  1e-40f,   -1e-40f,   1e30f,  -1e30f,
                           88.8f, -88.8f, INFINITY, -INFINITY, 127.0f, -0.0078125f};
    for (size_t i = 0; i < std::size(edges) && 3 * i < count; ++i) {
      values[3 * i] = Narrow<T>(edges[i]);
    }
    return values;
  }

  static bool EqualOrBothNan(const std::vector<T>& a, const std::vector<T>& b) {
    for (size_t i = 0; i < a.size(); ++i) {
      const float x = kernels::ToFloat(a[i]), y = kernels::ToFloat(b[i]);
      if (std::isnan(x) && std::isnan(y)) continue;
      if (std::memcmp(&a[i], &b[i], sizeof(T)) != 0) return false;
    }
    return true;
  }
};
using Dtypes = testing::Types<float, Bf16>;
TYPED_TEST_SUITE(RowOpsTest, Dtypes);

TYPED_TEST(RowOpsTest, AddEqualsTheCpuBitForBit) {
  using T = TypeParam;
  for (int width : this->widths_) {
    std::vector<T> x = this->Edgy(this->kRows * width, 1, 3), y = this->Edgy(x.size(), 2, 1);
    std::rotate(y.begin(), y.begin() + y.size() / 2, y.end());
    DeviceArray<T> d_x(x), d_y(y);
    EXPECT_CUDA_OK(LaunchAdd(kDtypeOf<T>, d_y.data(), this->kRows, width, d_x.data(), nullptr));
    CpuOps::Add(y.data(), x.size(), x.data());
    EXPECT_TRUE(this->EqualOrBothNan(d_x.Read(), x)) << width;
  }
}

TYPED_TEST(RowOpsTest, AddBiasEqualsTheCpuBitForBit) {
  using T = TypeParam;
  for (int width : this->widths_) {
    std::vector<T> x = this->Edgy(this->kRows * width, 3, 3);
    const std::vector<T> bias = RandomValues<T>(width, 4);
    DeviceArray<T> d_x(x), d_bias(bias);
    EXPECT_CUDA_OK(
        LaunchAddBias(kDtypeOf<T>, d_bias.data(), this->kRows, width, d_x.data(), nullptr));
    for (int row = 0; row < this->kRows; ++row) {
      CpuOps::Add(bias.data(), width, x.data() + int64_t{row} * width);
    }
    EXPECT_TRUE(this->EqualOrBothNan(d_x.Read(), x)) << width;
  }
}

TYPED_TEST(RowOpsTest, SiluMulEqualsTheCpuBitForBit) {
  using T = TypeParam;
  for (int inner : this->widths_) {
    for (float spread : {0.01f, 1.0f, 40.0f}) {
      const std::vector<T> gate_up = this->Edgy(2 * this->kRows * inner, 5, spread);
      DeviceArray<T> d_in(gate_up), d_out(size_t(this->kRows) * inner);
      EXPECT_CUDA_OK(
          LaunchSiluMul(kDtypeOf<T>, d_in.data(), this->kRows, inner, d_out.data(), nullptr));
      std::vector<T> want(d_out.size());
      for (int row = 0; row < this->kRows; ++row) {
        const T* gate = gate_up.data() + int64_t{row} * 2 * inner;
        CpuOps::SiluMul(gate, gate + inner, inner, want.data() + int64_t{row} * inner);
      }
      EXPECT_TRUE(this->EqualOrBothNan(d_out.Read(), want)) << inner << ", spread " << spread;
    }
  }
}

// Activations of bf16 take a shorter way than the CPU's; there are few enough numbers to try all.
TYPED_TEST(RowOpsTest, SiluOfEveryBf16NumberEqualsTheCpu) {
  using T = TypeParam;
  constexpr int kInner = 1 << 16;
  std::vector<T> gate_up(2 * kInner, Narrow<T>(1));
  for (int i = 0; i < kInner; ++i) {
    const uint32_t bits = static_cast<uint32_t>(i) << 16;
    float gate;
    std::memcpy(&gate, &bits, sizeof gate);
    gate_up[i] = Narrow<T>(gate);
  }
  DeviceArray<T> d_in(gate_up), d_out(kInner);
  EXPECT_CUDA_OK(LaunchSiluMul(kDtypeOf<T>, d_in.data(), 1, kInner, d_out.data(), nullptr));
  std::vector<T> want(kInner);
  CpuOps::SiluMul(gate_up.data(), gate_up.data() + kInner, kInner, want.data());
  EXPECT_TRUE(this->EqualOrBothNan(d_out.Read(), want));
  want[0x3f80] = Narrow<T>(kernels::ToFloat(want[0x3f80]) * 1.01f);
  EXPECT_FALSE(this->EqualOrBothNan(d_out.Read(), want));
}

TYPED_TEST(RowOpsTest, GatherAndEmbedCopyRowsAndZeroThoseWithoutToken) {
  using T = TypeParam;
  for (int width : this->widths_) {
    const std::vector<T> table = RandomValues<T>(9 * width, 6);
    const std::vector<int32_t> index = {8, -1, 0, 3, 3, -1, 7};
    const int rows = static_cast<int>(index.size());
    std::vector<T> want(rows * width, Narrow<T>(0));
    for (int row = 0; row < rows; ++row) {
      if (index[row] < 0) continue;
      std::copy_n(table.begin() + index[row] * width, width, want.begin() + row * width);
    }
    DeviceArray<T> d_table(table), gathered(want.size()), embedded(want.size());
    DeviceArray<int32_t> d_index(index);
    EXPECT_CUDA_OK(LaunchGather(kDtypeOf<T>, d_table.data(), d_index.data(), rows, width,
                                gathered.data(), nullptr));
    EXPECT_CUDA_OK(LaunchEmbed(kDtypeOf<T>, d_table.data(), d_index.data(), rows, width,
                               embedded.data(), nullptr));
    EXPECT_TRUE(SameBits(gathered.Read(), want)) << width;
    EXPECT_TRUE(SameBits(embedded.Read(), want)) << width;
  }
}

constexpr float kEps = 1e-5f;

// The largest error of a norm over its bound. Each result is rounded twice to the dtype; the sum
// of squares and the root are good to 2^-20 (a thread sums less than a hundred products).
template <typename T>
double WorstNorm(const std::vector<T>& x, const std::vector<T>& weight, const std::vector<T>& out,
                 double eps) {
  const double unit = sizeof(T) == 2 ? 0x1p-7 : 0x1p-23;  // two roundings
  const int width = static_cast<int>(weight.size());
  double worst = 0;
  for (size_t row = 0; row < x.size() / width; ++row) {
    double squares = 0;
    for (int i = 0; i < width; ++i) squares += std::pow(kernels::ToFloat(x[row * width + i]), 2);
    const double inverse = 1 / std::sqrt(squares / width + eps);
    for (int i = 0; i < width; ++i) {
      const double want =
          kernels::ToFloat(x[row * width + i]) * inverse * kernels::ToFloat(weight[i]);
      const double error = std::abs(kernels::ToFloat(out[row * width + i]) - want);
      const double ratio = error / (std::abs(want) * (unit * 1.01 + 0x1p-20) + 1e-37);
      worst = std::isnan(ratio) ? INFINITY : std::max(worst, ratio);
    }
  }
  return worst;
}

TYPED_TEST(RowOpsTest, AddNormEqualsDoublesAndStoresTheSum) {
  using T = TypeParam;
  for (int width : this->widths_) {
    std::vector<T> x = RandomValues<T>(this->kRows * width, 7, 2);
    const std::vector<T> added = RandomValues<T>(x.size(), 8, 0.5f);
    const std::vector<T> weight = RandomValues<T>(width, 9);
    DeviceArray<T> d_x(x), d_added(added), d_weight(weight), d_out(x.size());
    EXPECT_CUDA_OK(LaunchAddNorm(kDtypeOf<T>, nullptr, d_x.data(), d_weight.data(), kEps,
                                 this->kRows, width, d_out.data(), nullptr));
    EXPECT_LE(WorstNorm(x, weight, d_out.Read(), kEps), 1) << width;
    EXPECT_TRUE(SameBits(d_x.Read(), x)) << "nothing was added";
    EXPECT_CUDA_OK(LaunchAddNorm(kDtypeOf<T>, d_added.data(), d_x.data(), d_weight.data(), kEps,
                                 this->kRows, width, d_out.data(), nullptr));
    CpuOps::Add(added.data(), x.size(), x.data());
    EXPECT_TRUE(SameBits(d_x.Read(), x)) << width;
    EXPECT_LE(WorstNorm(x, weight, d_out.Read(), kEps), 1) << width;
  }
}

TYPED_TEST(RowOpsTest, NormBoundNoticesAMissingEpsilon) {
  using T = TypeParam;
  const std::vector<T> x = RandomValues<T>(4096, 7, 0.005f), weight = RandomValues<T>(4096, 9);
  DeviceArray<T> d_x(x), d_weight(weight), d_out(x.size());
  EXPECT_CUDA_OK(LaunchAddNorm(kDtypeOf<T>, nullptr, d_x.data(), d_weight.data(), kEps, 1, 4096,
                               d_out.data(), nullptr));
  EXPECT_LE(WorstNorm(x, weight, d_out.Read(), kEps), 1);
  EXPECT_GT(WorstNorm(x, weight, d_out.Read(), 0), 1.5);
}

TYPED_TEST(RowOpsTest, NormOfARowDoesNotDependOnItsPlace) {
  using T = TypeParam;
  for (int width : this->widths_) {
    const int rows = 64;
    const std::vector<T> x = RandomValues<T>(rows * width, 10), weight = RandomValues<T>(width, 11);
    std::vector<T> moved = RandomValues<T>(rows * width, 12);
    for (int row = 0; row < rows; row += 2) {
      std::copy_n(x.begin() + row * width, width, moved.begin() + (rows - 2 - row) * width);
    }
    DeviceArray<T> d_x(x), d_moved(moved), d_weight(weight), a(x.size()), b(x.size());
    EXPECT_CUDA_OK(LaunchAddNorm(kDtypeOf<T>, nullptr, d_x.data(), d_weight.data(), kEps, rows,
                                 width, a.data(), nullptr));
    EXPECT_CUDA_OK(LaunchAddNorm(kDtypeOf<T>, nullptr, d_moved.data(), d_weight.data(), kEps, rows,
                                 width, b.data(), nullptr));
    const std::vector<T> first = a.Read(), second = b.Read();
    for (int row = 0; row < rows; row += 2) {
      EXPECT_EQ(0, std::memcmp(first.data() + row * width, second.data() + (rows - 2 - row) * width,
                               width * sizeof(T)))
          << width;
    }
  }
}

}  // namespace
}  // namespace plumbline::cuda
