// Chooses a token from one row of logits.
//
// Greedy: the highest logit, the lowest id on a tie. Sampled, by the Gumbel-max rule:
//
//   token = argmax over the nucleus of  logit / temperature + g(token),   g = -log(-log(u))
//   u(token) = (w + 1/2) / 2^32,  w = word token % 4 of
//              Philox4x32-10(counter = {token / 4, position, stream low, stream high}, key = seed)
//
// The nucleus is the smallest set of most probable tokens (ties: lower id first) whose probability
// under the temperature reaches top_p. The noise depends on (seed, stream, position, token) alone:
// a baseline and a condition that share these share their randomness.
//
// Pure functions, safe from any thread.
#pragma once

#include <cstdint>

#include "services/engine/engine.h"

namespace plumbline {

// Standard Gumbel noise of one token at one position of the answer (0 = first answer token).
double GumbelNoise(const Sampling& sampling, int64_t position, int32_t token);

// logits: [vocab], finite. top1 is the greedy choice, which the caller has found already.
int32_t SampleToken(const float* logits, int vocab, int32_t top1, const Sampling& sampling,
                    int64_t position);

}  // namespace plumbline
