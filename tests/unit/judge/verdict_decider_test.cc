// The promise that makes early stopping exact: once decided, the verdict on the prefix is the
// verdict on the whole, however the text is cut and whatever follows.
#include <map>
#include <random>

#include "services/judge/keyword_judge.h"
#include "tests/support/status_matchers.h"

namespace plumbline {
namespace {

struct Stream {
  std::vector<std::string> pieces;
  std::vector<int32_t> ids;
};

// Words, fragments of phrases, loops, broken characters: whatever makes events and near misses.
Stream RandomStream(std::mt19937_64& random) {
  static const std::vector<std::string> kPieces = {
      "I",     " I",     " can",     "not",     " cannot", "\u2019",  "'",    "t",
      "can",   " sorry", " am",      "I'm",     " the",    " the",    " a",   " b",
      ".",     "!",      "!!",       "\n",      " as an",  " AI",     "\xe2", "\x80",
      "\x99",  "\xff",   "\ufffd",   " unable", " to",     " help",   "sure", " Here",
      " is",   ":",      "\x01",     " \u6211", "\u6211",  "",        " 12",  " , but",
      " sure", " ready", " allowed", " think",  " should", " I'm not"};
  Stream stream;
  const int length = static_cast<int>(random() % 80);
  while (static_cast<int>(stream.pieces.size()) < length) {
    const int period = 1 + static_cast<int>(random() % (random() % 2 == 0 ? 6 : 17));
    const int repeats = random() % 4 == 0 ? 1 + static_cast<int>(random() % 14) : 1;
    std::vector<int32_t> block;
    for (int i = 0; i < period; ++i)
      block.push_back(static_cast<int32_t>(random() % kPieces.size()));
    for (int r = 0; r < repeats; ++r) {
      for (int32_t id : block) {
        stream.pieces.push_back(kPieces[static_cast<size_t>(id)]);
        stream.ids.push_back(id);
      }
    }
  }
  return stream;
}

TEST(VerdictDecider, VerdictAtTheStopIsTheVerdictOnTheWholeAnswer) {
  ASSERT_OK_AND_ASSIGN(auto judge, KeywordJudge::Create({}));
  std::mt19937_64 random(7);
  std::map<VerdictLabel, int> stopped, ran_on;
  for (int trial = 0; trial < 20000; ++trial) {
    const Stream stream = RandomStream(random);
    std::string text;
    for (const std::string& piece : stream.pieces) text += piece;
    const bool nonfinite = random() % 20 == 0;
    const Judgement whole =
        judge->Judge({.text = text, .token_ids = stream.ids, .nonfinite = nonfinite});

    VerdictDecider decider(judge.get());
    std::string prefix;
    std::vector<int32_t> prefix_ids;
    for (size_t i = 0; i < stream.pieces.size() && !decider.decided(); ++i) {
      prefix += stream.pieces[i];
      prefix_ids.push_back(stream.ids[i]);
      decider.Push(stream.pieces[i]);
    }
    if (decider.decided()) {
      ASSERT_EQ(judge->Judge({.text = prefix, .token_ids = prefix_ids}), whole) << trial;
      ASSERT_EQ(decider.Finish(prefix_ids, false), whole) << trial;
      ++stopped[whole.label];
    } else {
      ASSERT_EQ(decider.Finish(prefix_ids, nonfinite), whole) << trial;
      ++ran_on[whole.label];
    }
  }
  // The generator reaches every way to end, or the property would hold for want of cases.
  EXPECT_GT(stopped[VerdictLabel::kRefuse], 1000);
  EXPECT_GT(stopped[VerdictLabel::kDegenerate], 1000);
  EXPECT_GT(ran_on[VerdictLabel::kComply], 1000);
  EXPECT_GT(ran_on[VerdictLabel::kDegenerate], 100);
  EXPECT_GT(ran_on[VerdictLabel::kNonFinite], 100);
  // What ran on was not refused: every phrase stops.
  EXPECT_EQ(ran_on[VerdictLabel::kRefuse], 0);
}

TEST(VerdictDecider, CutsWithinCharactersChangeNothing) {
  ASSERT_OK_AND_ASSIGN(auto judge, KeywordJudge::Create({}));
  const std::string text = "Well \u2026 \u6211 I can\u2019t do this.";
  VerdictDecider decider(judge.get());
  size_t bytes = 0;
  while (bytes < text.size() && !decider.Push(absl::string_view(text).substr(bytes, 1))) ++bytes;
  EXPECT_EQ(text.substr(bytes, 1), "t");
  EXPECT_EQ(decider.Finish({}, false), judge->Judge({.text = text}));
}

TEST(VerdictDecider, DoesNotDecideOnPartsOfAPhrase) {
  ASSERT_OK_AND_ASSIGN(auto judge, KeywordJudge::Create({}));
  VerdictDecider decider(judge.get());
  EXPECT_FALSE(decider.Push("I can"));
  EXPECT_FALSE(decider.Push("no"));
  EXPECT_TRUE(decider.Push("t"));
  EXPECT_TRUE(decider.Push(" or can I?"));
}

}  // namespace
}  // namespace plumbline
