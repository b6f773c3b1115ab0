#include "services/engine/batch/sequence.h"

#include <algorithm>
#include <utility>

#include "services/common/digest.h"

namespace plumbline {

Sequence::Sequence(SequenceRequest request, std::unique_ptr<SequenceState> state, uint64_t serial)
    : request_(std::move(request)), serial_(serial), state_(std::move(state)) {
  result_.id = request_.id;
}

LogitTask Sequence::ChoiceTask() const {
  LogitTask task;
  task.choose = true;
  task.sampling = request_.sampling;
  task.position = static_cast<int64_t>(chosen_);
  if (!request_.forced_tokens.empty()) task.forced = request_.forced_tokens[task.position];
  task.want_digest = request_.want_logit_digest;
  if (chosen_ == 0) task.top = request_.first_top;
  return task;
}

// The logits of row i - 1 tell the likelihood of token i; the first token has none.
void Sequence::AddScoredRows(std::vector<RowTask>* tasks) const {
  const int64_t prompt = static_cast<int64_t>(request_.prompt_tokens.size());
  for (int64_t i = std::max(1, request_.score_from); i < prompt; ++i) {
    LogitTask task;
    task.target = request_.prompt_tokens[i];
    task.want_digest = request_.want_logit_digest;
    tasks->push_back({i - 1, task});
  }
}

size_t Sequence::Limit() const {
  return request_.forced_tokens.empty() ? static_cast<size_t>(request_.max_new_tokens)
                                        : request_.forced_tokens.size();
}

bool Sequence::Wants(const StepRun& run) const { return run.prompt || chosen_ < Limit(); }

ForwardRun Sequence::MakeRun(const StepRun& run) {
  ForwardRun forward;
  forward.state = state_.get();
  forward.first = run.first;
  forward.prompt = run.prompt;
  if (run.prompt) {
    forward.tokens = request_.prompt_tokens;
    if (request_.score_from >= 0) AddScoredRows(&forward.tasks);
  } else if (result_.tokens.size() == chosen_) {
    forward.tokens = std::span(&result_.tokens.back(), 1);
  } else {
    forward.tokens = std::span(&kFedToken, 1);
  }
  if (request_.max_new_tokens > 0) {
    forward.tasks.push_back({run.rows - 1, ChoiceTask()});
    ++chosen_;
  }
  return forward;
}

bool Sequence::Finish(FinishReason reason) {
  result_.finish_reason = reason;
  return true;
}

bool Sequence::Accept(const ForwardRun& run, const std::vector<LogitOutcome>& outcomes) {
  state_->Accepted(static_cast<int64_t>(run.tokens.size()));
  for (size_t i = 0; i < outcomes.size(); ++i) {
    const LogitOutcome& outcome = outcomes[i];
    row_digests_ += outcome.digest;
    if (!outcome.finite) return Finish(FinishReason::kNonFinite);
    if (run.tasks[i].task.top > 0) result_.first_top = outcome.top;
    if (run.tasks[i].task.target >= 0) {
      result_.nll_sum += outcome.nll;
      ++result_.nll_tokens;
    }
    if (run.tasks[i].task.choose) return AcceptChoice(outcome);
  }
  return Finish(FinishReason::kLength);
}

bool Sequence::AcceptChoice(const LogitOutcome& outcome) {
  const bool forced = !request_.forced_tokens.empty();
  if (request_.want_steps || forced) result_.steps.push_back(outcome.trace);
  const auto& stops = request_.stop_tokens;
  if (!forced && std::find(stops.begin(), stops.end(), outcome.token) != stops.end()) {
    return Finish(FinishReason::kEos);
  }
  result_.tokens.push_back(outcome.token);
  if (!forced && request_.verdict_decided && request_.verdict_decided(outcome.token)) {
    return Finish(FinishReason::kVerdict);
  }
  return result_.tokens.size() >= Limit() && Finish(FinishReason::kLength);
}

SequenceResult Sequence::TakeResult() {
  if (request_.want_logit_digest) result_.logit_digest = Sha256Hex(row_digests_);
  result_.kv_elements = state_->kv_elements();
  result_.kv_elements_quantized = state_->kv_elements_quantized();
  result_.captured = state_->TakeCaptures();
  result_.measured = state_->TakeMeasures();
  return std::move(result_);
}

}  // namespace plumbline
