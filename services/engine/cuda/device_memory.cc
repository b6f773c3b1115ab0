#include "services/engine/cuda/device_memory.h"

#include "absl/strings/str_cat.h"

namespace plumbline {

absl::Status CudaStatus(cudaError_t error, absl::string_view what) {
  if (error == cudaSuccess) return absl::OkStatus();
  cudaGetLastError();  // an allocation that failed must not fail the next launch's check
  const std::string message =
      absl::StrCat(what, ": ", cudaGetErrorString(error), " (", cudaGetErrorName(error), ")");
  switch (error) {
    case cudaErrorMemoryAllocation:
      return absl::ResourceExhaustedError(message);
    case cudaErrorNoDevice:
    case cudaErrorInsufficientDriver:
    case cudaErrorInvalidDevice:
    case cudaErrorInitializationError:
    case cudaErrorDevicesUnavailable:
      return absl::UnavailableError(message);
    default:
      return absl::InternalError(message);
  }
}

absl::StatusOr<DeviceBuffer> DeviceBuffer::Create(int64_t bytes, absl::string_view what) {
  DeviceBuffer buffer;
  if (bytes == 0) return buffer;
  void* data = nullptr;
  const absl::Status status =
      CudaStatus(cudaMalloc(&data, static_cast<size_t>(bytes)),
                 absl::StrCat("allocating ", bytes, " bytes of GPU memory for ", what));
  if (!status.ok()) return status;
  buffer.data_ = data;
  buffer.bytes_ = bytes;
  return buffer;
}

DeviceBuffer::~DeviceBuffer() {
  if (data_ != nullptr) cudaFree(data_);
}

absl::StatusOr<PinnedBuffer> PinnedBuffer::Create(int64_t bytes, absl::string_view what) {
  PinnedBuffer buffer;
  if (bytes == 0) return buffer;
  void* data = nullptr;
  const absl::Status status =
      CudaStatus(cudaMallocHost(&data, static_cast<size_t>(bytes)),
                 absl::StrCat("allocating ", bytes, " bytes of page-locked memory for ", what));
  if (!status.ok()) return status;
  buffer.data_ = static_cast<char*>(data);
  buffer.bytes_ = bytes;
  return buffer;
}

PinnedBuffer::~PinnedBuffer() {
  if (data_ != nullptr) cudaFreeHost(data_);
}

absl::StatusOr<Stream> Stream::Create() {
  Stream stream;
  const absl::Status status = CudaStatus(
      cudaStreamCreateWithFlags(&stream.stream_, cudaStreamNonBlocking), "creating a stream");
  if (!status.ok()) return status;
  return stream;
}

Stream::~Stream() {
  if (stream_ != nullptr) cudaStreamDestroy(stream_);
}

absl::StatusOr<Event> Event::Create(bool timed) {
  Event event;
  const unsigned flags = timed ? cudaEventDefault : cudaEventDisableTiming;
  const absl::Status status =
      CudaStatus(cudaEventCreateWithFlags(&event.event_, flags), "creating an event");
  if (!status.ok()) return status;
  return event;
}

Event::~Event() {
  if (event_ != nullptr) cudaEventDestroy(event_);
}

}  // namespace plumbline
