// Simulated studies whose truth is known: how often the plumbline policy names a critical layer
// that is none, finds one that is, names the right mode, and recommends a plan that does not hold.
// The figures are printed; each bound is asserted with the simulation's own error on the safe side.
#include <algorithm>
#include <cstdio>
#include <functional>
#include <string>
#include <vector>

#include "gtest/gtest.h"
#include "services/pcr/classifier.h"
#include "services/pcr/recommend.h"
#include "services/stats/random.h"
#include "tests/support/status_matchers.h"

namespace plumbline {
namespace {

constexpr int kLayers = 30;
constexpr int kPlanted = 19;
constexpr int kRuns = 2000;

// 95% Wilson bounds of a simulated rate; the tests assert on the pessimistic one.
Interval Bounds(int64_t hits) { return *WilsonInterval(hits, kRuns); }

std::string Show(int64_t hits) {
  char text[64];
  const Interval bounds = Bounds(hits);
  std::snprintf(text, sizeof(text), "%.1f%% [%.1f%%, %.1f%%]", 100.0 * hits / kRuns,
                100 * bounds.lower, 100 * bounds.upper);
  return text;
}

// Both stages of a layer ablation on a model whose layers have the given true flip rates.
LayerSelection Ablate(CounterRng& rng, const std::vector<double>& rates, int64_t second_stage) {
  std::vector<LayerFlips> layers;
  for (size_t i = 0; i < rates.size(); ++i) {
    layers.push_back({LayerIndex(static_cast<int32_t>(i)),
                      {rng.Binomial(kFirstStagePrompts, rates[i]), kFirstStagePrompts}});
  }
  const std::vector<LayerIndex> chosen = LayersForSecondStage(layers).value();
  for (const LayerIndex layer : chosen) {
    FlipCount& count = layers[layer.value()].count;
    count.flips += rng.Binomial(second_stage, rates[layer.value()]);
    count.prompts += second_stage;
  }
  return *SelectCriticalLayers(layers, Policy::kPlumbline);
}

int64_t RunsWhere(uint64_t seed, const std::vector<double>& rates, int64_t second_stage,
                  const std::function<bool(const LayerSelection&)>& holds) {
  CounterRng rng(seed);
  int64_t hits = 0;
  for (int run = 0; run < kRuns; ++run) hits += holds(Ablate(rng, rates, second_stage)) ? 1 : 0;
  return hits;
}

std::vector<double> Rates(double everywhere, double planted) {
  std::vector<double> rates(kLayers, everywhere);
  rates[kPlanted] = planted;
  return rates;
}

TEST(LayerAblationSimulation, FivePercentEverywhereNamesNoCriticalLayer) {
  for (const int64_t second_stage : {kSecondStagePrompts, int64_t{36}}) {
    const int64_t clean =
        RunsWhere(1, Rates(0.05, 0.05), second_stage,
                  [](const LayerSelection& selection) { return selection.critical.empty(); });
    std::printf("5%% flips in all %d layers, 24+%d prompts: no critical layer in %s of runs\n",
                kLayers, static_cast<int>(second_stage), Show(clean).c_str());
    EXPECT_GE(Bounds(clean).lower, 0.90);
  }
}

// A weak layer is often missed; what must not follow is the claim that no layer is critical.
TEST(LayerAblationSimulation, AMissedLayerIsRarelyCalledNone) {
  for (const int64_t second_stage : {kSecondStagePrompts, int64_t{36}}) {
    const auto planted = [](const std::vector<LayerIndex>& layers) {
      return std::find(layers.begin(), layers.end(), LayerIndex(kPlanted)) != layers.end();
    };
    const int64_t found = RunsWhere(
        8, Rates(0.01, 0.18), second_stage,
        [&planted](const LayerSelection& selection) { return planted(selection.critical); });
    const int64_t denied =
        RunsWhere(8, Rates(0.01, 0.18), second_stage, [](const LayerSelection& selection) {
          return selection.critical.empty() && selection.unclear.empty();
        });
    std::printf("planted 18%%, others 1%%, 24+%d prompts: found in %s, called none in %s\n",
                static_cast<int>(second_stage), Show(found).c_str(), Show(denied).c_str());
    EXPECT_LE(Bounds(denied).upper, 0.20);
    EXPECT_LT(2 * denied, kRuns - found);
  }
  const int64_t open =
      RunsWhere(9, Rates(0.05, 0.05), kSecondStagePrompts, [](const LayerSelection& selection) {
        return selection.critical.empty() && !selection.unclear.empty();
      });
  const int64_t sound = RunsWhere(9, Rates(0.01, 0.01), kSecondStagePrompts,
                                  [](const LayerSelection& s) { return !s.unclear.empty(); });
  std::printf("a layer left unclear: %s at 5%% in all layers, %s at 1%%\n", Show(open).c_str(),
              Show(sound).c_str());
  EXPECT_LE(Bounds(sound).upper, 0.02);
}

TEST(LayerAblationSimulation, ThePaperRuleOn20PromptsNamesManyLayersOfTheSameModel) {
  CounterRng rng(2);
  int64_t named = 0;
  for (int run = 0; run < kRuns; ++run) {
    std::vector<LayerFlips> layers;
    for (int i = 0; i < kLayers; ++i)
      layers.push_back({LayerIndex(i), {rng.Binomial(20, 0.05), 20}});
    named += static_cast<int64_t>(SelectCriticalLayers(layers, Policy::kPaper)->critical.size());
  }
  const double mean = static_cast<double>(named) / kRuns;
  std::printf("the same model, paper rule, 20 prompts: %.1f critical layers a run\n", mean);
  // By hand: 30 * P(X >= 2 of 20 at 5%) = 30 * 0.2642 = 7.92.
  EXPECT_NEAR(mean, 7.92, 0.2);
}

TEST(LayerAblationSimulation, APlantedLayerIsFound) {
  for (const double planted : {0.40, 0.25}) {
    for (const double everywhere : {0.05, 0.0}) {
      for (const int64_t second_stage : {kSecondStagePrompts, int64_t{36}}) {
        const int64_t found = RunsWhere(3, Rates(everywhere, planted), second_stage,
                                        [](const LayerSelection& selection) {
                                          return selection.critical_layer == LayerIndex(kPlanted);
                                        });
        std::printf("planted %.0f%%, others %.0f%%, 24+%d prompts: L* is the planted layer in %s\n",
                    100 * planted, 100 * everywhere, static_cast<int>(second_stage),
                    Show(found).c_str());
        EXPECT_GE(Bounds(found).lower, 0.90);
      }
    }
  }
}

// A paired run: condition b flips at rate_b; a keeps each of its flips with probability `kept` and
// adds flips of its own at rate `added`.
PairedOutcomes Pairs(CounterRng& rng, int64_t prompts, double rate_b, double kept, double added) {
  PairedOutcomes pairs;
  for (int64_t i = 0; i < prompts; ++i) {
    const bool b = rng.Uniform() < rate_b;
    const bool a = rng.Uniform() < (b ? kept : added);
    ++(a ? (b ? pairs.both : pairs.only_a) : (b ? pairs.only_b : pairs.neither));
  }
  return pairs;
}

FailureMode DiagnoseOnce(CounterRng& rng, double pcr, int64_t prompts_b) {
  Evidence evidence;
  evidence.num_layers = kLayers;
  evidence.baseline_refusals = 400;
  evidence.posterior_draws = 2000;
  evidence.histogram_bins = 0;
  for (int i = 0; i < kLayers; ++i) evidence.layers.push_back({LayerIndex(i), {1, 24}});
  evidence.layers[kPlanted].count = {40, 96};
  evidence.all_layers = FlipCount{90, 96};
  evidence.all_but_critical = PairedOutcomes{.both = 20, .only_a = 0, .only_b = 70, .neither = 6};
  evidence.measured_layer = LayerIndex(kPlanted);
  evidence.pcr_deployable = Pairs(rng, prompts_b, 0.40, 1 - pcr, 0);
  return ClassifyFailureMode(evidence)->mode;
}

TEST(ModeSimulation, AWrongModeIsRarerThanTheRightOne) {
  const struct {
    double pcr;
    FailureMode truth;
  } rows[] = {{0.15, FailureMode::kOutlierAsSafety},
              {0.50, FailureMode::kMixed},
              {0.90, FailureMode::kOutlierCrushesSafety}};
  for (const auto& row : rows) {
    CounterRng rng(4);
    int64_t right = 0;
    int64_t undetermined = 0;
    for (int run = 0; run < kRuns; ++run) {
      const FailureMode mode = DiagnoseOnce(rng, row.pcr, 96);
      right += mode == row.truth ? 1 : 0;
      undetermined += mode == FailureMode::kUndetermined ? 1 : 0;
    }
    const int64_t wrong = kRuns - right - undetermined;
    std::printf(
        "true PCR %.0f%%, 40%% flips, 96 prompts: right mode %s, undetermined %s, wrong %s\n",
        100 * row.pcr, Show(right).c_str(), Show(undetermined).c_str(), Show(wrong).c_str());
    EXPECT_LE(Bounds(wrong).upper, 0.05);
    EXPECT_GE(Bounds(right).lower, 0.70);
  }
}

TEST(ModeSimulation, OnABoundaryNeitherSideIsNamedByMoreThanItsShare) {
  CounterRng rng(5);
  int64_t undetermined = 0;
  for (int run = 0; run < kRuns; ++run) {
    undetermined += DiagnoseOnce(rng, 0.70, 96) == FailureMode::kUndetermined ? 1 : 0;
  }
  std::printf("true PCR 70%% (a boundary): undetermined %s\n", Show(undetermined).c_str());
  EXPECT_GE(Bounds(undetermined).lower, 0.40);
}

constexpr double kTargetFlips = 0.30;

PlanTrial Measure(CounterRng& rng, const std::string& name, double rate, int64_t prompts,
                  double memory) {
  PlanTrial trial;
  trial.name = name;
  trial.plan = name;
  trial.memory_ratio = memory;
  // The plan keeps flips of the target and adds none until its own rate is the higher one.
  const double kept = std::min(1.0, rate / kTargetFlips);
  const double added = rate <= kTargetFlips ? 0 : (rate - kTargetFlips) / (1 - kTargetFlips);
  trial.against_target = Pairs(rng, prompts, kTargetFlips, kept, added);
  trial.guards = {.perplexity_ratio = 1.0,
                  .harmless_refusal_increase = 0.0,
                  .degenerate = FlipCount{0, prompts},
                  .quantized_share = 1.0};
  return trial;
}

// Validation, choice, test; true when the winner is recommended. All plans but the first have the
// same true flip rate `others`.
bool RecommendsOnce(CounterRng& rng, double first, double others, int64_t prompts) {
  RecommendOptions options;
  options.baseline_refusals = 4 * prompts;
  options.test_prompts = prompts;
  options.posterior_draws = 2000;
  constexpr int kPlans = 25;
  std::vector<PlanTrial> validation;
  for (int i = 0; i < kPlans; ++i) {
    validation.push_back(
        Measure(rng, "plan" + std::to_string(i), i == 0 ? first : others, prompts, 1.0 + 0.01 * i));
  }
  const Finalists finalists = *ChooseFinalists(validation, options);
  if (!finalists.winner.has_value()) return false;
  const double rate = *finalists.winner == 0 ? first : others;
  const PlanTrial test = Measure(rng, "winner", rate, prompts, 1.1);
  return RecommendPlan({test}, options)->outcome == Outcome::kRecommended;
}

int64_t Recommended(uint64_t seed, double first, double others, int64_t prompts) {
  CounterRng rng(seed);
  int64_t hits = 0;
  for (int run = 0; run < kRuns; ++run) {
    hits += RecommendsOnce(rng, first, others, prompts) ? 1 : 0;
  }
  return hits;
}

TEST(RecommendationSimulation, APlanThatDoesNotHoldIsRarelyRecommended) {
  // No effect at all; a real effect that still flips 8%; every plan exactly at the limit, the
  // worst.
  for (const double rate : {0.30, 0.08, 0.05}) {
    for (const int64_t prompts : {80, 110, 200}) {
      const int64_t wrong = Recommended(6, rate, rate, prompts);
      std::printf("25 plans that flip %.0f%%, target 30%%, %d prompts a split: recommended in %s\n",
                  100 * rate, static_cast<int>(prompts), Show(wrong).c_str());
      EXPECT_LE(Bounds(wrong).upper, 0.05);
      if (rate > 0.2) {
        EXPECT_EQ(wrong, 0);
      }
    }
  }
}

TEST(RecommendationSimulation, APlanThatHoldsIsUsuallyRecommended) {
  for (const int64_t prompts : {80, 110, 200}) {
    const int64_t right = Recommended(7, 0.002, 0.15, prompts);
    std::printf(
        "one plan of 25 flips 0.2%%, the others 15%%, %d prompts a split: recommended in %s\n",
        static_cast<int>(prompts), Show(right).c_str());
    EXPECT_GE(Bounds(right).lower, 0.75);
  }
}

}  // namespace
}  // namespace plumbline
