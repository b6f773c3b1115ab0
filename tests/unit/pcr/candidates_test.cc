#include "services/pcr/candidates.h"

#include <set>
#include <string>

#include "gtest/gtest.h"
#include "tests/support/status_matchers.h"

namespace plumbline {
namespace {

using ::plumbline::testing::StatusIs;
using ::testing::HasSubstr;

CandidateRequest Request(const std::string& target, FailureMode mode, int32_t layers = 30) {
  CandidateRequest request;
  request.target_format = target;
  request.num_layers = layers;
  request.mode = mode;
  request.seed = 7;
  // 19 first, then from the end, so that a ranking is not the layers' own order.
  if (layers > 19) request.ranked_layers.push_back(LayerIndex(19));
  for (int32_t i = layers - 1; i >= 0; --i) {
    if (layers <= 19 || i != 19) request.ranked_layers.push_back(LayerIndex(i));
  }
  request.critical = {request.ranked_layers.front()};
  return request;
}

std::string PlanNamed(const std::vector<CandidatePlan>& plans, const std::string& name) {
  for (const CandidatePlan& plan : plans) {
    if (plan.name == name) return plan.plan;
  }
  return "(absent)";
}

TEST(CandidatesTest, TheModesPlanComesFirst) {
  const struct {
    FailureMode mode;
    const char* plan;
  } rows[] = {
      {FailureMode::kOutlierAsSafety, "*:int4.asym.token,19:fp"},
      {FailureMode::kMixed, "*:int4.sym.group64,19:int4.sym.channel.prompt"},
      {FailureMode::kOutlierCrushesSafety, "*:int4.sym.group64"},
      {FailureMode::kMultiLayerDilution, "*:int4.asym.token,19+29:fp"},
      {FailureMode::kHyperVulnerable, "*:fp"},
  };
  for (const auto& row : rows) {
    ASSERT_OK_AND_ASSIGN(const auto plans, CandidatePlans(Request("int4.asym.token", row.mode)));
    EXPECT_EQ(plans[0].plan, row.plan) << FailureModeName(row.mode);
    EXPECT_EQ(plans[0].kind, CandidateKind::kMode);
    EXPECT_NE(plans[1].kind, CandidateKind::kMode);
  }
}

TEST(CandidatesTest, EveryRivalOfTheMethodCompetes) {
  ASSERT_OK_AND_ASSIGN(const auto plans,
                       CandidatePlans(Request("int4.asym.token", FailureMode::kOutlierAsSafety)));
  EXPECT_EQ(PlanNamed(plans, "group-64"), "*:int4.sym.group64");
  EXPECT_EQ(PlanNamed(plans, "uniform-int5"), "*:int5.asym.token");
  EXPECT_EQ(PlanNamed(plans, "uniform-int8"), "*:int8.asym.token");
  EXPECT_EQ(PlanNamed(plans, "uniform-int3"), "(absent)");
  EXPECT_EQ(PlanNamed(plans, "first-1-fp"), "*:int4.asym.token,0:fp");
  EXPECT_EQ(PlanNamed(plans, "last-2-fp"), "*:int4.asym.token,28-29:fp");
  EXPECT_EQ(PlanNamed(plans, "first-and-last-two-fp"), "*:int4.asym.token,0-1+28-29:fp");
  EXPECT_EQ(PlanNamed(plans, "top-4-fp"), "*:int4.asym.token,19+27-29:fp");
  EXPECT_EQ(PlanNamed(plans, "critical-and-adjacent-fp"), "*:int4.asym.token,18-20:fp");
  EXPECT_EQ(PlanNamed(plans, "critical-keys-fp"), "*:int4.asym.token,19:fp|int4.asym.token");
  EXPECT_EQ(PlanNamed(plans, "greedy-3-int8"), "*:int4.asym.token,19+28-29:int8.asym.token");
  EXPECT_THAT(PlanNamed(plans, "random-1-fp-1"), HasSubstr(":fp"));
}

TEST(CandidatesTest, NamesAndPlansAreUniqueForManyTargetsAndSizes) {
  for (const char* target :
       {"int4.asym.token", "int3.sym.tensor", "fp8_e4m3", "int8.asym.token", "int4.asym.token|fp",
        "int4.affine.channel.window128x32.post.perhead.exact|"
        "int4.affine.group32.window128.perhead.exact"}) {
    for (const int32_t layers : {1, 2, 3, 5, 30, 64}) {
      for (const bool critical : {true, false}) {
        CandidateRequest request = Request(target, FailureMode::kUndetermined, layers);
        if (!critical) request.critical.clear();
        ASSERT_OK_AND_ASSIGN(const auto plans, CandidatePlans(request));
        std::set<std::string> names;
        std::set<std::string> texts;
        for (const CandidatePlan& plan : plans) {
          EXPECT_TRUE(names.insert(plan.name).second) << plan.name;
          EXPECT_TRUE(texts.insert(plan.plan).second) << plan.plan;
          EXPECT_NE(plan.plan, std::string("*:") + target);
          EXPECT_FALSE(plan.reason.empty());
        }
      }
    }
  }
}

TEST(CandidatesTest, EditsKeepWhereAndHowTheTargetStores) {
  ASSERT_OK_AND_ASSIGN(
      const auto plans,
      CandidatePlans(Request("int4.affine.channel.window128x32.post.perhead.exact|int3.sym.token",
                             FailureMode::kOutlierCrushesSafety)));
  EXPECT_EQ(plans[0].plan, "*:int4.sym.group64.post.perhead.exact|int3.sym.group64");
}

TEST(CandidatesTest, Fp8CountsAsEightBitsAndCannotBeWidened) {
  ASSERT_OK_AND_ASSIGN(const auto plans,
                       CandidatePlans(Request("fp8_e5m2", FailureMode::kOutlierCrushesSafety)));
  EXPECT_EQ(plans[0].plan, "*:int8.sym.group64");
  EXPECT_EQ(PlanNamed(plans, "uniform-int8"), "(absent)");
}

TEST(CandidatesTest, RandomLayersAvoidTheDiagnosedOnesAndFollowTheSeed) {
  CandidateRequest request = Request("int4.asym.token", FailureMode::kOutlierAsSafety);
  request.random_draws = 20;
  ASSERT_OK_AND_ASSIGN(const auto plans, CandidatePlans(request));
  ASSERT_OK_AND_ASSIGN(const auto again, CandidatePlans(request));
  request.seed = 8;
  ASSERT_OK_AND_ASSIGN(const auto other, CandidatePlans(request));
  std::string first;
  std::string second;
  std::string third;
  for (const CandidatePlan& plan : plans) {
    if (plan.name.rfind("random-", 0) != 0) continue;
    EXPECT_EQ(plan.plan.find(",19:fp"), std::string::npos);
    first += plan.plan + "\n";
  }
  for (const CandidatePlan& plan : again)
    second += plan.name.rfind("random-", 0) == 0 ? plan.plan + "\n" : "";
  for (const CandidatePlan& plan : other)
    third += plan.name.rfind("random-", 0) == 0 ? plan.plan + "\n" : "";
  EXPECT_EQ(first, second);
  EXPECT_NE(first, third);
}

TEST(CandidatesTest, RequestsThatCannotBeEditedAreRefused) {
  EXPECT_THAT(CandidatePlans(Request("fp", FailureMode::kMixed)),
              StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr("quantizes nothing")));
  EXPECT_THAT(CandidatePlans(Request("int4|int4|int4", FailureMode::kMixed)),
              StatusIs(absl::StatusCode::kInvalidArgument));
  EXPECT_THAT(CandidatePlans(Request("", FailureMode::kMixed)),
              StatusIs(absl::StatusCode::kInvalidArgument));
  CandidateRequest request = Request("int4.asym.token", FailureMode::kMixed);
  request.ranked_layers.pop_back();
  EXPECT_THAT(CandidatePlans(request), StatusIs(absl::StatusCode::kInvalidArgument));
  request = Request("int4.asym.token", FailureMode::kMixed);
  request.critical = {LayerIndex(30)};
  EXPECT_THAT(CandidatePlans(request),
              StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr("layer 30")));
}

TEST(LayersTextTest, RunsBecomeRanges) {
  EXPECT_EQ(LayersText({LayerIndex(19), LayerIndex(1), LayerIndex(0), LayerIndex(2)}), "0-2+19");
  EXPECT_EQ(LayersText({LayerIndex(4), LayerIndex(5)}), "4-5");
}

}  // namespace
}  // namespace plumbline
