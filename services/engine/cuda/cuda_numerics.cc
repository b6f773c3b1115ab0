#include "services/engine/cuda/cuda_numerics.h"

#include "absl/strings/str_cat.h"
#include "kernels/cuda/attention.h"
#include "services/engine/cpu/numerics_class.h"

namespace plumbline {
namespace {

// Raise with every change that moves a bit of any result.
constexpr int kNumericsVersion = 2;

// cmake/PlumbCuda.cmake: code for 9.0, and PTX that drivers compile for everything later.
constexpr int kBuiltMajor = 9, kBuiltMinor = 0;

}  // namespace

std::string CudaNumericsClass(const CudaNumerics& numerics) {
  const bool built = numerics.compute_major == kBuiltMajor && numerics.compute_minor == kBuiltMinor;
  const std::string compiler = built ? "" : absl::StrCat(" driver=", numerics.driver);
  return absl::StrCat("cuda/", kNumericsVersion,
                      " dtype=", numerics.dtype == cuda::Dtype::kF32 ? "fp32" : "bf16", " device='",
                      numerics.device, "' sms=", numerics.multiprocessors,
                      " runtime=", numerics.runtime, compiler, " cublaslt=", numerics.cublaslt,
                      " chunk=", numerics.chunk_rows, " split=", cuda::kAttentionSplit, " ",
                      numerics.algorithms, " ", HostLibraryText());
}

}  // namespace plumbline
