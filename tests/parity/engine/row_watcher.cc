#include "tests/parity/engine/row_watcher.h"

#include <utility>

#include "services/common/status_macros.h"

namespace plumbline::parity {
namespace {

// A logit is the best one plus the difference of the two log probabilities. Three roundings to
// float add at most 3 * 2^-24 of the largest number to it, a few hundredths of the bound of a
// comparison.
std::vector<float> RowOf(const LogitOutcome& outcome) {
  std::vector<float> row(outcome.top.size());
  for (const TopToken& token : outcome.top) {
    row[token.token] = static_cast<float>(double{outcome.trace.top1_logit} + token.log_probability -
                                          outcome.top.front().log_probability);
  }
  return row;
}

}  // namespace

absl::StatusOr<std::unique_ptr<SequenceState>> RowWatcher::Open(const SequenceRequest& request) {
  PLUMB_ASSIGN_OR_RETURN(auto state, inner_->Open(request));
  ids_[state.get()] = request.id;
  return state;
}

bool RowWatcher::Wanted(const ForwardRun& run, const LogitTask& task) const {
  const auto steps = wanted_.find(ids_.at(run.state));
  return task.choose && steps != wanted_.end() && steps->second.contains(task.position);
}

absl::StatusOr<std::vector<std::vector<LogitOutcome>>> RowWatcher::Run(
    const std::vector<ForwardRun>& runs, EngineStats* stats) {
  std::vector<ForwardRun> asked = runs;
  for (ForwardRun& run : asked) {
    for (RowTask& task : run.tasks) {
      if (Wanted(run, task.task)) task.task.top = shape().vocab_size;
    }
  }
  PLUMB_ASSIGN_OR_RETURN(auto outcomes, inner_->Run(asked, stats));
  for (size_t i = 0; i < asked.size(); ++i) {
    for (size_t j = 0; j < asked[i].tasks.size(); ++j) {
      const LogitTask& task = asked[i].tasks[j].task;
      if (!Wanted(asked[i], task) || !outcomes[i][j].finite) continue;
      rows_[ids_.at(asked[i].state)][task.position] = RowOf(outcomes[i][j]);
    }
  }
  return outcomes;
}

}  // namespace plumbline::parity
