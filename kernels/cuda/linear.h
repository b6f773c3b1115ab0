// y = x W^T on tensor cores through cublasLt, with one algorithm chosen once for a shape and kept:
// the same number of rows, algorithm and workspace on every call, so a row of y depends on its row
// of x and on W alone. Create checks that on the device for the algorithm it returns. fp32 sums
// without TF32; bf16 sums in fp32 and rounds once.
#pragma once

#include <cublasLt.h>

#include <memory>
#include <string>

#include "kernels/cuda/step.h"

namespace plumbline::cuda {

// Why there is no product.
struct LinearFailure {
  cudaError_t error = cudaSuccess;  // CUDA's, out of memory among them; success: no fit algorithm
  std::string text;
};

class Linear {
 public:
  // A map [rows, in] -> [rows, out]; rows is fixed for life. Takes the library's algorithms in its
  // own order of preference, those whose partial sums go through atomics left out, and keeps the
  // first, after skipping `skip` of them, whose rows pass the check. The choice depends on device,
  // library and shape alone: nothing is timed. Null with *failure set when there is none; no CUDA
  // error is left behind for a later launch's check. For the check it allocates CheckBytes, and
  // frees them; waits for the device.
  static std::unique_ptr<Linear> Create(cublasLtHandle_t handle, Dtype dtype, int rows, int in,
                                        int out, int64_t workspace_bytes, LinearFailure* failure,
                                        int skip = 0);
  // GPU memory that Create takes while it runs: a weight, the rows before and after, a workspace.
  static int64_t CheckBytes(Dtype dtype, int rows, int in, int out, int64_t workspace_bytes);
  // x: [rows, in], weight: [out, in], y: [rows, out], dense device arrays, 16-byte aligned;
  // workspace: workspace_bytes() of them, 256-byte aligned. Recordable: as one kernel, with some
  // algorithms a second one or a memset of counters in the workspace before it.
  cudaError_t Run(const void* x, const void* weight, void* y, void* workspace,
                  cudaStream_t stream) const;
  // What was chosen, for the numerics class: algorithm id, tile, stages, split-K, reduction,
  // swizzle, custom option, inner shape, cluster.
  const std::string& algorithm() const;
  // What the chosen algorithm uses, at most the bytes given to Create.
  int64_t workspace_bytes() const;
  ~Linear();

  struct Impl;

 private:
  Linear();
  std::unique_ptr<Impl> impl_;
};

}  // namespace plumbline::cuda
