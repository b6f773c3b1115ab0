#include "services/engine/batch/batch_engine.h"

#include <utility>

#include "services/common/status_macros.h"
#include "services/engine/batch/request_check.h"

namespace plumbline {
namespace {

class BatchEngine : public Engine {
 public:
  BatchEngine(std::unique_ptr<Forward> forward, const SchedulerOptions& options)
      : forward_(std::move(forward)),
        scheduler_(
            options, [this](const std::string& key) { return forward_->ReusableLayers(key); },
            [this](const std::string& key) { return forward_->HasStem(key); }) {}

  const ModelShape& shape() const override { return forward_->shape(); }
  const std::string& numerics_class() const override { return forward_->numerics_class(); }
  int active() const override { return scheduler_.active(); }
  const EngineStats& stats() const override { return stats_; }

  absl::Status Submit(SequenceRequest request) override;
  absl::Status Cancel(uint64_t id) override;
  absl::StatusOr<std::vector<SequenceResult>> Step() override;

 private:
  void Count(const ForwardRun& run);

  std::unique_ptr<Forward> forward_;
  Scheduler scheduler_;
  std::map<uint64_t, std::unique_ptr<Sequence>> sequences_;
  EngineStats stats_;
};

absl::Status BatchEngine::Submit(SequenceRequest request) {
  const uint64_t id = request.id;
  PLUMB_RETURN_IF_ERROR(CheckRequest(request, shape()));
  auto state = forward_->Open(request);
  if (!state.ok()) return state.status();
  SequenceNeed need;
  need.id = id;
  need.prompt_rows = static_cast<int64_t>(request.prompt_tokens.size());
  need.kv_bytes = (*state)->kv_bytes();
  need.prefix_key = (*state)->prefix_key();
  need.shared_layers = (*state)->shared_layers();
  need.stem_key = (*state)->stem_key();
  PLUMB_RETURN_IF_ERROR(scheduler_.Add(std::move(need)));
  sequences_[id] = std::make_unique<Sequence>(std::move(request), std::move(state).value());
  return absl::OkStatus();
}

absl::Status BatchEngine::Cancel(uint64_t id) {
  PLUMB_RETURN_IF_ERROR(scheduler_.Remove(id));
  sequences_.erase(id);
  return absl::OkStatus();
}

void BatchEngine::Count(const ForwardRun& run) {
  (run.prompt ? stats_.prompt_tokens : stats_.decoded_tokens) +=
      static_cast<int64_t>(run.tokens.size());
}

absl::StatusOr<std::vector<SequenceResult>> BatchEngine::Step() {
  std::vector<SequenceResult> finished;
  const std::vector<StepRun> step = scheduler_.NextStep();
  if (step.empty()) return finished;
  std::vector<ForwardRun> runs;
  runs.reserve(step.size());
  for (const StepRun& run : step) {
    runs.push_back(sequences_.at(run.id)->MakeRun(run));
    Count(runs.back());
  }
  ++stats_.steps;
  PLUMB_ASSIGN_OR_RETURN(const auto outcomes, forward_->Run(runs, &stats_));
  for (size_t i = 0; i < step.size(); ++i) {
    Sequence& sequence = *sequences_.at(step[i].id);
    if (!sequence.Accept(runs[i], outcomes[i])) continue;
    finished.push_back(sequence.TakeResult());
    PLUMB_RETURN_IF_ERROR(scheduler_.Remove(sequence.id()));
    sequences_.erase(step[i].id);
  }
  return finished;
}

}  // namespace

std::unique_ptr<Engine> CreateBatchEngine(std::unique_ptr<Forward> forward,
                                          const SchedulerOptions& options) {
  return std::make_unique<BatchEngine>(std::move(forward), options);
}

}  // namespace plumbline
