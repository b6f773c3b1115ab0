#include "kernels/cuda/cublaslt_loader.h"

#include <cublasLt.h>
#include <dlfcn.h>

#include <cstdint>
#include <string>

namespace plumbline::cuda {
namespace {

struct Library {
  void* handle = nullptr;
  std::string problem;
};

Library Open() {
  Library library;
  const std::string name = "libcublasLt.so." + std::to_string(CUBLAS_VER_MAJOR);
  for (const char* folder : {"", "/usr/local/cuda/lib64/", "/usr/local/cuda/lib/"}) {
    library.handle = dlopen((folder + name).c_str(), RTLD_NOW | RTLD_LOCAL);
    if (library.handle != nullptr) return library;
    if (library.problem.empty()) library.problem = dlerror();
  }
  return library;
}

const Library& TheLibrary() {
  static const Library& library = *new Library(Open());
  return library;
}

void* Symbol(const char* name) {
  const Library& library = TheLibrary();
  return library.handle == nullptr ? nullptr : dlsym(library.handle, name);
}

}  // namespace

std::string CublasLtProblem() {
  const Library& library = TheLibrary();
  return library.handle != nullptr ? "" : library.problem;
}

}  // namespace plumbline::cuda

// The library's functions under their own names, each passed on to the library.
#define FORWARD(name, parameters, arguments)                                         \
  cublasStatus_t name parameters {                                                   \
    static const auto function =                                                     \
        reinterpret_cast<decltype(&name)>(plumbline::cuda::Symbol(#name));           \
    return function == nullptr ? CUBLAS_STATUS_NOT_INITIALIZED : function arguments; \
  }

extern "C" {

FORWARD(cublasLtCreate, (cublasLtHandle_t * handle), (handle))
FORWARD(cublasLtDestroy, (cublasLtHandle_t handle), (handle))

size_t cublasLtGetVersion() {
  static const auto function = reinterpret_cast<decltype(&cublasLtGetVersion)>(
      plumbline::cuda::Symbol("cublasLtGetVersion"));
  return function == nullptr ? 0 : function();
}

FORWARD(cublasLtMatmul,
        (cublasLtHandle_t handle, cublasLtMatmulDesc_t product, const void* alpha, const void* a,
         cublasLtMatrixLayout_t a_layout, const void* b, cublasLtMatrixLayout_t b_layout,
         const void* beta, const void* c, cublasLtMatrixLayout_t c_layout, void* d,
         cublasLtMatrixLayout_t d_layout, const cublasLtMatmulAlgo_t* algorithm, void* workspace,
         size_t workspace_bytes, cudaStream_t stream),
        (handle, product, alpha, a, a_layout, b, b_layout, beta, c, c_layout, d, d_layout,
         algorithm, workspace, workspace_bytes, stream))
FORWARD(cublasLtMatmulDescCreate,
        (cublasLtMatmulDesc_t * product, cublasComputeType_t compute, cudaDataType_t scale),
        (product, compute, scale))
FORWARD(cublasLtMatmulDescDestroy, (cublasLtMatmulDesc_t product), (product))
FORWARD(cublasLtMatmulDescSetAttribute,
        (cublasLtMatmulDesc_t product, cublasLtMatmulDescAttributes_t name, const void* value,
         size_t bytes),
        (product, name, value, bytes))
FORWARD(cublasLtMatrixLayoutCreate,
        (cublasLtMatrixLayout_t * layout, cudaDataType type, uint64_t rows, uint64_t columns,
         int64_t stride),
        (layout, type, rows, columns, stride))
FORWARD(cublasLtMatrixLayoutDestroy, (cublasLtMatrixLayout_t layout), (layout))
FORWARD(cublasLtMatmulPreferenceCreate, (cublasLtMatmulPreference_t * preference), (preference))
FORWARD(cublasLtMatmulPreferenceDestroy, (cublasLtMatmulPreference_t preference), (preference))
FORWARD(cublasLtMatmulPreferenceSetAttribute,
        (cublasLtMatmulPreference_t preference, cublasLtMatmulPreferenceAttributes_t name,
         const void* value, size_t bytes),
        (preference, name, value, bytes))
FORWARD(cublasLtMatmulAlgoGetHeuristic,
        (cublasLtHandle_t handle, cublasLtMatmulDesc_t product, cublasLtMatrixLayout_t a,
         cublasLtMatrixLayout_t b, cublasLtMatrixLayout_t c, cublasLtMatrixLayout_t d,
         cublasLtMatmulPreference_t preference, int wanted,
         cublasLtMatmulHeuristicResult_t results[], int* found),
        (handle, product, a, b, c, d, preference, wanted, results, found))
FORWARD(cublasLtMatmulAlgoConfigGetAttribute,
        (const cublasLtMatmulAlgo_t* algorithm, cublasLtMatmulAlgoConfigAttributes_t name,
         void* value, size_t bytes, size_t* written),
        (algorithm, name, value, bytes, written))

}  // extern "C"
