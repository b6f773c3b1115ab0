// What the host learns of rows of logits beside the device's samples: lists of the most probable
// tokens, made on the device, and rows that the host has to see: a nucleus to sample from, bits to
// digest, lists that are too long for the device.
#pragma once

#include <cstdint>
#include <memory>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "kernels/cuda/step.h"
#include "kernels/cuda/top_tokens.h"
#include "services/engine/cuda/device_memory.h"
#include "services/engine/sampling/logits.h"

namespace plumbline {

// Whether the device's own reading of the row answers the task: false where the choice needs the
// nucleus.
bool DeviceChooses(const LogitTask& task);
// Whether the device lists the task's most probable tokens.
inline bool DeviceLists(const LogitTask& task) {
  return task.choose && task.top > 0 && task.top <= cuda::kMaxTop;
}
// Whether the row's bits are needed on the host.
inline bool NeedsHost(const LogitTask& task) {
  return task.want_digest || (task.top > 0 && !DeviceLists(task)) || !DeviceChooses(task);
}

class LogitRows {
 public:
  // max_lists: rows of one step whose most probable tokens are listed, at most.
  static absl::StatusOr<std::unique_ptr<LogitRows>> Create(cuda::Dtype dtype, int vocab,
                                                           int max_lists, cudaStream_t stream);

  struct Wanted {
    int row;  // of the chunk
    const LogitTask* task;
    LogitOutcome* outcome;
  };
  // Reads the wanted rows of [rows, vocab] logits on the device, after what the stream holds.
  // Outcomes get everything that ReadLogits gives. Waits for the stream.
  absl::Status Read(const void* logits, const std::vector<Wanted>& wanted, cudaStream_t stream);

  // Lists number `first` and on of the step, of the tasks that DeviceLists holds for. Waits for
  // nothing.
  struct Listed {
    int row;  // of the chunk
    int top;
  };
  absl::Status StartLists(const void* logits, const std::vector<Listed>& listed, int first,
                          cudaStream_t stream);
  // Copies the step's first `count` lists, kMaxTop tokens each, to page-locked memory.
  absl::Status CopyLists(int count, cuda::ProbableToken* to, cudaStream_t stream) const;
  int64_t lists_bytes() const { return lists_.bytes(); }  // of all that a step can have
  // The task's tokens of its list.
  std::vector<TopToken> ListOf(const LogitTask& task, const cuda::ProbableToken* list) const;

 private:
  LogitRows(cuda::Dtype dtype, int vocab) : dtype_(dtype), vocab_(vocab) {}

  const cuda::Dtype dtype_;
  const int vocab_;
  PinnedBuffer staged_;
  DeviceBuffer lists_;
};

}  // namespace plumbline
