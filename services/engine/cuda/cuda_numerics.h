// The text that names everything which decides the bits of a result on a GPU.
#pragma once

#include <string>

#include "kernels/cuda/step.h"

namespace plumbline {

struct CudaNumerics {
  cuda::Dtype dtype = cuda::Dtype::kBf16;
  std::string device;  // its name
  int multiprocessors = 0;
  int compute_major = 0, compute_minor = 0;
  int runtime = 0;  // versions, as CUDA numbers them
  int driver = 0;
  unsigned long cublaslt = 0;
  int chunk_rows = 0;
  std::string algorithms;  // of the products
};

// Named beside them: the host's C library; and the driver where it compiles our kernels itself, on
// every GPU but those that the code was built for.
std::string CudaNumericsClass(const CudaNumerics& numerics);

}  // namespace plumbline
