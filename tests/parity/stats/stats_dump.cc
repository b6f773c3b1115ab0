// Reads one request a line from standard input, writes its results on one line with 17 digits, so
// that compare_stats.py can hold them against scipy, statsmodels and numpy. An error is written as
// "error <code>".
//
//   wilson 3 96 0.95      ->  0.010682... 0.08788...
#include <cstdio>
#include <functional>
#include <iostream>
#include <map>
#include <sstream>
#include <string>
#include <vector>

#include "services/stats/agreement.h"
#include "services/stats/binomial.h"
#include "services/stats/correlation.h"
#include "services/stats/divergence.h"
#include "services/stats/intervals.h"
#include "services/stats/multiple_testing.h"
#include "services/stats/paired_ratio.h"

namespace plumbline {
namespace {

using Arguments = std::vector<double>;
using Answer = absl::StatusOr<std::vector<double>>;

Answer Single(const absl::StatusOr<double>& value) {
  if (!value.ok()) return value.status();
  return std::vector<double>{*value};
}

Answer Ends(const absl::StatusOr<Interval>& interval) {
  if (!interval.ok()) return interval.status();
  return std::vector<double>{interval->lower, interval->upper};
}

int64_t Int(double value) { return static_cast<int64_t>(value); }

Answer KappaOf(const Arguments& a) {  // size, then the cells by row
  const size_t size = static_cast<size_t>(a[0]);
  std::vector<std::vector<int64_t>> table(size, std::vector<int64_t>(size));
  for (size_t i = 0; i < size * size; ++i) table[i / size][i % size] = Int(a[1 + i]);
  const absl::StatusOr<Kappa> kappa = CohensKappa(table);
  if (!kappa.ok()) return kappa.status();
  return std::vector<double>{kappa->kappa, kappa->standard_error, kappa->null_standard_error};
}

Answer RatioOf(const Arguments& a) {  // both only_a only_b neither draws seed
  RatioOptions options;
  options.draws = static_cast<int32_t>(a[4]);
  options.seed = static_cast<uint64_t>(a[5]);
  const absl::StatusOr<RatioPosterior> p = PairedRatioPosterior(
      {.both = Int(a[0]), .only_a = Int(a[1]), .only_b = Int(a[2]), .neither = Int(a[3])}, options);
  if (!p.ok()) return p.status();
  return std::vector<double>{
      p->estimate,     p->median,       p->interval.lower, p->interval.upper,
      p->band_mass[0], p->band_mass[1], p->band_mass[2],   p->probability_positive};
}

Answer Correlate(const Arguments& a, bool ranks) {  // x..., then y...
  const absl::Span<const double> x(a.data(), a.size() / 2);
  const absl::Span<const double> y(a.data() + a.size() / 2, a.size() / 2);
  return Single(ranks ? SpearmanCorrelation(x, y) : PearsonCorrelation(x, y));
}

Answer DivergenceOf(const Arguments& a) {  // tokens of P, then token and log p of P's, of Q's
  const auto size_p = static_cast<size_t>(a[0]);
  std::vector<TokenLogProbability> p, q;
  for (size_t i = 1; i + 1 < a.size(); i += 2) {
    (p.size() < size_p ? p : q).push_back({static_cast<int32_t>(a[i]), a[i + 1]});
  }
  return Single(DivergenceLowerBound(p, q));
}

const std::map<std::string, std::function<Answer(const Arguments&)>>& Requests() {
  static const auto* const kRequests = new std::map<std::string,
                                                    std::function<Answer(const Arguments&)>>{
      {"mass", [](const Arguments& a) { return Single(BinomialMass(Int(a[0]), Int(a[1]), a[2])); }},
      {"lower",
       [](const Arguments& a) { return Single(BinomialLowerTail(Int(a[0]), Int(a[1]), a[2])); }},
      {"upper",
       [](const Arguments& a) { return Single(BinomialUpperTail(Int(a[0]), Int(a[1]), a[2])); }},
      {"twosided",
       [](const Arguments& a) {
         return Single(BinomialTest(Int(a[0]), Int(a[1]), a[2], Alternative::kTwoSided));
       }},
      {"mcnemar", [](const Arguments& a) { return Single(McNemarExact(Int(a[0]), Int(a[1]))); }},
      {"wilson",
       [](const Arguments& a) { return Ends(WilsonInterval(Int(a[0]), Int(a[1]), a[2])); }},
      {"clopper",
       [](const Arguments& a) { return Ends(ClopperPearsonInterval(Int(a[0]), Int(a[1]), a[2])); }},
      {"passing",
       [](const Arguments& a) {
         return Single(ProbabilityOfPassing(Int(a[0]), Int(a[1]), Int(a[2]), a[3]));
       }},
      {"quantile", [](const Arguments& a) { return Single(NormalQuantile(a[0])); }},
      {"holm", [](const Arguments& a) -> Answer { return HolmAdjust(a); }},
      {"kappa", KappaOf},
      {"pearson", [](const Arguments& a) { return Correlate(a, false); }},
      {"spearman", [](const Arguments& a) { return Correlate(a, true); }},
      {"ratio", RatioOf},
      {"divergence", DivergenceOf},
  };
  return *kRequests;
}

int Run() {
  std::string line;
  while (std::getline(std::cin, line)) {
    std::istringstream words(line);
    std::string name;
    words >> name;
    Arguments arguments;
    for (double value; words >> value;) arguments.push_back(value);
    const auto request = Requests().find(name);
    if (request == Requests().end()) {
      std::fprintf(stderr, "unknown request '%s'\n", name.c_str());
      return 1;
    }
    const Answer answer = request->second(arguments);
    if (!answer.ok()) std::printf("error %d", static_cast<int>(answer.status().code()));
    for (size_t i = 0; answer.ok() && i < answer->size(); ++i) {
      std::printf("%s%.17g", i == 0 ? "" : " ", (*answer)[i]);
    }
    std::printf("\n");
  }
  return 0;
}

}  // namespace
}  // namespace plumbline

int main() { return plumbline::Run(); }
