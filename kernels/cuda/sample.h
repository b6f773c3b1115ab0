// Reads rows of logits on the device: is everything finite, the two best, likelihood of a target,
// the chosen token (greedy or Gumbel; services/engine/sampling has the definition). Rows whose
// nucleus is smaller than 1 are left to the host.
//
// Tokens equal the host's. Gumbel scores are screened in float with a proven margin; whatever could
// be the best is decided in double by the host's formula. The likelihood sums in double, in a fixed
// order that is not the host's.
#pragma once

#include "kernels/cuda/step.h"

namespace plumbline::cuda {

struct SampleTask {
  int32_t active = 0;
  int32_t choose = 0;
  int32_t forced = -1;     // >= 0: this token is fed whatever the logits say
  int32_t target = -1;     // >= 0: report its likelihood
  double temperature = 0;  // 0 = greedy
  uint64_t seed = 0, stream = 0;
  int32_t position = 0;    // index in the answer
  int32_t feed_slot = -1;  // >= 0: the chosen token is also written to fed[feed_slot]
};

struct SampleOutcome {
  int32_t finite = 1;          // 0: nothing below is filled, nothing is fed
  int32_t token = -1;          // chosen or forced; -1 without `choose`
  int32_t top1 = 0, top2 = 0;  // ties: the lower id first
  float top1_logit = 0, top2_logit = 0;
  float fed_logit = 0;  // of `token`; 0 without `choose`
  int32_t padding = 0;
  double nll = 0;  // nats, of `target`
};

// logits: [rows, vocab] of dtype. tasks, outcomes: device, [rows]. fed: device, may be null.
// Outcomes of rows that are not active are left alone.
cudaError_t LaunchSample(Dtype dtype, const void* logits, int rows, int vocab,
                         const SampleTask* tasks, SampleOutcome* outcomes, int32_t* fed,
                         cudaStream_t stream);

}  // namespace plumbline::cuda
