// One sequence on the GPU: its plan's row in the device's tables, its pages once it runs, and what
// its result reports.
#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "services/engine/batch/forward.h"
#include "services/engine/batch/shared_states.h"
#include "services/engine/cuda/cache_space.h"
#include "services/engine/cuda/plan_tables.h"

namespace plumbline {

class CudaSequence : public SequenceState {
 public:
  CudaSequence(const SequenceRequest& request, std::shared_ptr<const DevicePlan> plan,
               CacheSpace* space, bool shares);

  int64_t kv_bytes() const override;
  const std::string& prefix_key() const override { return shared_.prefix_key; }
  int shared_layers() const override { return shared_.shared_layers; }
  const std::string& stem_key() const override { return shared_.stem_key; }
  int64_t stem_tokens() const override { return shared_.stem_tokens; }
  // The prefix key of the stem's own states below the first quantized layer; empty = none.
  const std::string& stem_prefix_key() const { return shared_.stem_prefix_key; }
  int64_t kv_elements() const override;
  int64_t kv_elements_quantized() const override { return plan_->QuantizedElements(tokens_); }
  std::vector<CapturedLayer> TakeCaptures() override;
  std::vector<MeasuredLayer> TakeMeasures() override;
  void Accepted(int64_t rows) override { tokens_ += rows; }

  // Takes slot and pages, before its first run; the first positions are those of `stem` if not
  // null.
  absl::Status Begin(const CacheSpace::Stem* stem);
  int64_t pages_needed() const { return kv_bytes() / space_->page_bytes(); }
  const CacheSpace::Place& place() const { return *place_; }
  int slot() const { return place_->slot(); }
  const std::vector<int32_t>& pages() const { return place_->pages(); }
  int plan_row() const { return plan_->row(); }
  uint64_t jitter_seed() const { return jitter_seed_; }

  // Layers whose prompt rows are wanted, and where they go.
  std::map<int, CapturedLayer>& captures() { return captures_; }
  // Layers whose prompt rows are measured; a step under way may outlive the sequence. Null: none.
  const std::shared_ptr<std::map<int, MeasuredLayer>>& measures() const { return measures_; }

 private:
  const std::shared_ptr<const DevicePlan> plan_;
  CacheSpace* const space_;
  const int64_t capacity_;
  const uint64_t jitter_seed_;
  SharedStates shared_;
  int64_t tokens_ = 0;  // positions whose keys and values count in the result
  std::unique_ptr<CacheSpace::Place> place_;
  std::map<int, CapturedLayer> captures_;
  std::shared_ptr<std::map<int, MeasuredLayer>> measures_;
};

}  // namespace plumbline
