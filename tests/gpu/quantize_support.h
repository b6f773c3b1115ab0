// What the GPU tests of the quantizers share: device memory, random numbers, inputs that hit the
// edges of the arithmetic, every format of the grammar.
#pragma once

#include <cuda_runtime.h>

#include <cmath>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <string>
#include <vector>

#include "gtest/gtest.h"
#include "kernels/float_formats.h"
#include "services/quant/device_rules.h"
#include "services/quant/format_rules.h"
#include "tests/gpu/small_run.h"

namespace plumbline::gpu_test {

#define ASSERT_CUDA(expression)                                                                  \
  do {                                                                                           \
    const cudaError_t cuda_error = (expression);                                                 \
    ASSERT_EQ(cuda_error, cudaSuccess) << #expression << ": " << cudaGetErrorString(cuda_error); \
  } while (false)

inline void Check(cudaError_t error, const char* what) {
  if (error == cudaSuccess) return;
  std::fprintf(stderr, "%s: %s\n", what, cudaGetErrorString(error));
  std::abort();
}

// Empty where a GPU can be used, else why not.
inline std::string WhyNoGpu() {
  int devices = 0;
  const cudaError_t error = cudaGetDeviceCount(&devices);
  if (error != cudaSuccess) return cudaGetErrorString(error);
  return devices > 0 ? "" : "no device";
}

#define SKIP_WITHOUT_GPU()                                          \
  if (const std::string why = gpu_test::WhyNoGpu(); !why.empty()) { \
    GTEST_SKIP() << "SKIPPED: no GPU (" << why << ")";              \
  }

template <typename T>
class DeviceArray {
 public:
  DeviceArray() = default;
  explicit DeviceArray(size_t size) : size_(size) {
    if (size > 0) Check(cudaMalloc(&data_, size * sizeof(T)), "cudaMalloc");
  }
  explicit DeviceArray(const std::vector<T>& host) : DeviceArray(host.size()) { Put(host); }
  DeviceArray(DeviceArray&& other) noexcept { *this = std::move(other); }
  DeviceArray& operator=(DeviceArray&& other) noexcept {
    std::swap(data_, other.data_);
    std::swap(size_, other.size_);
    return *this;
  }
  ~DeviceArray() { cudaFree(data_); }
  void Put(const std::vector<T>& host) {
    if (host.empty()) return;
    Check(cudaMemcpy(data_, host.data(), host.size() * sizeof(T), cudaMemcpyHostToDevice), "copy");
  }
  std::vector<T> Get(size_t count) const {
    std::vector<T> host(count);
    if (count == 0) return host;
    Check(cudaMemcpy(host.data(), data_, count * sizeof(T), cudaMemcpyDeviceToHost), "copy back");
    return host;
  }
  std::vector<T> Get() const { return Get(size_); }
  T* data() const { return data_; }
  size_t size() const { return size_; }

 private:
  T* data_ = nullptr;
  size_t size_ = 0;
};

class Rng {
 public:
  explicit Rng(uint64_t seed) : state_(seed) {}
  uint64_t Next() {
    uint64_t z = state_ += 0x9e3779b97f4a7c15u;
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
    return z ^ (z >> 31);
  }
  int Below(int n) { return static_cast<int>(Next() % static_cast<uint64_t>(n)); }
  bool OneIn(int n) { return Below(n) == 0; }
  float Uniform() { return static_cast<float>(Next() >> 40) * 0x1p-24f; }
  // The sum of four uniform numbers, scaled: near enough to normal for data.
  float Normal() {
    const uint64_t bits = Next();
    int sum = -2 * 65535;
    for (int shift = 0; shift < 64; shift += 16) sum += static_cast<int>((bits >> shift) & 0xffff);
    return static_cast<float>(sum) * (1.7320508f / 65536.0f);
  }

 private:
  uint64_t state_;
};

// Raw rows of a tensor as bytes of its dtype.
using Bytes = std::vector<char>;

constexpr int kInputKinds = 9;
constexpr int kFiniteInputKinds = 6;  // the first ones

inline float InputValue(int kind, int row, int channel, Rng& rng) {
  const float x = rng.Normal();
  switch (kind) {
    case 1:  // an outlier channel
      return channel % 61 == 7 ? x * 4096.0f : x;
    case 2:  // rows of zeros of both signs
      return row % 2 == 0 ? (rng.OneIn(2) ? 0.0f : -0.0f) : x;
    case 3:  // ties: small integers and halves
      return static_cast<float>(rng.Below(31) - 15) * 0.5f;
    case 4:  // subnormals and tiny numbers
      return x * (rng.OneIn(2) ? 1e-40f : 1e-9f);
    case 5:  // one constant, or one sign only
      return row % 3 == 0 ? 0.37f : std::fabs(x);
    case 6:  // near the largest finite number
      return x * 1e38f;
    case 7:  // a few infinities and NaNs
      if (row % 2 == 0 || !rng.OneIn(40)) return x;
      return rng.OneIn(3) ? NAN : (rng.OneIn(2) ? INFINITY : -INFINITY);
    case 8:  // any bits
      return FloatFromBits(static_cast<uint32_t>(rng.Next()));
    default:
      return x;
  }
}

inline Bytes DrawRows(int kind, int rows, int channels, KvDtype dtype, Rng& rng) {
  Bytes bytes(static_cast<size_t>(rows) * channels * KvDtypeBytes(dtype));
  for (int i = 0; i < rows * channels; ++i) {
    const float x = InputValue(kind, i / channels, i % channels, rng);
    if (dtype == KvDtype::kF32) {
      std::memcpy(bytes.data() + i * 4, &x, 4);
      continue;
    }
    const uint16_t raw = static_cast<uint16_t>(rng.Next());
    const uint16_t half = kind == 8 ? raw : Bf16FromFloat(x);
    std::memcpy(bytes.data() + i * 2, &half, 2);
  }
  return bytes;
}

inline Calibration DrawCalibration(const TensorShape& shape, Rng& rng) {
  Calibration c;
  const int kind = rng.Below(4);
  for (int64_t i = 0; i < shape.flat_channels(); ++i) {
    const float unit = kind == 1 ? 0.0f : kind == 2 ? 1e-41f : kind == 3 ? 1e9f : 1.0f;
    const float low = unit * (rng.Normal() - 2.0f);
    const float high = low + unit * 4.0f * rng.Uniform();
    c.channel_min.push_back(low);
    c.channel_max.push_back(high);
    c.channel_absmax.push_back(std::fmax(std::fabs(low), std::fabs(high)));
  }
  return c;
}

// Differences of two arrays of floats or bf16. A NaN with another sign or payload counts apart.
struct Differences {
  int64_t compared = 0;
  int64_t different = 0;
  int64_t other_nan = 0;
  void Add(const Differences& more) {
    compared += more.compared;
    different += more.different;
    other_nan += more.other_nan;
  }
};

inline Differences CompareValues(const void* got, const void* want, size_t count, KvDtype dtype) {
  Differences d;
  d.compared = static_cast<int64_t>(count);
  const size_t size = KvDtypeBytes(dtype);
  if (std::memcmp(got, want, count * size) == 0) return d;
  const auto bits = [&](const void* from, size_t i) {
    uint32_t value = 0;
    std::memcpy(&value, static_cast<const char*>(from) + i * size, size);
    return dtype == KvDtype::kF32 ? value : value << 16;
  };
  for (size_t i = 0; i < count; ++i) {
    const uint32_t a = bits(got, i);
    const uint32_t b = bits(want, i);
    if (a == b) continue;
    const bool nans = IsNanBits(a) && IsNanBits(b);
    ++(nans ? d.other_nan : d.different);
  }
  return d;
}

}  // namespace plumbline::gpu_test
