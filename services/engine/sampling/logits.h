// Everything the engine reads off one row of logits: the chosen token, the two best, regret,
// likelihood, digest, and whether all are finite. Pure, so rows may be spread over threads.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "services/engine/engine.h"

namespace plumbline {

// What to do with the logits of one row.
struct LogitTask {
  bool choose = false;   // choose the next token of the answer
  Sampling sampling;     // of the choice
  int64_t position = 0;  // index in the answer of the token to choose
  int32_t forced = -1;   // >= 0: this token is fed whatever the logits say
  int32_t target = -1;   // >= 0: report the likelihood of this token
  bool want_digest = false;
  int top = 0;  // > 0: list that many of the most probable tokens
};

struct LogitOutcome {
  bool finite = true;  // false: nothing else is filled but the digest
  int32_t token = -1;  // chosen or forced
  StepTrace trace;
  double nll = 0;             // nats, of `target`
  std::string digest;         // SHA-256 (hex) of the row's float bits
  std::vector<TopToken> top;  // most probable first, ties by the lower id
};

LogitOutcome ReadLogits(const float* logits, int vocab, const LogitTask& task);

}  // namespace plumbline
