// Rows of logits that the host has to see: a nucleus to sample from, bits to digest, the most
// probable tokens to list.
#pragma once

#include <cstdint>
#include <functional>
#include <vector>

#include "absl/status/status.h"
#include "kernels/cuda/step.h"
#include "services/engine/cuda/device_memory.h"
#include "services/engine/sampling/logits.h"

namespace plumbline {

// Whether the device's own reading of the row answers the task: false where the choice needs the
// nucleus.
bool DeviceChooses(const LogitTask& task);
// Whether the row's bits are needed on the host.
inline bool NeedsHost(const LogitTask& task) {
  return task.want_digest || task.top > 0 || !DeviceChooses(task);
}

class LogitRows {
 public:
  LogitRows(cuda::Dtype dtype, int vocab) : dtype_(dtype), vocab_(vocab) {}

  struct Wanted {
    int row;  // of the chunk
    const LogitTask* task;
    LogitOutcome* outcome;
  };
  // Reads the wanted rows of [rows, vocab] logits on the device, after what the stream holds.
  // Outcomes get everything that ReadLogits gives.
  absl::Status Read(const void* logits, const std::vector<Wanted>& wanted, cudaStream_t stream);

 private:
  const cuda::Dtype dtype_;
  const int vocab_;
  PinnedBuffer staged_;
};

}  // namespace plumbline
