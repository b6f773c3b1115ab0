#include <algorithm>

#include "kernels/cuda/early_launch.cuh"
#include "kernels/cuda/kv_write.h"
#include "kernels/cuda/kv_write_held.cuh"

namespace plumbline::cuda {
namespace {

constexpr int kMaxRowThreads = 1024;
constexpr int kRunThreads = 256;
constexpr int64_t kMaxSharedBytes = 227 * 1024;
// Blocks of WriteRuns and rows that one takes at a time. In a step that is mostly generated tokens
// they have little to do and leave room beside them, so that the attention can start.
struct RunShape {
  int blocks, tile_rows;
};
constexpr RunShape kPromptRuns = {528, 8};
constexpr RunShape kTokenRuns = {264, 4};

// A row of the step by way of shared memory. Of rows that share statistics only the noise and the
// copies for the prompt's own attention are made here, and those that stay as they are.
template <typename T>
__device__ __forceinline__ void WriteTileRow(const RunTensor<T>& tensor, int position,
                                             const SetScratch& s) {
  tensor.LoadStepRow(position, s.tile);
  __syncthreads();
  if (tensor.is_exact()) {
    tensor.CopyRow(position, s.tile, tensor.turns(), tensor.ExactRow(position));
    __syncthreads();
  }
  if (!tensor.quantizes(position)) return tensor.StoreRaw(position, s.tile);
  if (tensor.rows_together()) return;
  if (tensor.quantizes_turned()) {
    TurnRow<T>(s.tile, tensor.channels(), tensor.head_dim(), tensor.angles(position));
    __syncthreads();
  }
  QuantizeTileRow<T>(tensor.rule, tensor.Tables(), tensor.head_dim(), tensor.channels(), s);
  tensor.StoreQuantized(position, s.tile);
}

// The same with the row in registers; `pack` is the thread's part of it.
template <typename T>
__device__ __forceinline__ void WriteHeldRow(const RunTensor<T>& tensor, int position, GroupFit fit,
                                             Pack<T> pack, const HeldAngles<T>& angles,
                                             const SetScratch& s) {
  const int head_dim = tensor.head_dim();
  HeldRow<T> row;
  row.channel = threadIdx.x * Pack<T>::kSize;
  row.present = row.channel < tensor.channels();
  if (tensor.run.jitter_seed != 0 && row.present) {
    JitterPack(JitterKey(tensor.run.jitter_seed, tensor.args.layer, position, tensor.value),
               row.channel, &pack);
    StorePack(tensor.StepRow(position) + row.channel, pack);
  }
  Unpack(pack, row.x);
  if (tensor.is_exact()) {
    HeldRow<T> exact = row;
    if (tensor.turns()) Turn(angles, head_dim, s.tile, &exact);
    if (row.present) StorePack(tensor.ExactRow(position) + row.channel, PackOf(exact));
    __syncthreads();
  }
  const bool quantizes = tensor.quantizes(position);
  if (quantizes && tensor.rows_together()) return;
  if (!quantizes && tensor.keeps_raw() && position >= tensor.rule.sink && row.present) {
    const int32_t page = tensor.PageOf(tensor.args.step.raw_pages, position);
    StorePack(tensor.InPage(page, position, row.channel), pack);
  }
  const int32_t page = tensor.PageOf(tensor.args.step.pages, position);
  const bool turned_first = quantizes && tensor.quantizes_turned();
  if (turned_first) Turn(angles, head_dim, s.tile, &row);
  if (quantizes) QuantizeHeld(tensor, fit, s.partial, &row);
  if (tensor.turns() && !turned_first) Turn(angles, head_dim, s.tile, &row);
  if (row.present) StorePack(tensor.InPage(page, position, row.channel), PackOf(row));
}

// Block (row, tensor). What does not depend on the row's run is loaded first.
template <typename T>
__global__ void __launch_bounds__(kMaxRowThreads) WriteRows(KvWrite args) {
  extern __shared__ float4 shared[];
  AllowNextKernel();
  const int step_row = blockIdx.x;
  const bool value = blockIdx.y != 0;
  const int head_dim = args.dims.head_dim;
  const int channels = args.dims.kv_dim();
  const int channel = threadIdx.x * Pack<T>::kSize;
  const int run_index = args.step.row_run[step_row];
  const int position = args.step.row_position[step_row];
  AwaitEarlierKernels();
  if (run_index < 0) return;
  Pack<T> pack = {};
  HeldAngles<T> angles = {};
  if (channel < channels) {
    pack = LoadPack(static_cast<const T*>(args.qkv) + int64_t{step_row} * args.dims.qkv_dim() +
                    args.dims.q_dim() + (value ? channels : 0) + channel);
    if (!value) LoadAngles(AnglesOf(args.rope, head_dim, position), channel, head_dim, &angles);
  }
  const Run run = args.step.runs[run_index];
  if (args.layer < run.start_layer) return;
  const TensorRule rule = RuleOf(args, run, value);
  const RunTensor<T> tensor{args, run, rule, value};
  const SetScratch s = CarveScratch(reinterpret_cast<float*>(shared), channels, 1, false);
  const GroupFit fit = rule.fp ? GroupFit::kBlock : FitOf(rule, head_dim, Pack<T>::kSize);
  if (fit != GroupFit::kNone && channels <= static_cast<int>(blockDim.x) * Pack<T>::kSize) {
    WriteHeldRow(tensor, position, fit, pack, angles, s);
  } else {
    WriteTileRow(tensor, position, s);
  }
}

// Rows that share statistics, and rows of earlier steps that leave their window.
template <typename T>
__device__ bool HasRunWork(const RunTensor<T>& tensor) {
  if (tensor.args.layer < tensor.run.start_layer) return false;
  return tensor.releases_rows() ||
         (tensor.rows_together() && tensor.quantized_begin() < tensor.quantized_end());
}

template <typename T>
__device__ void WriteRun(RunTensor<T> tensor, const SetScratch& s) {
  const bool together = tensor.rows_together();
  const int begin = tensor.quantized_begin();
  int end = tensor.quantized_end();
  int set = end - begin;
  if (tensor.rule.scope == RuleScope::kWindow) set = tensor.rule.window_flush;
  if (!together) {
    end = min(end, tensor.run.first_position);
    set = 1;
  }
  const SetTables tables = tensor.Tables();
  for (int t = begin; t < end; t += set) {
    QuantizeSet<T>(tensor.rule, tables, tensor.head_dim(), tensor.channels(), t, t + set, s,
                   tensor);
  }
}

// Each block looks after every gridDim.x-th pair of run and tensor: most have nothing to do here.
template <typename T>
__global__ void __launch_bounds__(kRunThreads, 4) WriteRuns(KvWrite args, int tile_rows) {
  extern __shared__ float4 shared[];
  AllowNextKernel();
  const SetScratch s =
      CarveScratch(reinterpret_cast<float*>(shared), args.dims.kv_dim(), tile_rows, true);
  const int items = 2 * args.step.max_runs;
  for (int base = blockIdx.x; base < items; base += gridDim.x * blockDim.x) {
    const int mine = base + static_cast<int>(threadIdx.x * gridDim.x);
    bool work = false;
    if (mine < items && args.step.runs[mine / 2].rows > 0) {
      const Run& run = args.step.runs[mine / 2];
      const bool value = mine % 2 != 0;
      work = HasRunWork(RunTensor<T>{args, run, RuleOf(args, run, value), value});
    }
    AwaitEarlierKernels();
    if (!__syncthreads_or(work)) continue;
    for (int t = 0; t < static_cast<int>(blockDim.x); ++t) {
      const int item = base + t * static_cast<int>(gridDim.x);
      if (item >= items) break;
      if (!__syncthreads_or(work && static_cast<int>(threadIdx.x) == t)) continue;
      const Run& run = args.step.runs[item / 2];
      const bool value = item % 2 != 0;
      WriteRun(RunTensor<T>{args, run, RuleOf(args, run, value), value}, s);
    }
  }
}

template <typename Kernel>
cudaError_t AllowShared(Kernel* kernel, int64_t bytes) {
  if (bytes > kMaxSharedBytes) return cudaErrorInvalidValue;
  const cudaError_t error = cudaFuncSetAttribute(
      kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, static_cast<int>(bytes));
  return error == cudaSuccess ? ShareEvenly(kernel) : error;
}

template <typename T>
cudaError_t Launch(const KvWrite& args, cudaStream_t stream) {
  const int channels = args.dims.kv_dim();
  const int64_t row_bytes = SetScratchBytes(channels, 1, false);
  const RunShape runs = args.step.max_rows > args.step.max_runs ? kPromptRuns : kTokenRuns;
  int tile_rows = runs.tile_rows;
  while (tile_rows > 1 && SetScratchBytes(channels, tile_rows, true) > kMaxSharedBytes) --tile_rows;
  const int64_t run_bytes = SetScratchBytes(channels, tile_rows, true);
  cudaError_t error = AllowShared(WriteRows<T>, row_bytes);
  if (error == cudaSuccess) error = AllowShared(WriteRuns<T>, run_bytes);
  if (error != cudaSuccess) return error;
  const int packs = (channels / Pack<T>::kSize + 31) / 32 * 32;
  const int row_threads = std::min(packs, kMaxRowThreads);
  error =
      LaunchEarly(WriteRows<T>, dim3(args.step.max_rows, 2), row_threads, row_bytes, stream, args);
  if (error != cudaSuccess) return error;
  return LaunchEarly(WriteRuns<T>, std::min(2 * args.step.max_runs, runs.blocks), kRunThreads,
                     run_bytes, stream, args, tile_rows);
}

}  // namespace

int MostKvDim() {
  const int64_t fixed = SetScratchBytes(0, 1, true), channel = SetScratchBytes(1, 1, true) - fixed;
  return static_cast<int>((kMaxSharedBytes - fixed) / channel);
}

cudaError_t LaunchKvWrite(const KvWrite& args, cudaStream_t stream) {
  const ModelDims& d = args.dims;
  if (d.head_dim % 16 != 0 || d.kv_heads < 1 || args.step.max_rows < 1 || args.step.max_runs < 1) {
    return cudaErrorInvalidValue;
  }
  return args.dtype == Dtype::kF32 ? Launch<float>(args, stream) : Launch<uint16_t>(args, stream);
}

}  // namespace plumbline::cuda
