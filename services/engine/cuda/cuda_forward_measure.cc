// Which prompts a step measures, and their statistics on the way to the sequences.
#include "services/common/status_macros.h"
#include "services/engine/batch/measured_layer.h"
#include "services/engine/cuda/cuda_forward.h"

namespace plumbline {

absl::Status CudaForward::TakeMeasured(std::vector<Placed>* placed, Flight* flight) {
  for (size_t i = 0; i < placed->size(); ++i) {
    Placed& p = (*placed)[i];
    if (!p.run->prompt || p.sequence->measures() == nullptr) continue;
    if (static_cast<int>(flight->measured.size()) == measures_->slots()) {
      p.measured_on_host = true;
      continue;
    }
    flight->measured.push_back({static_cast<int>(i), p.rows(), p.sequence->measures()});
  }
  if (flight->measured.empty()) return absl::OkStatus();
  PLUMB_ASSIGN_OR_RETURN(flight->half, measures_->Take());
  return absl::OkStatus();
}

absl::Status CudaForward::ReadMeasured(const Flight& flight) {
  if (flight.measured.empty()) return absl::OkStatus();
  PLUMB_RETURN_IF_ERROR(measures_->Wait(flight.half));
  for (size_t i = 0; i < flight.measured.size(); ++i) {
    const Measured& measured = flight.measured[i];
    for (auto& [layer, result] : *measured.layers) {
      result.tokens = measured.tokens;
      const int slot = static_cast<int>(i);
      result.keys = TensorOf(measures_->At(flight.half, slot, layer, 0), parts_->shape);
      result.values = TensorOf(measures_->At(flight.half, slot, layer, 1), parts_->shape);
    }
  }
  return absl::OkStatus();
}

void CudaForward::MeasureOnHost(const Placed& placed, const char* rows,
                                MeasuredLayer* measured) const {
  const cuda::ModelDims& dims = parts_->step_options.dims;
  const auto measure = [&](const auto* row) {
    const auto* keys = row + dims.q_dim();
    measured->tokens = placed.rows();
    measured->keys = MeasureTensor(keys, placed.rows(), dims.qkv_dim(), parts_->shape);
    measured->values =
        MeasureTensor(keys + dims.kv_dim(), placed.rows(), dims.qkv_dim(), parts_->shape);
  };
  if (parts_->step_options.dtype == cuda::Dtype::kF32) {
    measure(reinterpret_cast<const float*>(rows));
  } else {
    measure(reinterpret_cast<const Bf16*>(rows));
  }
}

}  // namespace plumbline
