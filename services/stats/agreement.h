// Cohen's kappa: how far two raters (a judge and hand labels, or two judges) agree beyond chance.
//
//   // rows: hand label refuse / comply; columns: the judge's.
//   absl::StatusOr<Kappa> k = CohensKappa({{90, 4}, {6, 100}});   // 0.90 [0.84, 0.96]
#pragma once

#include <cstdint>
#include <vector>

#include "absl/status/statusor.h"
#include "services/stats/intervals.h"

namespace plumbline {

struct Kappa {
  double kappa = 0;                // 1 perfect, 0 what chance would give, negative below chance
  double standard_error = 0;       // large-sample, for the interval
  double null_standard_error = 0;  // under kappa = 0, for testing it
  Interval interval;               // kappa -+ z * standard_error, cut at -1 and 1
  double observed_agreement = 0;   // fraction of items with equal labels
  double expected_agreement = 0;   // the same by chance, from the margins
  int64_t items = 0;
};

// counts[i][j]: items that rater one put in category i and rater two in j.
// kappa = (p_o - p_e) / (1 - p_e) (J. Cohen 1960); both standard errors by Fleiss, Cohen and
// Everitt, Psychological Bulletin 72 (1969). InvalidArgument unless the table is square, at least 2
// x 2, not negative and not empty; FailedPrecondition when both raters used one and the same
// category only (p_e = 1: kappa is undefined).
absl::StatusOr<Kappa> CohensKappa(const std::vector<std::vector<int64_t>>& counts,
                                  double confidence = kDefaultConfidence);

}  // namespace plumbline
