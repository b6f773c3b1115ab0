// The forward pass on one GPU. Steps are one ahead of the host: sampled tokens are fed on the
// device, and read while the next step runs.
//
// Not thread safe; used from the thread that drives the engine.
#pragma once

#include <deque>
#include <memory>
#include <string>
#include <vector>

#include "services/engine/batch/forward.h"
#include "services/engine/cuda/cache_space.h"
#include "services/engine/cuda/cuda_engine.h"
#include "services/engine/cuda/cuda_sequence.h"
#include "services/engine/cuda/cuda_weights.h"
#include "services/engine/cuda/logit_rows.h"
#include "services/engine/cuda/model_step.h"
#include "services/engine/cuda/plan_tables.h"

namespace plumbline {

class CudaForward : public Forward {
 public:
  // Everything that lives on the device, besides the weights.
  struct Parts {
    CudaOptions options;
    ModelShape shape;
    ModelStepOptions step_options;
    Stream stream;
    CudaWeights weights;
    DeviceBuffer rope;
    std::unique_ptr<CacheSpace> space;
    std::unique_ptr<PlanTables> plans;
    std::unique_ptr<ModelStep> step;
    std::string numerics_class;
  };
  static absl::StatusOr<std::unique_ptr<CudaForward>> Create(std::unique_ptr<Parts> parts);
  ~CudaForward() override;

  const ModelShape& shape() const override { return parts_->shape; }
  const std::string& numerics_class() const override { return parts_->numerics_class; }
  absl::StatusOr<std::unique_ptr<SequenceState>> Open(const SequenceRequest& request) override;
  absl::StatusOr<std::vector<std::vector<LogitOutcome>>> Run(const std::vector<ForwardRun>& runs,
                                                             EngineStats* stats) override;
  int lookahead() const override { return 1; }
  bool Feeds(const LogitTask& task) const override { return DeviceChooses(task); }
  absl::Status Start(const std::vector<ForwardRun>& runs, EngineStats* stats) override;
  absl::StatusOr<std::vector<std::vector<LogitOutcome>>> Finish(EngineStats* stats) override;
  int ReusableLayers(const std::string&) const override { return 0; }
  bool HasStem(const std::string&) const override { return false; }

  int64_t pool_bytes() const { return parts_->space->pool_bytes(); }
  // Steps are launched part by part while this is set, for measurements.
  void set_on_part(ModelStep::OnPart on_part) { on_part_ = std::move(on_part); }
  cudaStream_t stream() const { return parts_->stream.get(); }

 private:
  using Outcomes = std::vector<std::vector<LogitOutcome>>;
  static constexpr int kBlocks = 3;  // of page-locked memory, so that none is waited for

  // Page-locked memory of one step on its way.
  struct Block {
    PinnedBuffer blob, outcomes;
    Event done;  // outcomes are here
  };
  struct Flight {
    int block = 0;
    int tasks = 0;
    Outcomes outcomes;  // where the host has read the row already, or what to fill in
    std::vector<std::vector<LogitTask>> wanted;
  };
  // Where the rows of a run lie.
  struct Placed {
    const ForwardRun* run;
    CudaSequence* sequence;
    int64_t row;
  };

  explicit CudaForward(std::unique_ptr<Parts> parts) : parts_(std::move(parts)) {}
  absl::Status Arrange(const std::vector<ForwardRun>& runs, int chunks, Block* block,
                       std::vector<Placed>* placed, Flight* flight);
  absl::Status RunHead(int chunks, Flight* flight);
  absl::Status Capture(int layer, const void* qkv, const std::vector<Placed>& placed);
  absl::Status KeepCapture(const Placed& placed, const char* rows, CapturedLayer* captured) const;

  std::unique_ptr<Parts> parts_;
  std::unique_ptr<LogitRows> logit_rows_;
  Block blocks_[kBlocks];
  int next_block_ = 0;
  std::deque<Flight> flights_;
  ModelStep::OnPart on_part_;
  PinnedBuffer captured_rows_;
};

}  // namespace plumbline
