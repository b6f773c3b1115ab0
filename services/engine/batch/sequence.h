// One sequence's way from its request to its result: which rows to read, and what each outcome
// means.
#pragma once

#include <memory>
#include <string>

#include "services/engine/batch/forward.h"
#include "services/engine/batch/scheduler.h"
#include "services/engine/engine.h"

namespace plumbline {

class Sequence {
 public:
  Sequence(SequenceRequest request, std::unique_ptr<SequenceState> state);

  // The run that the scheduler asked for, with the rows whose logits are wanted.
  ForwardRun MakeRun(const StepRun& run) const;
  // Takes the outcomes of that run; returns true when the sequence has finished.
  bool Accept(const ForwardRun& run, const std::vector<LogitOutcome>& outcomes);
  SequenceResult TakeResult();

  uint64_t id() const { return request_.id; }

 private:
  LogitTask ChoiceTask() const;
  void AddScoredRows(std::vector<RowTask>* tasks) const;
  bool AcceptChoice(const LogitOutcome& outcome);
  bool Finish(FinishReason reason);

  SequenceRequest request_;
  std::unique_ptr<SequenceState> state_;
  SequenceResult result_;
  std::string row_digests_;
};

}  // namespace plumbline
