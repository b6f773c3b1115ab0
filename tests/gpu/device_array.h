// Arrays on the device for tests of kernels, and values as both dtypes hold them.
#pragma once

#include <cuda_runtime.h>
#include <gtest/gtest.h>

#include <cstdint>
#include <cstring>
#include <string>
#include <vector>

#include "kernels/bf16.h"
#include "kernels/cuda/step.h"

namespace plumbline {
inline bool operator==(Bf16 a, Bf16 b) { return a.bits == b.bits; }
}  // namespace plumbline

namespace plumbline::cuda {

inline bool HasGpu() {
  int count = 0;
  return cudaGetDeviceCount(&count) == cudaSuccess && count > 0;
}

#define PLUMB_NEEDS_GPU() \
  if (!::plumbline::cuda::HasGpu()) GTEST_SKIP() << "SKIPPED: no GPU"

#define EXPECT_CUDA_OK(expression) EXPECT_EQ(cudaGetErrorString(expression), Text("no error"))
inline std::string Text(const char* text) { return text; }

// Begins as bytes of 0xff: NaNs, so that what no one wrote is seen.
template <typename T>
class DeviceArray {
 public:
  explicit DeviceArray(size_t count) : count_(count) {
    EXPECT_EQ(cudaMalloc(reinterpret_cast<void**>(&data_), bytes() + 16), cudaSuccess);
    EXPECT_EQ(cudaMemset(data_, 0xff, bytes()), cudaSuccess);
  }
  explicit DeviceArray(const std::vector<T>& values) : DeviceArray(values.size()) {
    EXPECT_EQ(cudaMemcpy(data_, values.data(), bytes(), cudaMemcpyHostToDevice), cudaSuccess);
  }
  ~DeviceArray() { cudaFree(data_); }
  DeviceArray(const DeviceArray&) = delete;
  DeviceArray& operator=(const DeviceArray&) = delete;

  // Waits for the device.
  std::vector<T> Read() const {
    std::vector<T> values(count_);
    EXPECT_EQ(cudaMemcpy(values.data(), data_, bytes(), cudaMemcpyDeviceToHost), cudaSuccess);
    return values;
  }
  T* data() const { return data_; }
  size_t size() const { return count_; }

 private:
  size_t bytes() const { return count_ * sizeof(T); }
  size_t count_;
  T* data_ = nullptr;
};

template <typename T>
inline constexpr Dtype kDtypeOf = Dtype::kF32;
template <>
inline constexpr Dtype kDtypeOf<Bf16> = Dtype::kBf16;

template <typename T>
T Narrow(float x) {
  if constexpr (sizeof(T) == 2) {
    return kernels::ToBf16(x);
  } else {
    return x;
  }
}

// About normal; value i depends on seed and i alone.
template <typename T>
std::vector<T> RandomValues(size_t count, uint64_t seed, float spread = 1) {
  std::vector<T> values(count);
  for (size_t i = 0; i < count; ++i) {
    uint64_t z = (seed << 40) + (i + 1) * 0x9e3779b97f4a7c15u;
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
    z ^= z >> 31;
    const int64_t sum = (z & 0xffff) + (z >> 16 & 0xffff) + (z >> 32 & 0xffff) + (z >> 48);
    values[i] = Narrow<T>(spread * static_cast<float>(sum - 131070) / 37837.0f);
  }
  return values;
}

template <typename T>
bool SameBits(const std::vector<T>& a, const std::vector<T>& b) {
  return a.size() == b.size() && std::memcmp(a.data(), b.data(), a.size() * sizeof(T)) == 0;
}

}  // namespace plumbline::cuda
