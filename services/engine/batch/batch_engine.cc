#include "services/engine/batch/batch_engine.h"

#include <deque>
#include <exception>
#include <new>
#include <utility>

#include "absl/strings/str_cat.h"
#include "services/common/status_macros.h"
#include "services/engine/batch/request_check.h"

namespace plumbline {
namespace {

// An exception of the host's, as the engine's edge tells it.
absl::Status StatusOf(const std::exception& error, absl::string_view what) {
  if (dynamic_cast<const std::bad_alloc*>(&error) != nullptr) {
    return absl::ResourceExhaustedError(
        absl::StrCat("not enough memory of the host for ", what,
                     ": run fewer sequences at once or on a larger machine"));
  }
  return absl::InternalError(absl::StrCat(what, " failed: ", error.what()));
}

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
  // A step that was started and whose outcomes are not accepted yet. The states and tokens that
  // its runs point at may be gone; their sizes and tasks stay.
  struct Flight {
    struct Id {
      uint64_t id, serial;
    };
    std::vector<Id> ids;
    std::vector<ForwardRun> runs;
    std::vector<std::vector<LogitOutcome>> outcomes;
    bool feeds = true;  // the device has every token that the step chooses
  };

  absl::Status Enter(SequenceRequest request);
  absl::StatusOr<std::vector<SequenceResult>> StepOnce();
  void Count(const ForwardRun& run);
  absl::Status Start();
  absl::Status Finish(std::vector<SequenceResult>* finished);

  std::unique_ptr<Forward> forward_;
  Scheduler scheduler_;
  std::map<uint64_t, std::unique_ptr<Sequence>> sequences_;
  std::deque<Flight> flights_;  // oldest first
  uint64_t last_serial_ = 0;
  EngineStats stats_;
};

absl::Status BatchEngine::Submit(SequenceRequest request) {
  try {
    return Enter(std::move(request));
  } catch (const std::exception& error) {
    return StatusOf(error, "taking in a sequence");
  }
}

// Whatever throws, the engine is as it was before.
absl::Status BatchEngine::Enter(SequenceRequest request) {
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
  need.stem_rows = (*state)->stem_tokens();
  std::map<uint64_t, std::unique_ptr<Sequence>> entering;
  entering[id] =
      std::make_unique<Sequence>(std::move(request), std::move(state).value(), ++last_serial_);
  PLUMB_RETURN_IF_ERROR(scheduler_.Add(std::move(need)));
  sequences_.merge(entering);
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

absl::Status BatchEngine::Start() {
  Flight flight;
  std::vector<ForwardRun> runs;
  for (const StepRun& planned : scheduler_.NextStep()) {
    Sequence& sequence = *sequences_.at(planned.id);
    if (!sequence.Wants(planned)) continue;  // it ends with a step that is under way
    runs.push_back(sequence.MakeRun(planned));
    for (const RowTask& task : runs.back().tasks) {
      flight.feeds = flight.feeds && (!task.task.choose || forward_->Feeds(task.task));
    }
    flight.ids.push_back({planned.id, sequence.serial()});
  }
  if (runs.empty()) return absl::OkStatus();
  ++stats_.steps;
  if (forward_->lookahead() > 0) {
    PLUMB_RETURN_IF_ERROR(forward_->Start(runs, &stats_));
  } else {
    PLUMB_ASSIGN_OR_RETURN(flight.outcomes, forward_->Run(runs, &stats_));
  }
  flight.runs = std::move(runs);
  flights_.push_back(std::move(flight));
  return absl::OkStatus();
}

absl::Status BatchEngine::Finish(std::vector<SequenceResult>* finished) {
  Flight flight = std::move(flights_.front());
  flights_.pop_front();
  if (forward_->lookahead() > 0) {
    PLUMB_ASSIGN_OR_RETURN(flight.outcomes, forward_->Finish(&stats_));
  }
  for (size_t i = 0; i < flight.runs.size(); ++i) {
    const auto it = sequences_.find(flight.ids[i].id);
    // One that ended or was cancelled while this step was under way; an id may be in use again.
    if (it == sequences_.end() || it->second->serial() != flight.ids[i].serial) continue;
    Count(flight.runs[i]);
    if (!it->second->Accept(flight.runs[i], flight.outcomes[i])) continue;
    finished->push_back(it->second->TakeResult());
    PLUMB_RETURN_IF_ERROR(scheduler_.Remove(it->first));
    sequences_.erase(it);
  }
  return absl::OkStatus();
}

absl::StatusOr<std::vector<SequenceResult>> BatchEngine::Step() {
  try {
    return StepOnce();
  } catch (const std::exception& error) {
    return StatusOf(error, "an engine step");
  }
}

absl::StatusOr<std::vector<SequenceResult>> BatchEngine::StepOnce() {
  std::vector<SequenceResult> finished;
  const size_t under_way = flights_.size();
  PLUMB_RETURN_IF_ERROR(Start());
  const bool started = flights_.size() > under_way;
  const size_t ahead = started && flights_.back().feeds ? forward_->lookahead() : 0;
  while (flights_.size() > ahead) PLUMB_RETURN_IF_ERROR(Finish(&finished));
  return finished;
}

}  // namespace

std::unique_ptr<Engine> CreateBatchEngine(std::unique_ptr<Forward> forward,
                                          const SchedulerOptions& options) {
  return std::make_unique<BatchEngine>(std::move(forward), options);
}

}  // namespace plumbline
