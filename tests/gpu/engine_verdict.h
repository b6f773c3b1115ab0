// What stopping answers at their verdict costs: the callback of every accepted token, which the
// host runs while the GPU computes the next step.
#pragma once

#include <algorithm>
#include <array>
#include <cstdio>
#include <functional>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "services/common/files.h"
#include "services/engine/tokenizer.h"
#include "services/judge/keyword_judge.h"
#include "tests/gpu/engine_work.h"
#include "tests/gpu/plain_words.h"

namespace plumbline {

// Stops as the worker's requests do, on a text of plain words instead of what random weights say.
class PlainVerdicts {
 public:
  struct Spent {
    int64_t tokens = 0;
    double seconds = 0;
  };

  explicit PlainVerdicts(const std::string& tokenizer_json) {
    constexpr int64_t kMostBytes = int64_t{256} << 20;
    auto text = ReadFile(tokenizer_json, kMostBytes);
    Check(text.status());
    auto tokenizer = Tokenizer::Create(*text);
    Check(tokenizer.status());
    tokenizer_ = *std::move(tokenizer);
    auto judge = KeywordJudge::Create({});
    Check(judge.status());
    judge_ = *std::move(judge);
    tokens_ = tokenizer_->Encode(kPlainWords, SpecialTokens::kText);
    if (tokens_.size() < 100)
      Check(absl::InternalError("the tokenizer makes too little of the text"));
  }

  // One answer's. spent: where its time goes; null = it is not taken.
  std::function<bool(int32_t)> Stop(Spent* spent) const {
    struct State {
      IncrementalDecoder decoder;
      VerdictDecider decider;
      size_t next = 0;
    };
    auto state = std::make_shared<State>(
        State{IncrementalDecoder(tokenizer_.get()), VerdictDecider(judge_.get())});
    const auto push = [this, state] {
      const int32_t token = tokens_[state->next++ % tokens_.size()];
      return state->decider.Push(state->decoder.Push(token));
    };
    if (spent == nullptr) return [push](int32_t) { return push(); };
    return [push, spent](int32_t) {
      const auto start = Clock::now();
      const bool decided = push();
      spent->seconds += Seconds(start);
      ++spent->tokens;
      return decided;
    };
  }

 private:
  std::unique_ptr<Tokenizer> tokenizer_;
  std::unique_ptr<KeywordJudge> judge_;
  std::vector<int32_t> tokens_;
};

// The same full-length answers with and without, in turns; then once more with the callbacks' own
// time taken.
inline void CompareVerdicts(const Settings& settings, int running, Engine* engine) {
  const PlainVerdicts verdicts(settings.verdict);
  using Edit = std::function<void(SequenceRequest*)>;
  const auto run = [&](const Edit& edit, int64_t* steps) {
    Submit(settings, {"*:fp"}, running, engine, edit);
    const int64_t before = engine->stats().steps;
    const auto start = Clock::now();
    const int64_t tokens = StepAll(engine);
    const double seconds = Seconds(start);
    *steps = engine->stats().steps - before;
    if (tokens != int64_t{running} * settings.answer) {
      Check(absl::InternalError(absl::StrCat("answers ended early, at ", tokens, " tokens of ",
                                             int64_t{running} * settings.answer,
                                             ": the text decides, or logits are not finite")));
    }
    return seconds;
  };
  const Edit stops = [&](SequenceRequest* r) { r->verdict_decided = verdicts.Stop(nullptr); };
  constexpr int kRounds = 5;  // the first records graphs
  std::array<std::vector<double>, 2> seconds;
  int64_t steps = 0;
  for (int round = 0; round < kRounds; ++round) {
    for (const int turn : {0, 1}) {
      const int with = (round + turn) % 2;
      const double took = run(with != 0 ? stops : nullptr, &steps);
      if (round > 0) seconds[with].push_back(took);
    }
  }
  for (auto& times : seconds) std::sort(times.begin(), times.end());
  const auto middle = [&](int with) {
    const std::vector<double>& times = seconds[with];
    return (times[(times.size() - 1) / 2] + times[times.size() / 2]) / 2;
  };
  const double ms_per_step = middle(0) * 1e3 / static_cast<double>(steps);
  PlainVerdicts::Spent spent;
  run([&](SequenceRequest* r) { r->verdict_decided = verdicts.Stop(&spent); }, &steps);
  const double host_us = spent.seconds * 1e6 / static_cast<double>(steps);
  std::printf(
      "{\"verdict\": %d, \"running\": %d, \"seconds_without\": %.4f, \"seconds_with\": %.4f, "
      "\"slowdown\": %.4f, \"best_slowdown\": %.4f, \"ms_per_step\": %.3f, "
      "\"host_us_per_step\": %.1f, \"host_share\": %.4f, \"ns_per_token\": %.0f}\n",
      kRounds - 1, running, middle(0), middle(1), middle(1) / middle(0) - 1,
      seconds[1][0] / seconds[0][0] - 1, ms_per_step, host_us, host_us / (ms_per_step * 1e3),
      spent.seconds * 1e9 / static_cast<double>(spent.tokens));
  std::fflush(stdout);
}

}  // namespace plumbline
