#include "services/engine/batch/request_check.h"

#include <cmath>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/support/status_matchers.h"

namespace plumbline {
namespace {

using ::plumbline::testing::StatusIs;
using ::testing::AllOf;
using ::testing::HasSubstr;

ModelShape Shape() {
  ModelShape shape;
  shape.num_layers = 2;
  shape.vocab_size = 10;
  shape.max_context = 8;
  return shape;
}

SequenceRequest Good() {
  SequenceRequest request;
  request.prompt_tokens = {1, 2, 3};
  request.layers.resize(2);
  request.max_new_tokens = 5;
  return request;
}

void ExpectRefused(const SequenceRequest& request, const std::string& a, const std::string& b) {
  EXPECT_THAT(CheckRequest(request, Shape()),
              StatusIs(absl::StatusCode::kInvalidArgument, AllOf(HasSubstr(a), HasSubstr(b))));
}

TEST(RequestCheckTest, AcceptsUpToTheWholeContext) { EXPECT_OK(CheckRequest(Good(), Shape())); }

TEST(RequestCheckTest, RefusesAnEmptyPrompt) {
  SequenceRequest request = Good();
  request.prompt_tokens.clear();
  ExpectRefused(request, "prompt_tokens", "empty");
}

TEST(RequestCheckTest, RefusesTokensOutsideTheVocabularyByPlaceAndValue) {
  SequenceRequest request = Good();
  request.prompt_tokens[1] = 10;
  ExpectRefused(request, "prompt_tokens[1] = 10", "[0, 10)");
  request = Good();
  request.prompt_tokens[0] = -1;
  ExpectRefused(request, "prompt_tokens[0] = -1", "[0, 10)");
  request = Good();
  request.forced_tokens = {1, 77};
  ExpectRefused(request, "forced_tokens[1] = 77", "[0, 10)");
}

TEST(RequestCheckTest, RefusesMoreThanTheContextHolds) {
  SequenceRequest request = Good();
  request.max_new_tokens = 6;
  ExpectRefused(request, "3 tokens plus max_new_tokens 6", "context of 8");
}

TEST(RequestCheckTest, RefusesToGenerateNothingUnlessItScores) {
  SequenceRequest request = Good();
  request.max_new_tokens = 0;
  ExpectRefused(request, "max_new_tokens", "got 0");
  request.score_from = 1;
  EXPECT_OK(CheckRequest(request, Shape()));
  request.score_from = 3;
  ExpectRefused(request, "score_from 3", "3 tokens");
}

TEST(RequestCheckTest, RefusesMoreForcedTokensThanNewOnes) {
  SequenceRequest request = Good();
  request.forced_tokens = {1, 1, 1, 1, 1, 1};
  ExpectRefused(request, "6", "max_new_tokens 5");
}

TEST(RequestCheckTest, RefusesAPlanOfAnotherSize) {
  SequenceRequest request = Good();
  request.layers.resize(3);
  ExpectRefused(request, "3 layers", "the model 2");
}

TEST(RequestCheckTest, RefusesCalibrationsAndCapturesThatDoNotFit) {
  SequenceRequest request = Good();
  request.calibrations.resize(1);
  ExpectRefused(request, "calibrations has 1", "2 layers");
  request = Good();
  request.capture_layers = {LayerIndex(2)};
  ExpectRefused(request, "capture layer 2", "[0, 2)");
}

TEST(RequestCheckTest, RefusesSamplingOutsideItsRange) {
  for (double temperature : {-1.0, std::nan(""), HUGE_VAL}) {
    SequenceRequest request = Good();
    request.sampling.temperature = temperature;
    ExpectRefused(request, "temperature", "got");
  }
  for (double top_p : {0.0, 1.5, std::nan("")}) {
    SequenceRequest request = Good();
    request.sampling.top_p = top_p;
    ExpectRefused(request, "top_p", "got");
  }
}

}  // namespace
}  // namespace plumbline
