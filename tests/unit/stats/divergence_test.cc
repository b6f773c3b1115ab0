#include "services/stats/divergence.h"

#include <algorithm>
#include <cmath>
#include <vector>

#include "services/stats/random.h"
#include "tests/support/status_matchers.h"

namespace plumbline::testing {
namespace {

using ::testing::HasSubstr;
using List = std::vector<TokenLogProbability>;

List Logs(const std::vector<std::pair<int32_t, double>>& probabilities) {
  List list;
  for (const auto& [token, p] : probabilities) list.push_back({token, std::log(p)});
  return list;
}

double Of(const List& p, const List& q) {
  const auto divergence = DivergenceLowerBound(p, q);
  EXPECT_THAT(divergence, IsOk());
  return divergence.ok() ? *divergence : -1;
}

TEST(DivergenceTest, WholeDistributionsGiveTheTextbookValue) {
  // scipy.stats.entropy([0.5, 0.25, 0.25], [0.25, 0.5, 0.25])
  EXPECT_NEAR(Of(Logs({{1, 0.5}, {2, 0.25}, {3, 0.25}}), Logs({{2, 0.5}, {1, 0.25}, {3, 0.25}})),
              0.17328679513998632, 1e-9);
}

TEST(DivergenceTest, TokensThatOneListLacksCountAsOneWithTheRest) {
  // scipy.stats.entropy([0.6, 0.4], [0.3, 0.7])
  EXPECT_NEAR(Of(Logs({{1, 0.6}, {2, 0.3}}), Logs({{1, 0.3}, {9, 0.5}})), 0.19204199316179815,
              1e-12);
  // Nothing shared says nothing.
  EXPECT_EQ(Of(Logs({{1, 0.6}}), Logs({{2, 0.9}})), 0);
}

TEST(DivergenceTest, DirectionCounts) {
  const List p = Logs({{1, 0.9}, {2, 0.05}}), q = Logs({{1, 0.5}, {2, 0.05}});
  EXPECT_GT(std::abs(Of(p, q) - Of(q, p)), 0.05);
}

TEST(DivergenceTest, EqualListsAreExactlyZeroWhateverTheyLeaveOver) {
  EXPECT_EQ(Of(Logs({{1, 0.5}, {2, 0.2}}), Logs({{1, 0.5}, {2, 0.2}})), 0);
  EXPECT_EQ(Of({{7, 0.0}}, {{7, 0.0}}), 0);
  EXPECT_EQ(Of({{7, -1e-12}}, {{7, -1e-12}}), 0);
  // In single precision a whole distribution can seem to hold more than 1.
  const List over = {{1, std::log(0.5)}, {2, std::log(0.5) + 3e-8}};
  EXPECT_EQ(Of(over, over), 0);
}

TEST(DivergenceTest, RestSurvivesATokenThatHasNearlyAllMass) {
  // p(rest) = 1e-9 and q(rest) = 1e-12: 1 - exp() would keep 7 and 4 digits of them.
  const double expected =
      (1 - 1e-9) * (std::log1p(-1e-9) - std::log1p(-1e-12)) + 1e-9 * std::log(1e3);
  EXPECT_NEAR(Of({{1, std::log1p(-1e-9)}}, {{1, std::log1p(-1e-12)}}) / expected, 1, 1e-3);
}

TEST(DivergenceTest, ListThatLeavesNothingOverGivesAFiniteBound) {
  const double divergence = Of(Logs({{1, 0.5}}), {{1, 0.0}});
  EXPECT_TRUE(std::isfinite(divergence));
  EXPECT_GT(divergence, 10);  // the true one lies above 0.5 ln(0.5 / 2^-52) - 0.5 ln 2 = 17
}

std::vector<double> RandomDistribution(CounterRng* rng, int size, double spread) {
  std::vector<double> weights;
  double total = 0;
  for (int i = 0; i < size; ++i) total += weights.emplace_back(std::exp(spread * rng->Normal()));
  for (double& w : weights) w /= total;
  return weights;
}

List TopOf(const std::vector<double>& distribution, size_t top) {
  List list;
  for (size_t i = 0; i < distribution.size(); ++i) {
    list.push_back({static_cast<int32_t>(i), static_cast<float>(std::log(distribution[i]))});
  }
  std::stable_sort(list.begin(), list.end(), [](const auto& a, const auto& b) {
    return a.log_probability > b.log_probability;
  });
  list.resize(std::min(top, list.size()));
  return list;
}

TEST(DivergenceTest, NeverExceedsTheDivergenceOfTheFullDistributions) {
  CounterRng rng(11);
  int informative = 0;
  for (int round = 0; round < 2000; ++round) {
    const int size = static_cast<int>(2 + rng.Below(200));
    std::vector<double> p = RandomDistribution(&rng, size, 4 * rng.Uniform());
    std::vector<double> q = RandomDistribution(&rng, size, 4 * rng.Uniform());
    if (round % 2 == 0) {  // near each other, as under a format that does little
      double total = 0;
      for (int i = 0; i < size; ++i) total += q[i] = p[i] * std::exp(0.3 * rng.Normal());
      for (double& x : q) x /= total;
    }
    double full = 0;
    for (int i = 0; i < size; ++i) full += p[i] * std::log(p[i] / q[i]);
    const size_t top = 1 + rng.Below(40);
    const double bound = Of(TopOf(p, top), TopOf(q, top));
    EXPECT_LE(bound, full + 2e-6) << "round " << round;
    informative += bound > 0.5 * full;
  }
  EXPECT_GT(informative, 500);  // a bound that is always 0 would pass the rest
}

TEST(DivergenceTest, ListsThatAreNoDistributionAreRefused) {
  const List good = Logs({{1, 0.5}});
  const auto refuses = [&good](const List& bad, const std::string& why) {
    EXPECT_THAT(DivergenceLowerBound(bad, good),
                StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr(why)));
    EXPECT_THAT(DivergenceLowerBound(good, bad),
                StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr(why)));
  };
  refuses({}, "at least one");
  refuses({{4, 0.1}}, "token 4");
  refuses({{4, std::nan("")}}, "token 4");
  refuses({{4, -HUGE_VAL}}, "token 4");
  refuses({{4, -1}, {4, -2}}, "twice");
  refuses({{4, -0.1}, {5, -0.1}}, "add up to");
}

}  // namespace
}  // namespace plumbline::testing
