#include "services/engine/sampling/sampler.h"

#include <algorithm>
#include <cmath>
#include <vector>

#include "services/engine/sampling/philox.h"

namespace plumbline {
namespace {

// Above the noise of the largest u, 1 - 2^-33: -log(2^-33) = 22.88.
constexpr double kLargestNoise = 22.9;

// Tokens less than e^-35 as probable as the best are left out of the nucleus's total: together less
// than 1e-9 of it for a million of them.
constexpr double kNegligible = -35;

struct Draw {
  const float* logits;
  const Sampling& sampling;
  int64_t position;
  double best_score;
  int32_t best;

  // Tokens that no noise could lift above the best so far need no noise drawn.
  void Consider(int32_t token) {
    const double scaled = logits[token] / sampling.temperature;
    if (scaled + kLargestNoise < best_score) return;
    const double score = scaled + GumbelNoise(sampling, position, token);
    if (score > best_score || (score == best_score && token < best)) {
      best_score = score;
      best = token;
    }
  }
};

// The ids of the nucleus, most probable first.
std::vector<int32_t> Nucleus(const float* logits, int vocab, int32_t top1,
                             const Sampling& sampling) {
  double total = 0;
  for (int i = 0; i < vocab; ++i) {
    const double exponent = (double{logits[i]} - logits[top1]) / sampling.temperature;
    if (exponent > kNegligible) total += std::exp(exponent);
  }
  std::vector<int32_t> order(vocab);
  for (int i = 0; i < vocab; ++i) order[i] = i;
  const auto more_probable = [logits](int32_t a, int32_t b) {
    return logits[a] > logits[b] || (logits[a] == logits[b] && a < b);
  };
  // The nucleus is mostly small: sort ever longer prefixes.
  double mass = 0;
  int kept = 0;
  for (int sorted = 0; sorted < vocab;) {
    const int next = std::min(vocab, std::max(64, sorted * 4));
    std::partial_sort(order.begin() + sorted, order.begin() + next, order.end(), more_probable);
    for (sorted = next; kept < sorted && mass < sampling.top_p * total; ++kept) {
      mass += std::exp((double{logits[order[kept]]} - logits[top1]) / sampling.temperature);
    }
    if (mass >= sampling.top_p * total) break;
  }
  order.resize(std::max(kept, 1));
  return order;
}

}  // namespace

double GumbelNoise(const Sampling& sampling, int64_t position, int32_t token) {
  const auto words = Philox4x32(
      {static_cast<uint32_t>(token) / 4, static_cast<uint32_t>(position),
       static_cast<uint32_t>(sampling.stream), static_cast<uint32_t>(sampling.stream >> 32)},
      sampling.seed);
  const double u = (words[token % 4] + 0.5) / 4294967296.0;
  return -std::log(-std::log(u));
}

int32_t SampleToken(const float* logits, int vocab, int32_t top1, const Sampling& sampling,
                    int64_t position) {
  if (sampling.temperature <= 0) return top1;
  Draw draw{logits, sampling, position,
            logits[top1] / sampling.temperature + GumbelNoise(sampling, position, top1), top1};
  if (sampling.top_p >= 1) {
    for (int32_t token = 0; token < vocab; ++token) draw.Consider(token);
  } else {
    for (int32_t token : Nucleus(logits, vocab, top1, sampling)) draw.Consider(token);
  }
  return draw.best;
}

}  // namespace plumbline
