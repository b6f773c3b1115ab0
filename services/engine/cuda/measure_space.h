// Where the statistics of measured prompts lie: memory of the GPU that steps write to, and
// page-locked memory of the host that they are copied to beside the next step. Two halves by turns,
// one a step, since at most two steps are under way.
#pragma once

#include <array>
#include <cstdint>

#include "absl/status/status.h"
#include "kernels/cuda/channel_stats.h"
#include "services/engine/cuda/device_memory.h"

namespace plumbline {

class MeasureSpace {
 public:
  // bytes: of both halves; 8 key/value heads of 128 channels and 32 layers take 1.8 MiB a prompt.
  // max_runs: prompts of one step at most. `stream`: that of the steps.
  MeasureSpace(const cuda::ModelDims& dims, int64_t bytes, int max_runs, cudaStream_t stream);

  // Copies under way end first.
  ~MeasureSpace();
  // The first call takes the memory. ResourceExhausted.
  absl::Status Open();
  // Prompts of one step that are measured on the device, at least 1; 0 before Open.
  int slots() const { return slots_; }
  // Of all slots: MeasureKv::out. Stays where it is.
  char* out() const { return device_.as<char>(); }

  // The half that the next step may use, and its first slot. Internal: its last use was not waited
  // for.
  absl::StatusOr<int> Take();
  int FirstSlot(int half) const { return half * slots_; }
  // Copies the first `count` slots of a half once what `stream` holds so far is done.
  absl::Status StartCopy(int half, int count);
  // Waits for that copy; the half is free when its results are read.
  absl::Status Wait(int half);
  // Statistics of a slot of the half on the host; tensor: 0 keys, 1 values.
  kernels::ChannelStats At(int half, int slot, int layer, int tensor) const;

 private:
  struct Half {
    Event written, copied;
    bool busy = false;
  };

  const cuda::ModelDims dims_;
  const int64_t bytes_;
  const int max_runs_;
  const cudaStream_t stream_;
  int slots_ = 0;  // of one half
  int next_ = 0;
  DeviceBuffer device_;
  PinnedBuffer host_;
  Stream copies_;
  std::array<Half, 2> halves_;
};

}  // namespace plumbline
