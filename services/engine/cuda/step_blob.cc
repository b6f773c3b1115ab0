#include "services/engine/cuda/step_blob.h"

#include <algorithm>

#include "services/engine/cuda/device_memory.h"

namespace plumbline {

StepLayout::StepLayout(const StepLimits& limits, int chunks)
    : rows(chunks * limits.chunk_rows), runs(std::min(rows, limits.max_runs)) {
  Carver carver;
  source = carver.Take(rows * int64_t{sizeof(int32_t)});
  row_run = carver.Take(rows * int64_t{sizeof(int32_t)});
  row_position = carver.Take(rows * int64_t{sizeof(int32_t)});
  run_table = carver.Take(runs * int64_t{sizeof(cuda::Run)});
  task_row = carver.Take(rows * int64_t{sizeof(int32_t)});
  tasks = carver.Take(rows * int64_t{sizeof(cuda::SampleTask)});
  measured = carver.Take(int64_t{sizeof(cuda::MeasuredRuns)} + runs * int64_t{sizeof(int32_t)});
  bytes = carver.total();
}

StepBlob::StepBlob(const StepLayout& layout, void* memory)
    : layout_(layout), memory_(static_cast<char*>(memory)) {
  std::fill_n(source(), layout.rows, -1);
  std::fill_n(row_run(), layout.rows, -1);
  std::fill_n(row_position(), layout.rows, 0);
  std::fill_n(runs(), layout.runs, cuda::Run{});
  std::fill_n(task_row(), layout.rows, -1);
  std::fill_n(tasks(), layout.rows, cuda::SampleTask{});
  *measured() = cuda::MeasuredRuns{};
}

}  // namespace plumbline
