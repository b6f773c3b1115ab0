// The engine on an NVIDIA GPU, behind the interface of engine.h.
//
//   auto engine = CreateCudaEngine({.bundle_dir = "models/llama", .dtype = ComputeDtype::kBf16,
//                                   .kv_pool_bytes = 0}, {.device = 0});
//
// This header needs no CUDA: a build without it has the function too, and it says so.
#pragma once

#include <cstdint>
#include <memory>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "services/engine/engine.h"

namespace plumbline {

struct CudaOptions {
  int device = 0;
  int chunk_rows = 256;  // rows of every product: 64, 128, 256 or 512; decides bits
  // Positions of the longest sequence, prompt and answer; a lower context of the model counts. A
  // step's memory grows with it.
  int64_t max_positions = 8192;
  int64_t wave_rows = 2048;  // prompt rows that one step takes
  // GPU memory for statistics of prompts (SequenceRequest::measure_layers), taken when they are
  // first asked for. Prompts of a step beyond it are measured on the host, to the same bits,
  // slowly.
  int64_t measure_bytes = int64_t{256} << 20;
};

// As CreateCpuEngine, and: Unavailable, there is no such GPU or no driver; Unimplemented, a build
// without CUDA; ResourceExhausted, the model does not fit the GPU's free memory (both numbers).
// kv_pool_bytes 0 takes most of what the model leaves free; what cannot be had shrinks the pool,
// with a warning. prefix_cache_bytes is memory of the GPU; where it is not 0, shared first tokens
// hold up to a quarter of the KV pool's pages, as long as no sequence needs them.
absl::StatusOr<std::unique_ptr<Engine>> CreateCudaEngine(const EngineOptions& options,
                                                         const CudaOptions& cuda);

// GPUs of this machine; 0 without a driver or in a build without CUDA.
int CountGpus();

// InvalidArgument: this machine, or this build, has no GPU of that number; the message says which
// devices there are. Looks at the driver only; takes no memory.
absl::Status CheckGpu(int device);

}  // namespace plumbline
