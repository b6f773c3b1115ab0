#include "services/engine/sampling/logits.h"

#include <algorithm>
#include <cfloat>
#include <cmath>
#include <cstring>
#include <vector>

#include "absl/strings/string_view.h"
#include "services/common/digest.h"
#include "services/engine/sampling/sampler.h"
#include "services/stats/random.h"

namespace plumbline {
namespace {

// x - x is 0 for finite x and NaN else, so one NaN in the sum tells that something was not finite.
bool AllFinite(const float* x, int n) {
  float lanes[16] = {};
  int i = 0;
  for (; i + 16 <= n; i += 16) {
    for (int lane = 0; lane < 16; ++lane) lanes[lane] += x[i + lane] - x[i + lane];
  }
  float sum = 0;
  for (; i < n; ++i) sum += x[i] - x[i];
  for (float lane : lanes) sum += lane;
  return sum == 0;
}

void FindTopTwo(const float* logits, int vocab, StepTrace* trace) {
  float first = -INFINITY, second = -INFINITY;
  int32_t first_id = 0, second_id = 0;
  for (int32_t i = 0; i < vocab; ++i) {
    if (logits[i] <= second) continue;
    if (logits[i] > first) {
      second = first;
      second_id = first_id;
      first = logits[i];
      first_id = i;
    } else {
      second = logits[i];
      second_id = i;
    }
  }
  trace->top1 = first_id;
  trace->top2 = second_id;
  trace->top1_logit = first;
  trace->top2_logit = second;
}

double NegativeLogLikelihood(const float* logits, int vocab, float max, int32_t target) {
  double total = 0;
  for (int i = 0; i < vocab; ++i) total += std::exp(double{logits[i]} - max);
  return std::log(total) - (double{logits[target]} - max);
}

// Log probabilities are part of a result's digest on every device: no C library decides their bits,
// and the order of summing is fixed.
std::vector<TopToken> MostProbable(const float* logits, int vocab, float max, int top) {
  // A heap whose front is the worst kept: a later token of equal logit does not displace it.
  const auto better = [logits](int32_t a, int32_t b) {
    return logits[a] != logits[b] ? logits[a] > logits[b] : a < b;
  };
  std::vector<int32_t> kept;
  for (int32_t i = 0; i < vocab; ++i) {
    if (static_cast<int>(kept.size()) < top) {
      kept.push_back(i);
      std::push_heap(kept.begin(), kept.end(), better);
    } else if (logits[i] > logits[kept.front()]) {
      std::pop_heap(kept.begin(), kept.end(), better);
      kept.back() = i;
      std::push_heap(kept.begin(), kept.end(), better);
    }
  }
  std::sort_heap(kept.begin(), kept.end(), better);
  double total = 0;
  for (int i = 0; i < vocab; ++i) total += PortableExp(double{logits[i]} - max);
  const double log_total = PortableLog(total);
  std::vector<TopToken> tokens;
  for (const int32_t token : kept) {
    const double log_probability = (double{logits[token]} - max) - log_total;
    tokens.push_back(
        {token, static_cast<float>(std::clamp(log_probability, double{-FLT_MAX}, 0.0))});
  }
  return tokens;
}

}  // namespace

LogitOutcome ReadLogits(const float* logits, int vocab, const LogitTask& task) {
  LogitOutcome outcome;
  if (task.want_digest) {
    outcome.digest = Sha256Hex(absl::string_view(reinterpret_cast<const char*>(logits),
                                                 sizeof(float) * static_cast<size_t>(vocab)));
  }
  outcome.finite = AllFinite(logits, vocab);
  if (!outcome.finite) return outcome;
  FindTopTwo(logits, vocab, &outcome.trace);
  if (task.target >= 0) {
    outcome.nll = NegativeLogLikelihood(logits, vocab, outcome.trace.top1_logit, task.target);
  }
  if (task.top > 0) {
    outcome.top = MostProbable(logits, vocab, outcome.trace.top1_logit, task.top);
  }
  if (task.choose) {
    outcome.token = task.forced >= 0 ? task.forced
                                     : SampleToken(logits, vocab, outcome.trace.top1, task.sampling,
                                                   task.position);
    outcome.trace.regret = outcome.trace.top1_logit - logits[outcome.token];
  }
  return outcome;
}

}  // namespace plumbline
