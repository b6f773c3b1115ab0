// The forward pass on one GPU. Steps are one ahead of the host: sampled tokens are fed on the
// device, and read while the next step runs.
//
// Not thread safe; used from the thread that drives the engine.
#pragma once

#include <deque>
#include <functional>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "services/engine/batch/forward.h"
#include "services/engine/cuda/cache_space.h"
#include "services/engine/cuda/cuda_engine.h"
#include "services/engine/cuda/cuda_sequence.h"
#include "services/engine/cuda/cuda_weights.h"
#include "services/engine/cuda/logit_rows.h"
#include "services/engine/cuda/measure_space.h"
#include "services/engine/cuda/model_step.h"
#include "services/engine/cuda/plan_tables.h"
#include "services/engine/cuda/prefix_store.h"
#include "services/engine/cuda/prompt_reuse.h"
#include "services/engine/cuda/stem_store.h"

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
    std::unique_ptr<PrefixStore> prefixes;
    std::unique_ptr<StemStore> stems;  // in `space`
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
  int ReusableLayers(const std::string& prefix_key) const override {
    return parts_->prefixes->Layers(prefix_key);
  }
  bool HasStem(const std::string& stem_key) const override { return parts_->stems->Has(stem_key); }

  int64_t pool_bytes() const { return parts_->space->pool_bytes(); }
  // Steps are launched part by part while this is set, for measurements.
  void set_on_part(std::function<void(StepPart finished)> on_part) {
    on_part_ = std::move(on_part);
  }
  cudaStream_t stream() const { return parts_->stream.get(); }
  const CudaWeights& weights() const { return parts_->weights; }
  const cuda::ModelDims& dims() const { return parts_->step_options.dims; }

 private:
  using Outcomes = std::vector<std::vector<LogitOutcome>>;
  static constexpr int kBlocks = 3;  // of page-locked memory, so that none is waited for

  // Page-locked memory of one step on its way.
  struct Block {
    PinnedBuffer blob, outcomes, lists;
    Event done;  // outcomes are here
  };
  // The tasks of one run, in the order of the runs on the device.
  struct Wanted {
    size_t index;  // of the run in the caller's
    std::vector<LogitTask> tasks;
  };
  // A prompt that a step measures: slot i of the step's half of the space is of its measured[i].
  struct Measured {
    int run = 0;  // on the device
    int64_t tokens = 0;
    std::shared_ptr<std::map<int, MeasuredLayer>> layers;
  };
  struct Flight {
    int block = 0;
    int tasks = 0;
    int lists = 0;  // of most probable tokens, in the order of their tasks
    int half = 0;   // of the measure space, if anything is measured
    std::vector<Measured> measured;
    Outcomes outcomes;  // where the host has read the row already, or what to fill in
    std::vector<Wanted> wanted;
  };

  explicit CudaForward(std::unique_ptr<Parts> parts) : parts_(std::move(parts)) {}
  absl::Status CheckRoom(int64_t rows, size_t runs) const;
  void Fill(const std::vector<Placed>& placed, int chunks, Block* block, Flight* flight) const;
  BodyHooks HooksOf(const std::vector<Placed>& placed, const Flight& flight);
  absl::Status RunHead(int chunks, const BodyHooks& hooks, Flight* flight);
  absl::Status Capture(int layer, const void* qkv, const std::vector<Placed>& placed);
  void KeepCapture(const Placed& placed, const char* rows, CapturedLayer* captured) const;
  absl::Status TakeMeasured(std::vector<Placed>* placed, Flight* flight);
  void MeasureOnHost(const Placed& placed, const char* rows, MeasuredLayer* measured) const;
  absl::Status ReadMeasured(const Flight& flight);

  std::unique_ptr<Parts> parts_;
  std::unique_ptr<LogitRows> logit_rows_;
  std::unique_ptr<PromptReuse> reuse_;
  Block blocks_[kBlocks];
  int next_block_ = 0;
  Event placed_;  // the page tables of the newest step's sequences have left the host
  std::deque<Flight> flights_;
  std::function<void(StepPart finished)> on_part_;
  PinnedBuffer captured_rows_;
  std::unique_ptr<MeasureSpace> measures_;
};

}  // namespace plumbline
