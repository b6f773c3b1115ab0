#include "kernels/cuda/early_launch.cuh"
#include "kernels/cuda/feed.h"

namespace plumbline::cuda {
namespace {

constexpr int kThreads = 256;

__global__ void Feed(const int32_t* source, const int32_t* fed, int rows, int vocab,
                     int32_t* tokens) {
  AllowNextKernel();
  const int row = blockIdx.x * kThreads + threadIdx.x;
  if (row >= rows) return;
  const int32_t from = source[row];
  if (from >= -1) {
    tokens[row] = from;
    return;
  }
  const int32_t token = fed[-2 - from];
  tokens[row] = token >= 0 && token < vocab ? token : 0;
}

}  // namespace

cudaError_t LaunchFeed(const int32_t* source, const int32_t* fed, int rows, int vocab,
                       int32_t* tokens, cudaStream_t stream) {
  if (rows == 0) return cudaSuccess;
  Feed<<<(rows + kThreads - 1) / kThreads, kThreads, 0, stream>>>(source, fed, rows, vocab, tokens);
  return cudaPeekAtLastError();
}

}  // namespace plumbline::cuda
