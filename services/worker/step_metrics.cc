#include "services/worker/step_metrics.h"

#include <algorithm>

namespace plumbline {
namespace {

// "other" is a difference of two clocks' readings and may come out a hair below nothing, which a
// counter does not take.
void Count(const MetricInfo& info, absl::string_view label, double by, Metrics* metrics) {
  metrics->Increment(info, {label}, std::max(by, 0.0));
}

}  // namespace

void CountStep(const EngineStats& added, double seconds, Metrics* metrics) {
  Count(metric::kWorkerTokens, "prompt", static_cast<double>(added.prompt_tokens), metrics);
  Count(metric::kWorkerTokens, "decode", static_cast<double>(added.decoded_tokens), metrics);
  Count(metric::kWorkerEngineSeconds, "matmul", added.matmul_seconds, metrics);
  Count(metric::kWorkerEngineSeconds, "attention", added.attention_seconds, metrics);
  Count(metric::kWorkerEngineSeconds, "quantize", added.quantize_seconds, metrics);
  Count(metric::kWorkerEngineSeconds, "other", added.other_seconds, metrics);
  metrics->Observe(metric::kWorkerStepSeconds, {}, seconds);
}

}  // namespace plumbline
