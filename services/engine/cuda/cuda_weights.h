// A model's weights on one GPU, in the compute dtype, with maps that share an input fused as on the
// CPU: q, k and v into one, gate and up into one.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "kernels/cuda/step.h"
#include "services/engine/bundle/safetensors.h"
#include "services/engine/cuda/device_memory.h"
#include "services/engine/engine.h"
#include "services/engine/model_bundle.h"

namespace plumbline {

// Where the pieces of a model lie in one allocation, and from which tensors they come.
struct WeightLayout {
  struct Piece {
    std::string name;            // of the stored tensor
    std::vector<int64_t> shape;  // its shape
    int64_t offset = 0;          // bytes
    int64_t count = 0;           // values
  };
  struct Layer {
    int64_t attention_norm = 0, qkv = 0, qkv_bias = -1, attention_out = 0;  // offsets; -1 = none
    int64_t mlp_norm = 0, gate_up = 0, down = 0;
  };
  cuda::Dtype dtype = cuda::Dtype::kBf16;
  std::vector<Piece> pieces;
  int64_t embedding = 0, final_norm = 0, head = 0;
  std::vector<Layer> layers;
  int64_t bytes = 0;
};

WeightLayout LayOutWeights(const ModelConfig& config, cuda::Dtype dtype);

struct CudaWeights {
  WeightLayout layout;
  DeviceBuffer memory;

  const void* at(int64_t offset) const { return offset < 0 ? nullptr : memory.at(offset); }
};

// Reads the tensors from the mapped files, several at once, through page-locked buffers. `memory`
// holds layout.bytes. NotFound, InvalidArgument: a tensor is missing, of another shape, or a bias
// that the family does not use; the message names it.
absl::Status FillWeights(const ModelConfig& config, const BundleWeights& files,
                         const CudaWeights& weights, int device);

cuda::ModelDims DimsOf(const ModelConfig& config);

}  // namespace plumbline
