#include "services/engine/cuda/measure_space.h"

#include <algorithm>

#include "services/common/status_macros.h"

namespace plumbline {
namespace {

int64_t SlotBytes(const cuda::ModelDims& dims) {
  return dims.layers * cuda::MeasuredLayerBytes(dims);
}

}  // namespace

MeasureSpace::MeasureSpace(const cuda::ModelDims& dims, int64_t bytes, int max_runs,
                           cudaStream_t stream)
    : dims_(dims), bytes_(bytes), max_runs_(max_runs), stream_(stream) {}

MeasureSpace::~MeasureSpace() {
  if (copies_.get() != nullptr) cudaStreamSynchronize(copies_.get());
}

absl::Status MeasureSpace::Open() {
  if (slots_ > 0) return absl::OkStatus();
  const int64_t fitting = bytes_ / 2 / SlotBytes(dims_);
  const int slots = static_cast<int>(std::clamp<int64_t>(fitting, 1, max_runs_));
  const int64_t bytes = 2 * slots * SlotBytes(dims_);
  PLUMB_ASSIGN_OR_RETURN(device_, DeviceBuffer::Create(bytes, "statistics of prompts"));
  // A block's last bytes pad it to a multiple of 8: no kernel writes them, and they are copied too.
  PLUMB_RETURN_IF_ERROR(
      CudaStatus(cudaMemsetAsync(device_.data(), 0, bytes, stream_), "statistics of prompts"));
  PLUMB_ASSIGN_OR_RETURN(host_, PinnedBuffer::Create(bytes, "statistics of prompts"));
  PLUMB_ASSIGN_OR_RETURN(copies_, Stream::Create());
  for (Half& half : halves_) {
    PLUMB_ASSIGN_OR_RETURN(half.written, Event::Create());
    PLUMB_ASSIGN_OR_RETURN(half.copied, Event::Create());
  }
  slots_ = slots;
  return absl::OkStatus();
}

absl::StatusOr<int> MeasureSpace::Take() {
  const int half = next_;
  if (halves_[half].busy) {
    return absl::InternalError("more than two steps with measured prompts are under way");
  }
  halves_[half].busy = true;
  next_ = 1 - next_;
  return half;
}

absl::Status MeasureSpace::StartCopy(int half, int count) {
  const int64_t offset = FirstSlot(half) * SlotBytes(dims_);
  const Half& events = halves_[half];
  PLUMB_RETURN_IF_ERROR(
      CudaStatus(cudaEventRecord(events.written.get(), stream_), "measuring prompts"));
  PLUMB_RETURN_IF_ERROR(
      CudaStatus(cudaStreamWaitEvent(copies_.get(), events.written.get(), 0), "measuring prompts"));
  PLUMB_RETURN_IF_ERROR(CudaStatus(cudaMemcpyAsync(host_.data() + offset, device_.at(offset),
                                                   static_cast<size_t>(count * SlotBytes(dims_)),
                                                   cudaMemcpyDeviceToHost, copies_.get()),
                                   "reading statistics"));
  return CudaStatus(cudaEventRecord(events.copied.get(), copies_.get()), "reading statistics");
}

absl::Status MeasureSpace::Wait(int half) {
  halves_[half].busy = false;
  return CudaStatus(cudaEventSynchronize(halves_[half].copied.get()), "reading statistics");
}

kernels::ChannelStats MeasureSpace::At(int half, int slot, int layer, int tensor) const {
  const int64_t place =
      (FirstSlot(half) + slot) * SlotBytes(dims_) + layer * cuda::MeasuredLayerBytes(dims_);
  const int64_t bytes = kernels::ChannelStatsBytes(dims_.kv_heads, dims_.head_dim);
  return kernels::ChannelStatsAt(host_.data() + place + tensor * bytes, dims_.kv_heads,
                                 dims_.head_dim);
}

}  // namespace plumbline
