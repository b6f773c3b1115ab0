#include "services/pcr/layers.h"

#include <vector>

#include "gtest/gtest.h"
#include "tests/support/status_matchers.h"

namespace plumbline {
namespace {

using ::plumbline::testing::StatusIs;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;

std::vector<LayerFlips> Layers(const std::vector<int64_t>& flips, int64_t prompts) {
  std::vector<LayerFlips> layers;
  for (const int64_t count : flips) {
    layers.push_back({LayerIndex(static_cast<int32_t>(layers.size())), {count, prompts}});
  }
  return layers;
}

TEST(SecondStageTest, TakesEveryLayerWithTwoFlipsAndTheTopFive) {
  const auto chosen = LayersForSecondStage(Layers({0, 2, 9, 1, 0, 2, 0, 1, 0, 0}, 24));
  // 1, 2 and 5 have two or more; 3 and 7 fill the top five.
  EXPECT_THAT(*chosen, ElementsAre(LayerIndex(1), LayerIndex(2), LayerIndex(3), LayerIndex(5),
                                   LayerIndex(7)));
}

TEST(SecondStageTest, MoreThanFiveGoOnWhenTheyFlip) {
  EXPECT_EQ(LayersForSecondStage(Layers({2, 2, 2, 2, 2, 2, 2, 0}, 24))->size(), 7u);
}

TEST(SecondStageTest, TiesGoToTheLowerLayer) {
  EXPECT_THAT(*LayersForSecondStage(Layers({0, 0, 0, 0}, 24), {.min_flips = 2, .top = 2}),
              ElementsAre(LayerIndex(0), LayerIndex(1)));
}

TEST(SelectCriticalLayersTest, OneStrongLayerIsConcentrated) {
  std::vector<LayerFlips> layers = Layers(std::vector<int64_t>(30, 1), 24);
  layers[19].count = {24, 96};
  ASSERT_OK_AND_ASSIGN(const LayerSelection selection,
                       SelectCriticalLayers(layers, Policy::kPlumbline));
  EXPECT_THAT(selection.critical, ElementsAre(LayerIndex(19)));
  EXPECT_EQ(selection.critical_layer, LayerIndex(19));
  EXPECT_EQ(selection.pattern, AttentionPattern::kConcentrated);
  EXPECT_EQ(selection.ranked.size(), 30u);
  EXPECT_FALSE(selection.every_layer_above);
}

TEST(SelectCriticalLayersTest, AHighEstimateOfFewPromptsIsNotCriticalButIsForThePaper) {
  // 3 of 20 (15%): the exact test against 5% gives .0755 alone, before Holm.
  std::vector<LayerFlips> layers = Layers(std::vector<int64_t>(30, 1), 20);
  layers[4].count = {3, 20};
  layers[5].count = {2, 20};  // exactly 10%
  ASSERT_OK_AND_ASSIGN(const LayerSelection ours, SelectCriticalLayers(layers, Policy::kPlumbline));
  EXPECT_THAT(ours.critical, IsEmpty());
  EXPECT_EQ(ours.critical_layer, std::nullopt);
  EXPECT_NEAR(ours.layers[4].p_value, 0.0754837, 1e-6);
  ASSERT_OK_AND_ASSIGN(const LayerSelection paper, SelectCriticalLayers(layers, Policy::kPaper));
  EXPECT_THAT(paper.critical, ElementsAre(LayerIndex(4), LayerIndex(5)));
  // The pattern counts layers above 10%, the criticality those from 10% on.
  EXPECT_EQ(paper.pattern, AttentionPattern::kConcentrated);
}

TEST(SelectCriticalLayersTest, AFirmEstimateUnderTenPercentIsNotCritical) {
  std::vector<LayerFlips> layers = Layers({0, 0}, 24);
  layers[0].count = {95, 1000};  // 9.5%, far above 5% by any test
  ASSERT_OK_AND_ASSIGN(const LayerSelection selection,
                       SelectCriticalLayers(layers, Policy::kPlumbline));
  EXPECT_LT(selection.layers[0].holm_p, 1e-6);
  EXPECT_THAT(selection.critical, IsEmpty());
}

TEST(SelectCriticalLayersTest, PredictedErrorBreaksTiesOfTheRankingButNotOfLStar) {
  const std::vector<LayerFlips> layers = Layers({30, 30, 0}, 96);
  const std::vector<double> error = {0.1, 0.9, 0.5};
  ASSERT_OK_AND_ASSIGN(const LayerSelection selection,
                       SelectCriticalLayers(layers, Policy::kPlumbline, error));
  EXPECT_THAT(selection.ranked, ElementsAre(LayerIndex(1), LayerIndex(0), LayerIndex(2)));
  EXPECT_EQ(selection.critical_layer, LayerIndex(0));
}

TEST(SelectCriticalLayersTest, EveryLayerAboveNeedsEachLayerToBeFirmly) {
  // 3 of 24 is 12.5%, but p = .12 against 5%.
  std::vector<LayerFlips> layers = Layers(std::vector<int64_t>(6, 30), 96);
  EXPECT_TRUE(SelectCriticalLayers(layers, Policy::kPlumbline)->every_layer_above);
  layers[2].count = {3, 24};
  EXPECT_FALSE(SelectCriticalLayers(layers, Policy::kPlumbline)->every_layer_above);
  EXPECT_TRUE(SelectCriticalLayers(layers, Policy::kPaper)->every_layer_above);
}

// The counts of a real study: 9 of 57 has p .0020 alone and .0595 over 30 layers
// (scipy.stats.binomtest(9, 57, 0.05, alternative="greater")).
TEST(SelectCriticalLayersTest, ALayerThatOnlyHolmsCorrectionSparesIsUnclearAndNotUncritical) {
  std::vector<LayerFlips> layers = Layers(std::vector<int64_t>(30, 1), 24);
  layers[5].count = {9, 57};
  ASSERT_OK_AND_ASSIGN(const LayerSelection selection,
                       SelectCriticalLayers(layers, Policy::kPlumbline));
  EXPECT_NEAR(selection.layers[5].holm_p, 0.0595, 5e-5);
  EXPECT_THAT(selection.critical, IsEmpty());
  EXPECT_THAT(selection.unclear, ElementsAre(LayerIndex(5)));
  EXPECT_FALSE(selection.layers[4].unclear);
  // The answer to "how many more" is the first that holds.
  ASSERT_TRUE(selection.layers[5].more_prompts.has_value());
  const int64_t more = *selection.layers[5].more_prompts;
  const auto holds = [&layers](int64_t prompts) {
    layers[5].count = {9 * prompts / 57, prompts};
    return !SelectCriticalLayers(layers, Policy::kPlumbline)->critical.empty();
  };
  EXPECT_TRUE(holds(57 + more));
  EXPECT_FALSE(holds(57 + more - 1));
  layers[5].count = {9, 57};
  EXPECT_THAT(SelectCriticalLayers(layers, Policy::kPaper)->unclear, IsEmpty());
}

TEST(SelectCriticalLayersTest, OnlyAPBetweenAloneAndAdjustedIsUnclear) {
  std::vector<LayerFlips> layers = Layers(std::vector<int64_t>(30, 1), 24);
  layers[5].count = {6, 57};  // p .0703 alone: nothing speaks for it
  EXPECT_THAT(SelectCriticalLayers(layers, Policy::kPlumbline)->unclear, IsEmpty());
  layers[5].count = {20, 57};  // critical
  EXPECT_THAT(SelectCriticalLayers(layers, Policy::kPlumbline)->unclear, IsEmpty());
  layers[5].count = {95, 1000};  // firmly above 5% and not above 10%
  EXPECT_THAT(SelectCriticalLayers(layers, Policy::kPlumbline)->unclear, IsEmpty());
}

TEST(SelectCriticalLayersTest, ALayerWithoutAnyAnswerIsUnclearUnderBothPolicies) {
  std::vector<LayerFlips> layers = Layers({1, 0, 1}, 24);
  layers[1].count = {0, 0};
  for (const Policy policy : {Policy::kPlumbline, Policy::kPaper}) {
    EXPECT_THAT(SelectCriticalLayers(layers, policy)->unclear, ElementsAre(LayerIndex(1)));
  }
}

TEST(SelectCriticalLayersTest, ContradictoryInputIsRefused) {
  EXPECT_THAT(SelectCriticalLayers({}, Policy::kPaper),
              StatusIs(absl::StatusCode::kInvalidArgument));
  std::vector<LayerFlips> layers = Layers({1, 25}, 24);
  EXPECT_THAT(SelectCriticalLayers(layers, Policy::kPaper),
              StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr("layer 1")));
  layers = Layers({1, 20}, 24);
  layers[1].count.broken = 5;
  EXPECT_THAT(SelectCriticalLayers(layers, Policy::kPaper),
              StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr("5 broken")));
  layers = Layers({1, 2}, 24);
  layers[1].layer = LayerIndex(0);
  EXPECT_THAT(LayersForSecondStage(layers),
              StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr("layer 0 is given twice")));
  const std::vector<double> error = {1};
  EXPECT_THAT(SelectCriticalLayers(Layers({1, 2}, 24), Policy::kPaper, error),
              StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr("kv_error")));
}

}  // namespace
}  // namespace plumbline
