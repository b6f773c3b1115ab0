#include "services/engine/cuda/cuda_sequence.h"

#include <utility>

#include "kernels/cuda/attention.h"
#include "services/common/status_macros.h"

namespace plumbline {

CudaSequence::CudaSequence(const SequenceRequest& request, std::shared_ptr<const DevicePlan> plan,
                           CacheSpace* space, bool shares)
    : plan_(std::move(plan)),
      space_(space),
      capacity_(static_cast<int64_t>(request.prompt_tokens.size()) + request.max_new_tokens),
      jitter_seed_(request.jitter_seed) {
  if (shares) shared_ = SharedStatesOf(request, cuda::kAttentionTileRows);
  for (LayerIndex layer : request.capture_layers) captures_[layer.value()].layer = layer;
  if (request.measure_layers.empty()) return;
  measures_ = std::make_shared<std::map<int, MeasuredLayer>>();
  for (LayerIndex layer : request.measure_layers) (*measures_)[layer.value()].layer = layer;
}

int64_t CudaSequence::kv_bytes() const {
  return CacheSpace::PagesFor(capacity_) * (plan_->raw_keys() ? 2 : 1) * space_->page_bytes();
}

int64_t CudaSequence::kv_elements() const { return plan_->elements_per_token() * tokens_; }

absl::Status CudaSequence::Begin(const CacheSpace::Stem* stem) {
  PLUMB_ASSIGN_OR_RETURN(place_, space_->Take(capacity_, plan_->raw_keys(), stem));
  return absl::OkStatus();
}

std::vector<CapturedLayer> CudaSequence::TakeCaptures() {
  std::vector<CapturedLayer> captures;
  for (auto& [layer, captured] : captures_) captures.push_back(std::move(captured));
  captures_.clear();
  return captures;
}

std::vector<MeasuredLayer> CudaSequence::TakeMeasures() {
  std::vector<MeasuredLayer> measures;
  if (measures_ == nullptr) return measures;
  for (auto& [layer, measured] : *measures_) measures.push_back(std::move(measured));
  measures_.reset();
  return measures;
}

}  // namespace plumbline
