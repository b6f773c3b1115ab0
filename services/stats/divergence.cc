#include "services/stats/divergence.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <vector>

#include "absl/strings/str_cat.h"
#include "services/common/status_macros.h"

namespace plumbline {
namespace {

using List = std::vector<TokenLogProbability>;

constexpr double kMassSlack = 1e-5;  // far above rounding, far below any error worth the name

// By token.
absl::StatusOr<List> Sorted(absl::Span<const TokenLogProbability> list) {
  if (list.empty()) return absl::InvalidArgumentError("a divergence needs at least one token");
  List sorted(list.begin(), list.end());
  std::sort(sorted.begin(), sorted.end(),
            [](const auto& a, const auto& b) { return a.token < b.token; });
  double mass = 0;
  for (size_t i = 0; i < sorted.size(); ++i) {
    const double log_p = sorted[i].log_probability;
    if (!std::isfinite(log_p) || log_p > 0) {
      return absl::InvalidArgumentError(absl::StrCat("token ", sorted[i].token,
                                                     " has log probability ", log_p,
                                                     "; it must be finite and <= 0"));
    }
    if (i > 0 && sorted[i].token == sorted[i - 1].token) {
      return absl::InvalidArgumentError(absl::StrCat("token ", sorted[i].token, " is named twice"));
    }
    mass += std::exp(log_p);
  }
  if (mass > 1 + kMassSlack) {
    return absl::InvalidArgumentError(absl::StrCat("probabilities add up to ", mass));
  }
  return sorted;
}

// What a list leaves over, and how well that is known.
struct Tail {
  double mass = 0;
  double resolution = 0;
};

// 1 - sum, with 1 - (the largest) taken by expm1: where one token has nearly all mass, the
// logarithm still knows how nearly.
Tail TailOf(const List& list) {
  const auto largest = std::max_element(list.begin(), list.end(), [](const auto& a, const auto& b) {
    return a.log_probability < b.log_probability;
  });
  Tail tail{-std::expm1(largest->log_probability), std::numeric_limits<double>::epsilon()};
  for (auto it = list.begin(); it != list.end(); ++it) {
    const double p = std::exp(it->log_probability);
    if (it != largest) tail.mass -= p;
    tail.resolution += 0x1p-24 * p * std::abs(it->log_probability);
  }
  tail.mass = std::max(tail.mass, 0.0);
  return tail;
}

}  // namespace

absl::StatusOr<double> DivergenceLowerBound(absl::Span<const TokenLogProbability> p,
                                            absl::Span<const TokenLogProbability> q) {
  PLUMB_ASSIGN_OR_RETURN(const List of_p, Sorted(p));
  PLUMB_ASSIGN_OR_RETURN(const List of_q, Sorted(q));
  const Tail tail_p = TailOf(of_p);
  const Tail tail_q = TailOf(of_q);
  double rest_p = tail_p.mass, rest_q = tail_q.mass;
  double divergence = 0;
  auto a = of_p.begin();
  auto b = of_q.begin();
  while (a != of_p.end() || b != of_q.end()) {
    if (b == of_q.end() || (a != of_p.end() && a->token < b->token)) {
      rest_p += std::exp((a++)->log_probability);
    } else if (a == of_p.end() || b->token < a->token) {
      rest_q += std::exp((b++)->log_probability);
    } else {
      divergence += std::exp(a->log_probability) * (a->log_probability - b->log_probability);
      ++a;
      ++b;
    }
  }
  rest_q = std::max(rest_q, tail_q.resolution);
  if (rest_p > 0) divergence += rest_p * std::log(rest_p / rest_q);
  return std::max(divergence, 0.0);
}

}  // namespace plumbline
