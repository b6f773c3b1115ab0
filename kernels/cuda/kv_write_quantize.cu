#include <algorithm>

#include "kernels/cuda/kv_write_tensor.cuh"

namespace plumbline::cuda {
namespace {

constexpr int kThreads = 256;
constexpr int kTileRows = 4;

// Dense rows, read and written in place.
template <typename T>
struct DenseRows {
  T* base;
  int channels;

  __device__ void Load(int first, int count, float* tile) const {
    const T* from = base + int64_t{first} * channels;
    for (int i = threadIdx.x; i < count * channels; i += blockDim.x) tile[i] = ToFloat(from[i]);
    __syncthreads();
  }
  __device__ void Store(int first, int count, const float* tile) const {
    T* to = base + int64_t{first} * channels;
    for (int i = threadIdx.x; i < count * channels; i += blockDim.x) to[i] = Exactly<T>(tile[i]);
    __syncthreads();
  }
};

struct Sets {
  int begin, end, rows;  // rows of one set
};

// Block: one set of rows.
template <typename T>
__global__ void __launch_bounds__(kThreads)
    QuantizeRows(DenseRows<T> rows, int head_dim, TensorRule rule, Sets sets, SetTables tables) {
  extern __shared__ float4 shared[];
  const SetScratch s =
      CarveScratch(reinterpret_cast<float*>(shared), rows.channels, kTileRows, true);
  const int begin = sets.begin + static_cast<int>(blockIdx.x) * sets.rows;
  const int end = min(begin + sets.rows, sets.end);
  const int64_t first_group = int64_t{blockIdx.x} * rule.groups;
  if (tables.codes != nullptr) tables.codes += int64_t{begin} * rule.lanes;
  if (tables.scale != nullptr) tables.scale += first_group;
  if (tables.zero != nullptr) tables.zero += first_group;
  QuantizeSet<T>(rule, tables, head_dim, rows.channels, begin, end, s, rows);
}

Sets SetsOf(const TensorRule& rule, int tokens) {
  Sets sets{rule.sink, tokens, std::max(1, tokens - rule.sink)};
  if (rule.scope == RuleScope::kWindow) {
    const int eligible = std::max(0, tokens - rule.sink);
    sets.end = rule.sink + (rule.window_flush > 0 ? eligible / rule.window * rule.window
                                                  : std::max(0, eligible - rule.window));
    sets.rows = std::max(1, rule.window_flush);
  }
  if (!rule.whole_block) sets.rows = 1;
  return sets;
}

template <typename T>
cudaError_t Launch(int channels, int head_dim, const TensorRule& rule, int tokens, void* rows,
                   const SetTables& tables, cudaStream_t stream) {
  const Sets sets = SetsOf(rule, tokens);
  if (sets.end <= sets.begin) return cudaSuccess;
  const int64_t bytes = SetScratchBytes(channels, kTileRows, true);
  const cudaError_t error = cudaFuncSetAttribute(
      QuantizeRows<T>, cudaFuncAttributeMaxDynamicSharedMemorySize, static_cast<int>(bytes));
  if (error != cudaSuccess) return error;
  const int blocks = (sets.end - sets.begin + sets.rows - 1) / sets.rows;
  QuantizeRows<T><<<blocks, kThreads, bytes, stream>>>(
      DenseRows<T>{static_cast<T*>(rows), channels}, head_dim, rule, sets, tables);
  return cudaPeekAtLastError();
}

}  // namespace

cudaError_t LaunchQuantizeRows(Dtype dtype, int channels, int head_dim, const TensorRule& rule,
                               int64_t tokens, void* rows, uint8_t* codes, float* scale,
                               float* zero, cudaStream_t stream) {
  if (rule.fp) return cudaSuccess;
  if (tokens > INT32_MAX || channels < 1) return cudaErrorInvalidValue;
  SetTables tables;
  if (rule.scope == RuleScope::kCalibrated) {
    tables.known_scale = rule.frozen_scale;
    tables.known_zero = rule.frozen_zero;
  }
  tables.codes = codes;
  tables.scale = scale;
  tables.zero = zero;
  const int rows_in = static_cast<int>(tokens);
  if (dtype == Dtype::kF32) {
    return Launch<float>(channels, head_dim, rule, rows_in, rows, tables, stream);
  }
  return Launch<uint16_t>(channels, head_dim, rule, rows_in, rows, tables, stream);
}

}  // namespace plumbline::cuda
