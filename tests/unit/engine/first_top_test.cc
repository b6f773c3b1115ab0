// The most probable first answer tokens, held against scoring every token of the vocabulary after
// the same prompt.
#include <algorithm>
#include <cmath>

#include "tests/unit/engine/engine_fixture.h"

namespace plumbline {
namespace {

using ::plumbline::testing::OpenEngine;
using ::plumbline::testing::Prompt;
using ::plumbline::testing::Request;
using ::plumbline::testing::RunAll;
using ::plumbline::testing::RunOne;
using ::plumbline::testing::TinyBundle;
using ::testing::IsEmpty;
using ::testing::SizeIs;

constexpr int kVocab = 97;

class FirstTopTest : public ::testing::Test {
 protected:
  FirstTopTest() : engine_(OpenEngine(bundle_)) {}

  SequenceRequest Cell(const std::string& plan, int first_top, uint32_t seed = 3) {
    SequenceRequest request = Request(*engine_, next_id_++, Prompt(30, seed), plan, 6);
    request.first_top = first_top;
    return request;
  }
  SequenceResult Run(SequenceRequest request) { return RunOne(engine_.get(), std::move(request)); }

  // All tokens, most probable first.
  std::vector<std::pair<double, int32_t>> Scored(const std::string& plan) {
    std::vector<std::pair<double, int32_t>> scored;
    for (int32_t token = 0; token < kVocab; ++token) {
      SequenceRequest request = Cell(plan, 0);
      request.prompt_tokens.push_back(token);
      request.max_new_tokens = 0;
      request.score_from = 30;
      const SequenceResult result = Run(std::move(request));
      EXPECT_EQ(result.nll_tokens, 1);
      scored.emplace_back(result.nll_sum, token);
    }
    std::sort(scored.begin(), scored.end());
    return scored;
  }

  TinyBundle bundle_;
  std::unique_ptr<Engine> engine_;
  uint64_t next_id_ = 1;
};

void ExpectSame(const std::vector<TopToken>& a, const std::vector<TopToken>& b) {
  ASSERT_EQ(a.size(), b.size());
  for (size_t i = 0; i < a.size(); ++i) {
    EXPECT_EQ(a[i].token, b[i].token);
    EXPECT_EQ(a[i].log_probability, b[i].log_probability);
  }
}

TEST_F(FirstTopTest, AgreesWithScoringEveryTokenAfterThePrompt) {
  // Steps of a token each, so that the scored token does not change what the prompt is stored as.
  for (const std::string plan : {"*:fp", "*:int4.asym.token"}) {
    const auto scored = Scored(plan);
    const SequenceResult result = Run(Cell(plan, 32));
    ASSERT_THAT(result.first_top, SizeIs(32));
    EXPECT_EQ(result.first_top[0].token, result.tokens[0]);  // greedy
    for (size_t i = 0; i < 32; ++i) {
      EXPECT_EQ(result.first_top[i].token, scored[i].second) << plan << " " << i;
      EXPECT_NEAR(result.first_top[i].log_probability, -scored[i].first, 1e-6) << plan << " " << i;
    }
  }
}

TEST_F(FirstTopTest, WholeVocabularyAddsUpToOneAndThereIsNoMore) {
  const SequenceResult result = Run(Cell("*:fp", 500));
  ASSERT_THAT(result.first_top, SizeIs(kVocab));
  double total = 0;
  for (const TopToken& top : result.first_top) total += std::exp(double{top.log_probability});
  EXPECT_NEAR(total, 1, 1e-6);
}

TEST_F(FirstTopTest, NeitherForcedTokensNorSamplingNorTheRestOfTheAnswerMatter) {
  const std::vector<TopToken> plain = Run(Cell("*:int4.asym.token", 8)).first_top;
  SequenceRequest forced = Cell("*:int4.asym.token", 8);
  forced.forced_tokens = {plain[5].token, 1, 2};
  ExpectSame(Run(std::move(forced)).first_top, plain);
  SequenceRequest sampled = Cell("*:int4.asym.token", 8);
  sampled.sampling = {.temperature = 2, .top_p = 0.5, .seed = 7};
  ExpectSame(Run(std::move(sampled)).first_top, plain);
  SequenceRequest stops_at_once = Cell("*:int4.asym.token", 8);
  stops_at_once.stop_tokens = {plain[0].token};
  const SequenceResult empty = Run(std::move(stops_at_once));
  EXPECT_THAT(empty.tokens, IsEmpty());
  ExpectSame(empty.first_top, plain);
}

TEST_F(FirstTopTest, ABatchGivesTheBitsOfEachSequenceAlone) {
  std::vector<SequenceRequest> together;
  std::vector<std::vector<TopToken>> alone;
  for (uint32_t seed = 1; seed <= 6; ++seed) {
    alone.push_back(Run(Cell("*:int4.asym.token", 8, seed)).first_top);
    together.push_back(Cell("*:int4.asym.token", 8, seed));
    together.back().id = seed;
  }
  const auto results = RunAll(engine_.get(), std::move(together));
  for (uint64_t seed = 1; seed <= 6; ++seed) {
    ExpectSame(results.at(seed).first_top, alone[seed - 1]);
  }
}

TEST_F(FirstTopTest, IsEmptyUnlessAsked) { EXPECT_THAT(Run(Cell("*:fp", 0)).first_top, IsEmpty()); }

}  // namespace
}  // namespace plumbline
