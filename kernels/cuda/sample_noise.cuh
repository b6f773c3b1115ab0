// Gumbel noise and scores of tokens: the host's formula, and a cheap one that says what could be
// the best. Included by sample.cu alone.
#pragma once

#include "kernels/cuda/sample.h"

namespace plumbline::cuda {

struct Words {
  uint32_t word[4];
  __device__ uint32_t Of(int32_t token) const {
    const int i = token % 4;
    return i < 2 ? (i == 0 ? word[0] : word[1]) : (i == 2 ? word[2] : word[3]);
  }
};

// services/engine/sampling/philox.cc
__device__ inline Words Philox(uint32_t quad, const SampleTask& task) {
  uint32_t c0 = quad, c1 = static_cast<uint32_t>(task.position);
  uint32_t c2 = static_cast<uint32_t>(task.stream), c3 = static_cast<uint32_t>(task.stream >> 32);
  uint32_t key0 = static_cast<uint32_t>(task.seed), key1 = static_cast<uint32_t>(task.seed >> 32);
#pragma unroll
  for (int round = 0; round < 10; ++round) {
    const uint32_t high0 = __umulhi(0xD2511F53u, c0), low0 = 0xD2511F53u * c0;
    const uint32_t high1 = __umulhi(0xCD9E8D57u, c2), low1 = 0xCD9E8D57u * c2;
    c0 = high1 ^ c1 ^ key0;
    c1 = low1;
    c2 = high0 ^ c3 ^ key1;
    c3 = low0;
    key0 += 0x9E3779B9u;
    key1 += 0xBB67AE85u;
  }
  return {{c0, c1, c2, c3}};
}

// The host's formula. Its logarithms and these may differ in the last bit of a double.
__device__ inline double ExactScore(float logit, uint32_t word, double temperature) {
  const double u = (word + 0.5) / 4294967296.0;
  return logit / temperature - log(-log(u));
}

struct Screen {
  float score, margin;
};

// How far off scores in float may be: -log(u) is good to 4e-7 of itself, its logarithm to 3 ulp of
// at most 22.9 (6e-6) or to 4e-7 near 0, the scaled logit to 3 * 2^-24 of itself.
__device__ inline float Margin(float scaled) { return fmaf(fabsf(scaled), 4e-7f, 2e-5f); }

// Whether a token's score may reach `low`. Noise of g or more needs -log(u) <= e^-g, and 1 - u is
// less than -log(u): most tokens fall here, at the cost of one exponential. The wide margin makes
// up for its roundings.
__device__ inline bool MayReach(float logit, uint32_t word, float inverse_temperature, float low) {
  const float scaled = logit * inverse_temperature;
  const float most = scaled - low + fmaf(fabsf(scaled) + fabsf(low), 4e-7f, 1e-3f);
  return !((static_cast<float>(~word) + 0.5f) * 0x1p-32f > __expf(most));
}

__device__ inline Screen FastScore(float logit, uint32_t word, float inverse_temperature) {
  const float kUnit = 1.0f / 4294967296.0f;
  const float exponential = word >= 0x80000000u
                                ? -log1pf(-(static_cast<float>(~word) + 0.5f) * kUnit)
                                : -__logf((static_cast<float>(word) + 0.5f) * kUnit);
  const float scaled = logit * inverse_temperature;
  return {scaled - __logf(exponential), Margin(scaled)};
}

}  // namespace plumbline::cuda
