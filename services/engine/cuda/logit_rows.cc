#include "services/engine/cuda/logit_rows.h"

#include <algorithm>

#include "kernels/bf16.h"
#include "services/common/parallel.h"
#include "services/common/status_macros.h"

namespace plumbline {
namespace {

constexpr int64_t kRowsAtOnce = 32;
constexpr int64_t kListBytes = cuda::kMaxTop * int64_t{sizeof(cuda::ProbableToken)};

}  // namespace

bool DeviceChooses(const LogitTask& task) {
  return !task.choose || task.forced >= 0 || task.sampling.temperature <= 0 ||
         task.sampling.top_p >= 1;
}

absl::StatusOr<std::unique_ptr<LogitRows>> LogitRows::Create(cuda::Dtype dtype, int vocab,
                                                             int max_lists, cudaStream_t stream) {
  std::unique_ptr<LogitRows> rows(new LogitRows(dtype, vocab));
  PLUMB_ASSIGN_OR_RETURN(rows->lists_,
                         DeviceBuffer::Create(max_lists * kListBytes, "lists of tokens"));
  // Lists are copied whole, also what a short one leaves.
  PLUMB_RETURN_IF_ERROR(CudaStatus(
      cudaMemsetAsync(rows->lists_.data(), 0, static_cast<size_t>(rows->lists_.bytes()), stream),
      "lists of tokens"));
  return rows;
}

absl::Status LogitRows::StartLists(const void* logits, const std::vector<Listed>& listed, int first,
                                   cudaStream_t stream) {
  for (size_t begin = 0; begin < listed.size(); begin += cuda::kMaxTopRows) {
    cuda::TopRows rows;
    for (size_t i = begin; i < listed.size() && rows.count < cuda::kMaxTopRows; ++i) {
      rows.row[rows.count++] = static_cast<uint16_t>(listed[i].row);
      rows.top = std::max(rows.top, listed[i].top);
    }
    PLUMB_RETURN_IF_ERROR(
        CudaStatus(cuda::LaunchTopTokens(dtype_, logits, vocab_, rows,
                                         lists_.as<cuda::ProbableToken>() +
                                             (first + static_cast<int64_t>(begin)) * cuda::kMaxTop,
                                         stream),
                   "the most probable tokens"));
  }
  return absl::OkStatus();
}

absl::Status LogitRows::CopyLists(int count, cuda::ProbableToken* to, cudaStream_t stream) const {
  if (count == 0) return absl::OkStatus();
  return CudaStatus(cudaMemcpyAsync(to, lists_.data(), static_cast<size_t>(count * kListBytes),
                                    cudaMemcpyDeviceToHost, stream),
                    "reading the most probable tokens");
}

std::vector<TopToken> LogitRows::ListOf(const LogitTask& task,
                                        const cuda::ProbableToken* list) const {
  std::vector<TopToken> tokens;
  for (int i = 0; i < std::min(task.top, vocab_); ++i) {
    tokens.push_back({list[i].token, list[i].log_probability});
  }
  return tokens;
}

absl::Status LogitRows::Read(const void* logits, const std::vector<Wanted>& wanted,
                             cudaStream_t stream) {
  const int64_t row_bytes = int64_t{vocab_} * DtypeBytes(dtype_);
  if (staged_.bytes() == 0 && !wanted.empty()) {
    PLUMB_ASSIGN_OR_RETURN(staged_, PinnedBuffer::Create(kRowsAtOnce * row_bytes, "logits"));
  }
  for (size_t first = 0; first < wanted.size(); first += kRowsAtOnce) {
    const int64_t count = std::min<int64_t>(kRowsAtOnce, wanted.size() - first);
    for (int64_t i = 0; i < count; ++i) {
      PLUMB_RETURN_IF_ERROR(CudaStatus(
          cudaMemcpyAsync(staged_.data() + i * row_bytes,
                          static_cast<const char*>(logits) + wanted[first + i].row * row_bytes,
                          static_cast<size_t>(row_bytes), cudaMemcpyDeviceToHost, stream),
          "reading logits"));
    }
    PLUMB_RETURN_IF_ERROR(CudaStatus(cudaStreamSynchronize(stream), "reading logits"));
    ParallelFor(count, 1, [&](int64_t begin, int64_t end) {
      std::vector<float> row(vocab_);
      for (int64_t i = begin; i < end; ++i) {
        const char* from = staged_.data() + i * row_bytes;
        if (dtype_ == cuda::Dtype::kF32) {
          std::copy_n(reinterpret_cast<const float*>(from), vocab_, row.begin());
        } else {
          std::transform(reinterpret_cast<const Bf16*>(from),
                         reinterpret_cast<const Bf16*>(from) + vocab_, row.begin(),
                         [](Bf16 x) { return kernels::ToFloat(x); });
        }
        *wanted[first + i].outcome = ReadLogits(row.data(), vocab_, *wanted[first + i].task);
      }
    });
  }
  return absl::OkStatus();
}

}  // namespace plumbline
