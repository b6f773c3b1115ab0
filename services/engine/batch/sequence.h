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
  // serial: tells it from another sequence that has its id later.
  Sequence(SequenceRequest request, std::unique_ptr<SequenceState> state, uint64_t serial);

  // Whether that run could still add to the answer: not when the runs under way reach its length.
  bool Wants(const StepRun& run) const;
  // The run that the scheduler asked for, with the rows whose logits are wanted. Its token is
  // kFedToken while the outcome that has it is under way.
  ForwardRun MakeRun(const StepRun& run);
  // Takes the outcomes of that run; returns true when the sequence has finished.
  bool Accept(const ForwardRun& run, const std::vector<LogitOutcome>& outcomes);
  SequenceResult TakeResult();

  uint64_t id() const { return request_.id; }
  uint64_t serial() const { return serial_; }

 private:
  LogitTask ChoiceTask() const;
  size_t Limit() const;
  void AddScoredRows(std::vector<RowTask>* tasks) const;
  bool AcceptChoice(const LogitOutcome& outcome);
  bool Finish(FinishReason reason);

  SequenceRequest request_;
  uint64_t serial_;
  std::unique_ptr<SequenceState> state_;
  SequenceResult result_;
  std::string row_digests_;
  size_t chosen_ = 0;  // tokens that runs have been made to choose, accepted or not
};

}  // namespace plumbline
