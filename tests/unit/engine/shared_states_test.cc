#include "services/engine/batch/shared_states.h"

#include "gtest/gtest.h"
#include "services/quant/plan_parser.h"

namespace plumbline {
namespace {

SequenceRequest Request(int prompt, int stem, const char* plan = "*:fp") {
  SequenceRequest request;
  for (int i = 0; i < prompt; ++i) request.prompt_tokens.push_back(i);
  request.layers = *ParsePlan(plan)->Resolve(2, 2, 64);
  request.stem_tokens = stem;
  return request;
}

TEST(SharedStatesTest, StemsEndWhereATileEnds) {
  EXPECT_EQ(SharedStatesOf(Request(60, 45)).stem_tokens, 45);
  EXPECT_EQ(SharedStatesOf(Request(60, 45), 8).stem_tokens, 40);
  EXPECT_EQ(SharedStatesOf(Request(60, 48), 8).stem_tokens, 48);
}

TEST(SharedStatesTest, AStemWithoutAWholeTileIsNone) {
  const SharedStates shared = SharedStatesOf(Request(60, 7), 8);
  EXPECT_EQ(shared.stem_tokens, 0);
  EXPECT_TRUE(shared.stem_key.empty());
  EXPECT_TRUE(shared.stem_prefix_key.empty());
  EXPECT_FALSE(shared.prefix_key.empty());
}

// What is held does not depend on the tokens behind the last whole tile: nor does its name.
TEST(SharedStatesTest, TheNameOfAStemIsThatOfItsWholeTiles) {
  const SharedStates whole = SharedStatesOf(Request(60, 40), 8);
  SequenceRequest request = Request(60, 45);
  request.prompt_tokens[42] = 1000;
  const SharedStates cut = SharedStatesOf(request, 8);
  EXPECT_EQ(cut.stem_key, whole.stem_key);
  EXPECT_EQ(cut.stem_prefix_key, whole.stem_prefix_key);
  EXPECT_NE(cut.prefix_key, whole.prefix_key);
  request.prompt_tokens[39] = 1000;
  EXPECT_NE(SharedStatesOf(request, 8).stem_key, whole.stem_key);
  EXPECT_NE(SharedStatesOf(request).stem_key, SharedStatesOf(Request(60, 45)).stem_key);
}

TEST(SharedStatesTest, RowsThatShareStatisticsAndScoredTextsHaveNone) {
  EXPECT_FALSE(SharedStatesOf(Request(60, 45, "*:int4.asym.token"), 8).stem_key.empty());
  EXPECT_TRUE(SharedStatesOf(Request(60, 45, "*:int3.sym.tensor"), 8).stem_key.empty());
  SequenceRequest scored = Request(60, 45);
  scored.score_from = 1;
  EXPECT_TRUE(SharedStatesOf(scored, 8).stem_key.empty());
}

}  // namespace
}  // namespace plumbline
