#include "services/stats/agreement.h"

#include <algorithm>
#include <cmath>

#include "absl/strings/str_cat.h"
#include "services/common/status_macros.h"

namespace plumbline {
namespace {

using Table = std::vector<std::vector<int64_t>>;

absl::Status Check(const Table& counts) {
  if (counts.size() < 2) {
    return absl::InvalidArgumentError(
        absl::StrCat("kappa needs at least 2 categories, got ", counts.size()));
  }
  for (const std::vector<int64_t>& row : counts) {
    if (row.size() != counts.size()) {
      return absl::InvalidArgumentError(absl::StrCat("kappa needs a square table, got a row of ",
                                                     row.size(), " in ", counts.size(), " rows"));
    }
    for (const int64_t count : row) {
      if (count < 0) {
        return absl::InvalidArgumentError(absl::StrCat("a count is negative: ", count));
      }
    }
  }
  return absl::OkStatus();
}

struct Proportions {
  std::vector<std::vector<double>> cell;
  std::vector<double> row;
  std::vector<double> column;
};

Proportions Normalize(const Table& counts, double total) {
  const size_t n = counts.size();
  Proportions p{.cell = std::vector<std::vector<double>>(n, std::vector<double>(n)),
                .row = std::vector<double>(n),
                .column = std::vector<double>(n)};
  for (size_t i = 0; i < n; ++i) {
    for (size_t j = 0; j < n; ++j) {
      p.cell[i][j] = static_cast<double>(counts[i][j]) / total;
      p.row[i] += p.cell[i][j];
      p.column[j] += p.cell[i][j];
    }
  }
  return p;
}

// n (1 - p_e)^2 times the large-sample variance.
double VarianceNumerator(const Proportions& p, double kappa, double expected) {
  double sum = 0;
  for (size_t i = 0; i < p.row.size(); ++i) {
    const double diagonal = 1 - (p.row[i] + p.column[i]) * (1 - kappa);
    sum += p.cell[i][i] * diagonal * diagonal;
    for (size_t j = 0; j < p.row.size(); ++j) {
      if (i == j) continue;
      const double off = (p.column[i] + p.row[j]) * (1 - kappa);
      sum += p.cell[i][j] * off * off;
    }
  }
  const double centre = kappa - expected * (1 - kappa);
  return sum - centre * centre;
}

}  // namespace

absl::StatusOr<Kappa> CohensKappa(const Table& counts, double confidence) {
  PLUMB_RETURN_IF_ERROR(Check(counts));
  PLUMB_ASSIGN_OR_RETURN(const double z, NormalQuantile(0.5 + confidence / 2));
  Kappa result;
  int64_t agreed = 0;
  for (size_t i = 0; i < counts.size(); ++i) {
    agreed += counts[i][i];
    for (const int64_t count : counts[i]) result.items += count;
  }
  if (result.items == 0) return absl::InvalidArgumentError("kappa of an empty table");
  const double total = static_cast<double>(result.items);
  const Proportions p = Normalize(counts, total);
  double null_sum = 0;
  for (size_t i = 0; i < counts.size(); ++i) {
    if (p.row[i] * total == total && p.column[i] * total == total) {
      return absl::FailedPreconditionError(absl::StrCat("kappa is undefined: both raters put all ",
                                                        result.items, " items in one category"));
    }
    result.expected_agreement += p.row[i] * p.column[i];
    null_sum += p.row[i] * p.column[i] * (p.row[i] + p.column[i]);
  }
  const double expected = result.expected_agreement;
  result.observed_agreement = static_cast<double>(agreed) / total;
  result.kappa = (result.observed_agreement - expected) / (1 - expected);
  result.standard_error =
      std::sqrt(std::max(0.0, VarianceNumerator(p, result.kappa, expected)) / total) /
      (1 - expected);
  result.null_standard_error =
      std::sqrt(std::max(0.0, expected + expected * expected - null_sum) / total) / (1 - expected);
  result.interval = {.lower = std::max(-1.0, result.kappa - z * result.standard_error),
                     .upper = std::min(1.0, result.kappa + z * result.standard_error)};
  return result;
}

}  // namespace plumbline
