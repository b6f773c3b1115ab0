#include "kernels/cuda/kv_write.h"
#include "kernels/cuda/kv_write_tensor.cuh"

namespace plumbline::cuda {
namespace {

constexpr int kRowThreads = 128;
constexpr int kRunThreads = 256;
constexpr int64_t kMaxSharedBytes = 227 * 1024;
constexpr int kMaxTileRows = 8;

// Block (row, tensor): a row that stands alone.
template <typename T>
__global__ void __launch_bounds__(kRowThreads, 8) WriteRows(KvWrite args) {
  extern __shared__ float4 shared[];
  const int row = blockIdx.x;
  const bool value = blockIdx.y != 0;
  const int run_index = args.step.row_run[row];
  if (run_index < 0) return;
  const Run& run = args.step.runs[run_index];
  if (args.layer < run.start_layer) return;
  const RunTensor<T> tensor{args, run, RuleOf<T>(args, run, value), value};
  if (tensor.rows_together()) return;
  const int channels = tensor.channels();
  const SetScratch s = CarveScratch(reinterpret_cast<float*>(shared), channels, 1, false);
  const int position = run.first_position + (row - run.first_row);
  tensor.LoadStepRow(position, s.tile);
  __syncthreads();
  if (tensor.is_exact()) {
    tensor.CopyRow(position, s.tile, tensor.turns(), tensor.ExactRow(position));
  }
  if (tensor.rule.fp || position < tensor.rule.sink || position >= tensor.quantized_end()) {
    return tensor.StoreRaw(position, s.tile);
  }
  if (tensor.quantizes_turned()) {
    __syncthreads();
    TurnRow<T>(s.tile, channels, tensor.head_dim(), tensor.angles(position));
    __syncthreads();
  } else if (tensor.is_exact()) {
    __syncthreads();
  }
  QuantizeTileRow<T>(tensor.rule, tensor.Tables(), tensor.head_dim(), channels, s);
  tensor.StoreQuantized(position, s.tile);
}

// The run's own rows: noise, exact copies, and those that stay as they are.
template <typename T>
__device__ void WriteRawRows(const RunTensor<T>& tensor, const SetScratch& s) {
  const int begin = tensor.quantized_begin();
  const int end = tensor.quantized_end();
  const bool untouched = tensor.run.jitter_seed == 0 && !tensor.is_exact();
  for (int p = tensor.run.first_position; p < tensor.end(); ++p) {
    const bool quantized = p >= begin && p < end;
    if (untouched && quantized) continue;
    tensor.LoadStepRow(p, s.tile);
    __syncthreads();
    if (tensor.is_exact()) tensor.CopyRow(p, s.tile, tensor.turns(), tensor.ExactRow(p));
    if (!quantized) tensor.StoreRaw(p, s.tile);
    __syncthreads();
  }
}

// Block (run, tensor): rows that share statistics, and rows that leave a window.
template <typename T>
__global__ void __launch_bounds__(kRunThreads) WriteRuns(KvWrite args, int tile_rows) {
  extern __shared__ float4 shared[];
  const bool value = blockIdx.y != 0;
  const Run& run = args.step.runs[blockIdx.x];
  if (run.rows == 0 || args.layer < run.start_layer) return;
  RunTensor<T> tensor{args, run, RuleOf<T>(args, run, value), value};
  const bool together = tensor.rows_together();
  if (!together && !tensor.releases_rows()) return;
  const int channels = tensor.channels();
  const SetScratch s = CarveScratch(reinterpret_cast<float*>(shared), channels, tile_rows, true);
  if (together) WriteRawRows(tensor, s);
  const int begin = tensor.quantized_begin();
  const int end =
      together ? tensor.quantized_end() : min(tensor.quantized_end(), run.first_position);
  int set = max(1, end - begin);
  if (!together) set = 1;
  if (together && tensor.rule.scope == RuleScope::kWindow) set = tensor.rule.window_flush;
  const SetTables tables = tensor.Tables();
  for (int t = begin; t < end; t += set) {
    QuantizeSet<T>(tensor.rule, tables, tensor.head_dim(), channels, t, min(t + set, end), s,
                   tensor);
  }
}

template <typename Kernel>
cudaError_t AllowShared(Kernel kernel, int64_t bytes) {
  if (bytes > kMaxSharedBytes) return cudaErrorInvalidValue;
  return cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize,
                              static_cast<int>(bytes));
}

template <typename T>
cudaError_t Launch(const KvWrite& args, cudaStream_t stream) {
  const int channels = args.dims.kv_dim();
  const int64_t row_bytes = SetScratchBytes(channels, 1, false);
  int tile_rows = kMaxTileRows;
  while (tile_rows > 1 && SetScratchBytes(channels, tile_rows, true) > kMaxSharedBytes) --tile_rows;
  const int64_t run_bytes = SetScratchBytes(channels, tile_rows, true);
  cudaError_t error = AllowShared(WriteRows<T>, row_bytes);
  if (error == cudaSuccess) error = AllowShared(WriteRuns<T>, run_bytes);
  if (error != cudaSuccess) return error;
  WriteRows<T><<<dim3(args.step.max_rows, 2), kRowThreads, row_bytes, stream>>>(args);
  error = cudaPeekAtLastError();
  if (error != cudaSuccess) return error;
  WriteRuns<T><<<dim3(args.step.max_runs, 2), kRunThreads, run_bytes, stream>>>(args, tile_rows);
  return cudaPeekAtLastError();
}

}  // namespace

cudaError_t LaunchKvWrite(const KvWrite& args, cudaStream_t stream) {
  const ModelDims& d = args.dims;
  if (d.head_dim % 16 != 0 || d.kv_heads < 1 || args.step.max_rows < 1 || args.step.max_runs < 1) {
    return cudaErrorInvalidValue;
  }
  return args.dtype == Dtype::kF32 ? Launch<float>(args, stream) : Launch<uint16_t>(args, stream);
}

}  // namespace plumbline::cuda
