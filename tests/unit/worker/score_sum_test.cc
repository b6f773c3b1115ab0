#include "services/worker/score_sum.h"

#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace plumbline {
namespace {

using ::testing::HasSubstr;

SequenceResult Window(double nll, int64_t tokens, FinishReason reason = FinishReason::kLength) {
  SequenceResult result;
  result.nll_sum = nll;
  result.nll_tokens = tokens;
  result.finish_reason = reason;
  result.kv_elements = 100;
  result.kv_elements_quantized = 75;
  return result;
}

ScoreSum Of(size_t windows) {
  v1::CellResult frame;
  frame.set_cell_key("key");
  frame.set_prompt_tokens(40);
  return ScoreSum(frame, windows);
}

TEST(ScoreSum, AddsTheWindowsInTheirOrderWhateverOrderTheyFinishIn) {
  // Added in another order these differ in the last bit.
  const double nll[] = {1e16, 1.0, 1.0};
  double expected = 0;
  for (const double part : nll) expected += part;
  ScoreSum sum = Of(3);
  EXPECT_FALSE(sum.Add(2, Window(nll[2], 7)));
  EXPECT_FALSE(sum.Add(1, Window(nll[1], 5)));
  EXPECT_TRUE(sum.Add(0, Window(nll[0], 3)));
  const v1::CellResult result = sum.Take();
  EXPECT_NE(expected, (nll[2] + nll[1]) + nll[0]);
  EXPECT_EQ(result.nll_sum(), expected);
  EXPECT_EQ(result.nll_tokens(), 15u);
  EXPECT_EQ(result.cell_key(), "key");
  EXPECT_EQ(result.prompt_tokens(), 40u);
  EXPECT_EQ(result.kv_elements(), 300u);
  EXPECT_EQ(result.kv_elements_quantized(), 225u);
  EXPECT_EQ(result.finish_reason(), v1::FINISH_REASON_LENGTH);
}

TEST(ScoreSum, ANaNInOneWindowLeavesNoScore) {
  ScoreSum sum = Of(2);
  sum.Add(0, Window(9, 3, FinishReason::kNonFinite));
  sum.Add(1, Window(8, 4));
  const v1::CellResult result = sum.Take();
  EXPECT_EQ(result.finish_reason(), v1::FINISH_REASON_NONFINITE);
  EXPECT_EQ(result.nll_tokens(), 0u);
  EXPECT_EQ(result.nll_sum(), 0);
  EXPECT_EQ(result.status().code(), 0);
}

TEST(ScoreSum, AFailedWindowFailsTheCell) {
  ScoreSum sum = Of(2);
  sum.Add(0, absl::ResourceExhaustedError("no memory for it"));
  sum.Add(1, Window(8, 4));
  const v1::CellResult result = sum.Take();
  EXPECT_EQ(result.status().code(), static_cast<int>(absl::StatusCode::kResourceExhausted));
  EXPECT_THAT(result.status().message(), HasSubstr("no memory"));
  EXPECT_EQ(result.nll_tokens(), 0u);
}

}  // namespace
}  // namespace plumbline
