// A device without arithmetic: the next token is a function of the tokens so far, so that what the
// batch engine does with outcomes can be told exactly.
#pragma once

#include <algorithm>
#include <deque>
#include <functional>
#include <memory>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "services/engine/batch/forward.h"

namespace plumbline::testing {

class FakeState : public SequenceState {
 public:
  explicit FakeState(const SequenceRequest& request)
      : bytes_(static_cast<int64_t>(request.prompt_tokens.size()) + request.max_new_tokens) {}
  int64_t kv_bytes() const override { return bytes_; }
  const std::string& prefix_key() const override { return key_; }
  int shared_layers() const override { return 0; }
  const std::string& stem_key() const override { return key_; }
  int64_t kv_elements() const override { return accepted_; }
  void Accepted(int64_t rows) override { accepted_ += rows; }
  int64_t kv_elements_quantized() const override { return 0; }
  std::vector<CapturedLayer> TakeCaptures() override { return {}; }
  std::vector<MeasuredLayer> TakeMeasures() override { return {}; }

  std::vector<int32_t> tokens;
  int32_t fed = 0;  // what the last run chose

 private:
  int64_t bytes_;
  int64_t accepted_ = 0;
  std::string key_;
};

// Next token: (sum of all tokens so far) % vocabulary. Its logit row has 1 there and 0 elsewhere;
// a row that follows token kPoison is not finite.
class FakeForward : public Forward {
 public:
  static constexpr int32_t kPoison = 13;

  // lookahead 1: a device that computes at Start and tells at Finish, and feeds what it chose.
  explicit FakeForward(int lookahead = 0) : lookahead_(lookahead) {
    shape_.family = "llama";
    shape_.num_layers = 1;
    shape_.vocab_size = 50;
    shape_.max_context = 64;
  }
  const ModelShape& shape() const override { return shape_; }
  const std::string& numerics_class() const override { return class_; }
  absl::StatusOr<std::unique_ptr<SequenceState>> Open(const SequenceRequest& request) override {
    if (before_open) before_open();
    return std::unique_ptr<SequenceState>(std::make_unique<FakeState>(request));
  }
  int ReusableLayers(const std::string&) const override { return 0; }
  bool HasStem(const std::string&) const override { return false; }

  absl::StatusOr<std::vector<std::vector<LogitOutcome>>> Run(const std::vector<ForwardRun>& runs,
                                                             EngineStats*) override {
    if (before_run) before_run();
    if (fail_next) return absl::InternalError("device lost");
    std::vector<std::vector<LogitOutcome>> outcomes;
    for (const ForwardRun& run : runs) outcomes.push_back(RunOne(run));
    return outcomes;
  }

  int lookahead() const override { return lookahead_; }
  bool Feeds(const LogitTask& task) const override { return !task.want_digest; }
  absl::Status Start(const std::vector<ForwardRun>& runs, EngineStats* stats) override {
    EXPECT_LE(under_way_.size(), static_cast<size_t>(lookahead_));
    auto outcomes = Run(runs, stats);
    if (outcomes.ok()) under_way_.push_back(*std::move(outcomes));
    return outcomes.status();
  }
  absl::StatusOr<std::vector<std::vector<LogitOutcome>>> Finish(EngineStats*) override {
    auto outcomes = std::move(under_way_.front());
    under_way_.pop_front();
    return outcomes;
  }

  bool fail_next = false;
  std::function<void()> before_open, before_run;  // may throw

 private:
  std::vector<LogitOutcome> RunOne(const ForwardRun& run) {
    auto* state = static_cast<FakeState*>(run.state);
    EXPECT_EQ(static_cast<int64_t>(state->tokens.size()), run.first);
    std::vector<LogitOutcome> outcomes;
    size_t task = 0;
    for (size_t row = 0; row < run.tokens.size(); ++row) {
      const int32_t token = run.tokens[row] == kFedToken ? state->fed : run.tokens[row];
      EXPECT_TRUE(run.tokens[row] != kFedToken || feeds_.count(state) > 0);
      state->tokens.push_back(token);
      std::vector<float> logits(shape_.vocab_size, 0.0f);
      int64_t sum = 0;
      for (int32_t token : state->tokens) sum += token;
      logits[sum % shape_.vocab_size] = 1.0f;
      if (token == kPoison) logits[3] = std::nanf("");
      for (; task < run.tasks.size() && run.tasks[task].row == static_cast<int64_t>(row); ++task) {
        outcomes.push_back(ReadLogits(logits.data(), shape_.vocab_size, run.tasks[task].task));
        if (!run.tasks[task].task.choose) continue;
        state->fed = std::max(0, outcomes.back().token);
        Feeds(run.tasks[task].task) ? (void)feeds_.insert(state) : (void)feeds_.erase(state);
      }
    }
    return outcomes;
  }

  ModelShape shape_;
  std::string class_ = "fake";
  const int lookahead_;
  std::deque<std::vector<std::vector<LogitOutcome>>> under_way_;
  std::set<const SequenceState*> feeds_;  // whose last token the device has
};

}  // namespace plumbline::testing
