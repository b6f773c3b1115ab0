// Every candidate plan goes through the real grammar and resolves on a model of its size.
#include <numeric>
#include <string>
#include <vector>

#include "gtest/gtest.h"
#include "services/pcr/candidates.h"
#include "services/quant/plan_parser.h"
#include "tests/support/status_matchers.h"

namespace plumbline {
namespace {

TEST(CandidatesParseTest, EveryPlanOfEveryModeIsAValidPlan) {
  int parsed = 0;
  for (const char* target :
       {"int4.asym.token", "int3.sym.tensor", "int2.sym.token", "fp8_e4m3", "fp8_e5m2",
        "int8.asym.token", "int4.asym.token|fp", "fp|int4.asym.token",
        "int4.asym.token.post.perhead", "int4.sym.group32.s16.sink4",
        "int4.affine.channel.window128x32.post.perhead.exact|"
        "int4.affine.group32.window128.perhead.exact"}) {
    for (const FailureMode mode : {FailureMode::kUndetermined, FailureMode::kHyperVulnerable,
                                   FailureMode::kMultiLayerDilution, FailureMode::kMixed}) {
      for (const int32_t layers : {1, 2, 5, 30}) {
        CandidateRequest request;
        request.target_format = target;
        request.num_layers = layers;
        request.mode = mode;
        for (int32_t i = 0; i < layers; ++i) request.ranked_layers.push_back(LayerIndex(i));
        request.critical = {LayerIndex(layers / 2)};
        const absl::StatusOr<std::vector<CandidatePlan>> plans = CandidatePlans(request);
        ASSERT_OK(plans);
        for (const CandidatePlan& candidate : *plans) {
          const absl::StatusOr<Plan> plan = ParsePlan(candidate.plan);
          ASSERT_OK(plan) << candidate.plan;
          ASSERT_OK(plan->Resolve(layers, /*num_kv_heads=*/3, /*head_dim=*/64)) << candidate.plan;
          ++parsed;
        }
      }
    }
  }
  EXPECT_GT(parsed, 1000);
}

}  // namespace
}  // namespace plumbline
