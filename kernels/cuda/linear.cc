#include "kernels/cuda/linear.h"

#include <algorithm>
#include <cstring>
#include <random>
#include <vector>

namespace plumbline::cuda {

struct Linear::Impl {
  cublasLtHandle_t handle = nullptr;
  cublasLtMatmulDesc_t product = nullptr;
  cublasLtMatrixLayout_t weight = nullptr, x = nullptr, y = nullptr;
  cublasLtMatmulAlgo_t algorithm = {};
  int64_t workspace_bytes = 0;
  std::string text;

  ~Impl() {
    if (product) cublasLtMatmulDescDestroy(product);
    for (cublasLtMatrixLayout_t layout : {weight, x, y}) {
      if (layout) cublasLtMatrixLayoutDestroy(layout);
    }
  }

  // Row-major y[rows, out] = x[rows, in] weight[out, in]^T is, to a library that counts columns,
  // y'[out, rows] = weight'^T x'.
  bool Describe(Dtype dtype, int rows, int in, int out) {
    const cudaDataType_t type = dtype == Dtype::kBf16 ? CUDA_R_16BF : CUDA_R_32F;
    const cublasOperation_t transposed = CUBLAS_OP_T;
    constexpr cublasStatus_t kOk = CUBLAS_STATUS_SUCCESS;
    return cublasLtMatmulDescCreate(&product, CUBLAS_COMPUTE_32F, CUDA_R_32F) == kOk &&
           cublasLtMatmulDescSetAttribute(product, CUBLASLT_MATMUL_DESC_TRANSA, &transposed,
                                          sizeof transposed) == kOk &&
           cublasLtMatrixLayoutCreate(&weight, type, in, out, in) == kOk &&
           cublasLtMatrixLayoutCreate(&x, type, in, rows, in) == kOk &&
           cublasLtMatrixLayoutCreate(&y, type, out, rows, out) == kOk;
  }

  cublasStatus_t Multiply(const void* x_data, const void* weight_data, void* y_data,
                          void* workspace, cudaStream_t stream) const {
    const float one = 1, zero = 0;
    return cublasLtMatmul(handle, product, &one, weight_data, weight, x_data, x, &zero, y_data, y,
                          y_data, y, &algorithm, workspace, workspace_bytes, stream);
  }
};

namespace {

// How many of the library's proposals are looked at.
constexpr int kMostAlgorithms = 32;

class DeviceBytes {
 public:
  explicit DeviceBytes(int64_t bytes) : error_(cudaMalloc(&data_, std::max<int64_t>(bytes, 1))) {}
  ~DeviceBytes() {
    if (data_ != nullptr) cudaFree(data_);
  }
  DeviceBytes(const DeviceBytes&) = delete;
  DeviceBytes& operator=(const DeviceBytes&) = delete;
  char* data() const { return static_cast<char*>(data_); }
  cudaError_t error() const { return error_; }

 private:
  void* data_ = nullptr;
  cudaError_t error_;
};

template <typename T>
bool Set(cublasLtMatmulPreference_t preference, cublasLtMatmulPreferenceAttributes_t attribute,
         T value) {
  return cublasLtMatmulPreferenceSetAttribute(preference, attribute, &value, sizeof value) ==
         CUBLAS_STATUS_SUCCESS;
}

// In-place reduction orders its additions by who comes first.
bool Restrict(cublasLtMatmulPreference_t preference, int64_t workspace_bytes) {
  constexpr uint32_t kReductions =
      CUBLASLT_REDUCTION_SCHEME_COMPUTE_TYPE | CUBLASLT_REDUCTION_SCHEME_OUTPUT_TYPE;
  constexpr uint32_t kAlignment = 16;
  return Set(preference, CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES,
             static_cast<uint64_t>(workspace_bytes)) &&
         Set(preference, CUBLASLT_MATMUL_PREF_REDUCTION_SCHEME_MASK, kReductions) &&
         Set(preference, CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_A_BYTES, kAlignment) &&
         Set(preference, CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_B_BYTES, kAlignment) &&
         Set(preference, CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_C_BYTES, kAlignment) &&
         Set(preference, CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_D_BYTES, kAlignment);
}

template <typename T>
long Attribute(const cublasLtMatmulAlgo_t& algorithm, cublasLtMatmulAlgoConfigAttributes_t name) {
  T value = 0;
  size_t written = 0;
  if (cublasLtMatmulAlgoConfigGetAttribute(&algorithm, name, &value, sizeof value, &written) !=
      CUBLAS_STATUS_SUCCESS) {
    return -1;
  }
  return static_cast<long>(value);
}

std::string AlgorithmText(const cublasLtMatmulAlgo_t& algorithm) {
  const auto part = [](const char* name, long value) { return name + std::to_string(value); };
  return part("id", Attribute<int32_t>(algorithm, CUBLASLT_ALGO_CONFIG_ID)) +
         part(" tile", Attribute<uint32_t>(algorithm, CUBLASLT_ALGO_CONFIG_TILE_ID)) +
         part(" stages", Attribute<uint32_t>(algorithm, CUBLASLT_ALGO_CONFIG_STAGES_ID)) +
         part(" splitk", Attribute<int32_t>(algorithm, CUBLASLT_ALGO_CONFIG_SPLITK_NUM)) +
         part(" reduction", Attribute<uint32_t>(algorithm, CUBLASLT_ALGO_CONFIG_REDUCTION_SCHEME)) +
         part(" swizzle", Attribute<uint32_t>(algorithm, CUBLASLT_ALGO_CONFIG_CTA_SWIZZLING)) +
         part(" custom", Attribute<uint32_t>(algorithm, CUBLASLT_ALGO_CONFIG_CUSTOM_OPTION)) +
         part(" inner", Attribute<uint16_t>(algorithm, CUBLASLT_ALGO_CONFIG_INNER_SHAPE_ID)) +
         part(" cluster", Attribute<uint16_t>(algorithm, CUBLASLT_ALGO_CONFIG_CLUSTER_SHAPE_ID));
}

// Random values, the same on every call.
std::vector<char> RandomValues(Dtype dtype, int64_t count, uint32_t seed) {
  std::mt19937 random(seed);
  std::vector<char> bytes(count * DtypeBytes(dtype));
  for (int64_t i = 0; i < count; ++i) {
    const float value = static_cast<float>(static_cast<int32_t>(random())) * 0x1p-31f;
    uint32_t bits;
    std::memcpy(&bits, &value, sizeof bits);
    const uint16_t upper = static_cast<uint16_t>(bits >> 16);
    if (dtype == Dtype::kBf16) {
      std::memcpy(&bytes[i * 2], &upper, sizeof upper);
    } else {
      std::memcpy(&bytes[i * 4], &bits, sizeof bits);
    }
  }
  return bytes;
}

// Whether rows keep their bits when they change places and every other row changes: a product of
// random matrices, then one with the even rows elsewhere (in odd places, where rows are even in
// number) and all others replaced.
class RowCheck {
 public:
  RowCheck(Dtype dtype, int rows, int in, int out, int64_t workspace_bytes)
      : rows_(rows),
        x_bytes_(int64_t{in} * DtypeBytes(dtype)),
        y_bytes_(int64_t{out} * DtypeBytes(dtype)),
        x_(rows * x_bytes_),
        weight_(out * x_bytes_),
        y_(rows * y_bytes_),
        workspace_(workspace_bytes),
        first_(RandomValues(dtype, int64_t{rows} * in, 1)),
        second_(RandomValues(dtype, int64_t{rows} * in, 2)) {
    for (const DeviceBytes* bytes : {&x_, &weight_, &y_, &workspace_}) {
      if (bytes->error() != cudaSuccess) error_ = bytes->error();
    }
    // An algorithm that leaves part of its result unwritten, or reads more of the workspace than it
    // wrote, is not judged by what lay there before.
    if (error_ == cudaSuccess) error_ = cudaMemset(y_.data(), 0, rows * y_bytes_);
    if (error_ == cudaSuccess) error_ = cudaMemset(workspace_.data(), 0, workspace_bytes);
    for (int i = 0; i < rows; i += 2) {
      std::memcpy(&second_[Moved(i) * x_bytes_], &first_[i * x_bytes_], x_bytes_);
    }
    // One random block over and over; its length shares no factor with rows of a power of two.
    const std::vector<char> block = RandomValues(dtype, 65537, 3);
    const int64_t block_bytes = static_cast<int64_t>(block.size());
    for (int64_t begin = 0; begin < out * x_bytes_ && error_ == cudaSuccess; begin += block_bytes) {
      const int64_t bytes = std::min(block_bytes, out * x_bytes_ - begin);
      error_ = cudaMemcpy(weight_.data() + begin, block.data(), bytes, cudaMemcpyHostToDevice);
    }
  }

  cudaError_t error() const { return error_; }

  // *error: what CUDA says where that kept the products from being compared.
  bool Passes(const Linear::Impl& linear, cudaError_t* error) const {
    std::vector<char> y1(rows_ * y_bytes_), y2(rows_ * y_bytes_);
    if (!Product(linear, first_, &y1, error) || !Product(linear, second_, &y2, error)) return false;
    for (int i = 0; i < rows_; i += 2) {
      if (std::memcmp(&y1[i * y_bytes_], &y2[Moved(i) * y_bytes_], y_bytes_) != 0) return false;
    }
    return true;
  }

 private:
  // Every row has a place of its own: the step shares no factor with the number of rows.
  int64_t Moved(int row) const { return (int64_t{row} * (rows_ % 5 == 0 ? 1 : 5) + 1) % rows_; }

  // An algorithm that the library refuses to run is no error of CUDA's.
  bool Product(const Linear::Impl& linear, const std::vector<char>& x, std::vector<char>* y,
               cudaError_t* error) const {
    *error = cudaMemcpy(x_.data(), x.data(), x.size(), cudaMemcpyHostToDevice);
    if (*error != cudaSuccess) return false;
    const cublasStatus_t status =
        linear.Multiply(x_.data(), weight_.data(), y_.data(), workspace_.data(), nullptr);
    if (status == CUBLAS_STATUS_ALLOC_FAILED) *error = cudaErrorMemoryAllocation;
    if (status != CUBLAS_STATUS_SUCCESS) return false;
    *error = cudaMemcpy(y->data(), y_.data(), y->size(), cudaMemcpyDeviceToHost);
    return *error == cudaSuccess;
  }

  const int rows_;
  const int64_t x_bytes_, y_bytes_;  // of a row
  DeviceBytes x_, weight_, y_, workspace_;
  std::vector<char> first_, second_;
  cudaError_t error_ = cudaSuccess;
};

std::vector<cublasLtMatmulHeuristicResult_t> Proposals(const Linear::Impl& linear) {
  cublasLtMatmulPreference_t preference = nullptr;
  if (cublasLtMatmulPreferenceCreate(&preference) != CUBLAS_STATUS_SUCCESS) return {};
  std::vector<cublasLtMatmulHeuristicResult_t> results(kMostAlgorithms);
  int found = 0;
  if (!Restrict(preference, linear.workspace_bytes) ||
      cublasLtMatmulAlgoGetHeuristic(linear.handle, linear.product, linear.weight, linear.x,
                                     linear.y, linear.y, preference, kMostAlgorithms,
                                     results.data(), &found) != CUBLAS_STATUS_SUCCESS) {
    found = 0;
  }
  cublasLtMatmulPreferenceDestroy(preference);
  std::vector<cublasLtMatmulHeuristicResult_t> proposals;
  for (int i = 0; i < found; ++i) {
    const cublasLtMatmulHeuristicResult_t& result = results[i];
    if (result.state != CUBLAS_STATUS_SUCCESS) continue;
    if (static_cast<int64_t>(result.workspaceSize) > linear.workspace_bytes) continue;
    if (Attribute<uint32_t>(result.algo, CUBLASLT_ALGO_CONFIG_REDUCTION_SCHEME) ==
        CUBLASLT_REDUCTION_SCHEME_INPLACE) {
      continue;
    }
    proposals.push_back(result);
  }
  return proposals;
}

std::string ShapeText(int rows, int in, int out) {
  return "[" + std::to_string(rows) + ", " + std::to_string(in) + "] x [" + std::to_string(in) +
         ", " + std::to_string(out) + "]";
}

std::unique_ptr<Linear> CheckFailed(cudaError_t error, const std::string& shape,
                                    LinearFailure* failure) {
  cudaGetLastError();  // an allocation that failed must not fail the next launch's check
  failure->error = error;
  failure->text = "checking the product " + shape + ": " + cudaGetErrorString(error);
  return nullptr;
}

}  // namespace

Linear::Linear() : impl_(new Impl) {}
Linear::~Linear() = default;

int64_t Linear::CheckBytes(Dtype dtype, int rows, int in, int out, int64_t workspace_bytes) {
  const int64_t values = (int64_t{rows} + out) * in + int64_t{rows} * out;
  return values * DtypeBytes(dtype) + workspace_bytes;
}

std::unique_ptr<Linear> Linear::Create(cublasLtHandle_t handle, Dtype dtype, int rows, int in,
                                       int out, int64_t workspace_bytes, LinearFailure* failure,
                                       int skip) {
  std::unique_ptr<Linear> linear(new Linear);
  Impl* impl = linear->impl_.get();
  impl->handle = handle;
  impl->workspace_bytes = workspace_bytes;
  const std::string shape = ShapeText(rows, in, out);
  *failure = {};
  if (!impl->Describe(dtype, rows, in, out)) {
    failure->text = "cublasLt cannot describe the product " + shape;
    return nullptr;
  }
  const RowCheck check(dtype, rows, in, out, workspace_bytes);
  if (check.error() != cudaSuccess) return CheckFailed(check.error(), shape, failure);
  const std::vector<cublasLtMatmulHeuristicResult_t> proposals = Proposals(*impl);
  for (const cublasLtMatmulHeuristicResult_t& proposal : proposals) {
    impl->algorithm = proposal.algo;
    impl->workspace_bytes = static_cast<int64_t>(proposal.workspaceSize);
    cudaError_t error = cudaSuccess;
    const bool passes = check.Passes(*impl, &error);
    if (error != cudaSuccess) return CheckFailed(error, shape, failure);
    if (!passes || skip-- > 0) continue;
    impl->text = AlgorithmText(proposal.algo);
    return linear;
  }
  failure->text = "none of " + std::to_string(proposals.size()) +
                  " cublasLt algorithms for the product " + shape + " with " +
                  std::to_string(workspace_bytes) +
                  " bytes of workspace gives a row the same bits wherever it stands";
  return nullptr;
}

cudaError_t Linear::Run(const void* x, const void* weight, void* y, void* workspace,
                        cudaStream_t stream) const {
  const cublasStatus_t status = impl_->Multiply(x, weight, y, workspace, stream);
  if (status == CUBLAS_STATUS_ALLOC_FAILED) return cudaErrorMemoryAllocation;
  return status == CUBLAS_STATUS_SUCCESS ? cudaPeekAtLastError() : cudaErrorUnknown;
}

const std::string& Linear::algorithm() const { return impl_->text; }
int64_t Linear::workspace_bytes() const { return impl_->workspace_bytes; }

}  // namespace plumbline::cuda
