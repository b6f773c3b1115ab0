// What one step uploads: one block of bytes that the host fills in page-locked memory and one copy
// brings to the device. Its layout depends on the number of chunks alone, so that a recorded graph
// finds its tables where they were when it was recorded.
#pragma once

#include <cstdint>
#include <span>

#include "kernels/cuda/sample.h"
#include "kernels/cuda/step.h"

namespace plumbline {

struct StepLimits {
  int chunk_rows = 0;
  int max_chunks = 0;
  int max_runs = 0;  // of one step
  int64_t max_rows() const { return int64_t{chunk_rows} * max_chunks; }
};

// Byte offsets of the tables of a step of `chunks` chunks. A row is read by one task at most, so
// there are at most as many tasks as rows.
struct StepLayout {
  StepLayout(const StepLimits& limits, int chunks);

  int rows, runs;
  int64_t source, row_run, row_position, run_table, task_row, tasks, measured;
  int64_t bytes;
};

// The host's view of one block, cleared to "no token, no run, no task, nothing measured".
class StepBlob {
 public:
  StepBlob(const StepLayout& layout, void* memory);

  // Tokens of the step: an id, -1 for none, or FedSlot(slot) for what the device chose last.
  int32_t* source() { return At<int32_t>(layout_.source); }
  int32_t* row_run() { return At<int32_t>(layout_.row_run); }
  int32_t* row_position() { return At<int32_t>(layout_.row_position); }
  cuda::Run* runs() { return At<cuda::Run>(layout_.run_table); }
  int32_t* task_row() { return At<int32_t>(layout_.task_row); }
  cuda::SampleTask* tasks() { return At<cuda::SampleTask>(layout_.tasks); }
  // Which runs are measured; room for all runs in the list behind it.
  cuda::MeasuredRuns* measured() { return At<cuda::MeasuredRuns>(layout_.measured); }

 private:
  template <typename T>
  T* At(int64_t offset) {
    return reinterpret_cast<T*>(memory_ + offset);
  }
  StepLayout layout_;
  char* memory_;
};

}  // namespace plumbline
