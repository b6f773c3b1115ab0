// How far one distribution over tokens is from another, known by their most probable tokens only.
#pragma once

#include <cstdint>

#include "absl/status/statusor.h"
#include "absl/types/span.h"

namespace plumbline {

struct TokenLogProbability {
  int32_t token = 0;
  double log_probability = 0;  // natural, <= 0
};

// Kullback-Leibler divergence of Q from P in nats, over the partition {each token of both lists} +
// {all other tokens as one}:
//
//   KL = sum over shared t of p(t) ln(p(t) / q(t))  +  p(rest) ln(p(rest) / q(rest))
//
// Merging outcomes never raises a divergence (data-processing inequality), so this is at most the
// divergence of the full distributions; it equals it when both lists hold all tokens, and is 0 for
// equal lists. Only tokens of both lists count apart, because a list says of a token that it lacks
// no more than that it is improbable.
//
// p(rest) is a list's tokens outside the other list, plus 1 - the whole list's mass. That
// difference is known to within what single-precision log probabilities leave open; below it, and
// below 2^-52 in any case, q(rest) counts as that much, so that a list which seems to leave nothing
// over yields a finite number and still a lower bound.
//
// InvalidArgument: a list is empty, names a token twice, has a log probability that is not finite
// or above 0, or masses that add up to more than 1.
absl::StatusOr<double> DivergenceLowerBound(absl::Span<const TokenLogProbability> p,
                                            absl::Span<const TokenLogProbability> q);

}  // namespace plumbline
