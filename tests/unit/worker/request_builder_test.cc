#include "services/worker/request_builder.h"

#include <array>
#include <numeric>

#include "gtest/gtest.h"
#include "services/common/digest.h"
#include "tests/support/status_matchers.h"
#include "tests/unit/engine_text/small_tokenizer.h"

namespace plumbline {
namespace {

using ::testing::HasSubstr;
using testing::StatusIs;

std::vector<int32_t> Count(int n) {
  std::vector<int32_t> tokens(static_cast<size_t>(n));
  std::iota(tokens.begin(), tokens.end(), 0);
  return tokens;
}

TEST(ScoreWindowsTest, EveryTokenButTheFirstIsScoredExactlyOnce) {
  for (const auto& [total, window, stride] : std::vector<std::array<int, 3>>{{2, 0, 0},
                                                                             {10, 4, 2},
                                                                             {10, 4, 4},
                                                                             {11, 4, 3},
                                                                             {100, 16, 1},
                                                                             {2049, 2048, 512},
                                                                             {5, 8, 2}}) {
    std::vector<int> scored(static_cast<size_t>(total), 0);
    for (const ScoreWindow& part : ScoreWindows(Count(total), window, stride)) {
      if (window > 0) {
        EXPECT_LE(static_cast<int>(part.tokens.size()), window);
      }
      ASSERT_GE(part.score_from, 1);
      for (size_t i = static_cast<size_t>(part.score_from); i < part.tokens.size(); ++i) {
        ++scored[static_cast<size_t>(
            part.tokens[i])];  // the token's value is its place in the text
      }
    }
    EXPECT_EQ(scored[0], 0);
    for (int i = 1; i < total; ++i) {
      EXPECT_EQ(scored[static_cast<size_t>(i)], 1)
          << "token " << i << " of " << total << ", window " << window << ", stride " << stride;
    }
  }
}

TEST(ScoreWindowsTest, LaterWindowsHaveContext) {
  const std::vector<ScoreWindow> windows = ScoreWindows(Count(3000), 2048, 512);
  ASSERT_GT(windows.size(), 1u);
  EXPECT_EQ(windows[0].score_from, 1);
  EXPECT_EQ(windows[1].score_from, 2048 - 512);
}

TEST(TokenDigestTest, IsSha256OfLittleEndianWords) {
  EXPECT_EQ(TokenDigest({1, -2}), Sha256Hex(absl::string_view("\x01\0\0\0\xfe\xff\xff\xff", 8)));
  EXPECT_NE(TokenDigest({1, 2}), TokenDigest({2, 1}));
}

CatalogEntry EntryWithoutTokenizer() {
  CatalogEntry entry;
  entry.info.set_num_layers(2);
  entry.info.set_num_kv_heads(1);
  entry.info.set_head_dim(64);
  entry.text = std::make_shared<TextModel>();
  return entry;
}

TEST(BuildRequestTest, DecodingOutOfRangeIsRefusedWithItsValue) {
  const CatalogEntry entry = EntryWithoutTokenizer();
  SequenceInput input;
  input.plan = "*:fp";
  const auto build = [&] { return BuildRequest(entry, input, nullptr).status(); };
  input.decoding.set_max_new_tokens(0);
  EXPECT_THAT(build(), StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr("got 0")));
  input.decoding.set_max_new_tokens(5000);
  EXPECT_THAT(build(), StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr("5000")));
  input.decoding.set_max_new_tokens(5);
  input.decoding.mutable_sampling()->set_temperature(-1);
  EXPECT_THAT(build(), StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr("-1")));
  input.decoding.mutable_sampling()->set_temperature(std::nan(""));
  EXPECT_THAT(build(), StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr("nan")));
  input.decoding.mutable_sampling()->set_temperature(1);
  input.decoding.mutable_sampling()->set_top_p(1.5);
  EXPECT_THAT(build(), StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr("1.5")));
  input.decoding.mutable_sampling()->set_top_p(1);
  input.decoding.set_stop_on_verdict("keyword/0-other");
  EXPECT_THAT(build(), StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr("keyword/0-other")));
  input.decoding.clear_stop_on_verdict();
  input.decoding.set_raw(true);
  EXPECT_THAT(build(), StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr("one user turn")));
}

TEST(EncodePromptTest, AModelWithoutAChatFormatTakesRawPromptsAlone) {
  TextModel text;
  ASSERT_OK_AND_ASSIGN(text.tokenizer, Tokenizer::Create(testing::SmallTokenizer().dump()));
  v1::ChatTurn turn;
  turn.set_role(v1::ROLE_USER);
  turn.set_text("hello");
  v1::DecodingSettings decoding;
  EXPECT_THAT(EncodePrompt(text, {turn}, decoding),
              StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr("--raw")));
  decoding.set_raw(true);
  ASSERT_OK_AND_ASSIGN(const auto tokens, EncodePrompt(text, {turn}, decoding));
  EXPECT_EQ(tokens, std::vector<int32_t>{259});
}

TEST(EncodePromptTest, RawPromptsBeginWithTheModelsBosOnce) {
  constexpr int32_t kBos = 301;
  TextModel text;
  ASSERT_OK_AND_ASSIGN(text.tokenizer, Tokenizer::Create(testing::SmallTokenizer().dump()));
  text.config.bos_token_id = kBos;
  v1::ChatTurn turn;
  turn.set_role(v1::ROLE_USER);
  turn.set_text("hello");
  v1::DecodingSettings decoding;
  decoding.set_raw(true);
  ASSERT_OK_AND_ASSIGN(auto tokens, EncodePrompt(text, {turn}, decoding));
  EXPECT_EQ(tokens, (std::vector<int32_t>{kBos, 259}));
  turn.set_text("<|bos|>hello");
  decoding.set_parse_special(true);
  ASSERT_OK_AND_ASSIGN(tokens, EncodePrompt(text, {turn}, decoding));
  EXPECT_EQ(tokens, (std::vector<int32_t>{kBos, 259}));
}

TEST(ResolvePlanTest, ErrorsCarryTheRuleAndTheModelsSize) {
  const CatalogEntry entry = EntryWithoutTokenizer();
  EXPECT_OK(ResolvePlan("*:int4.asym.token", entry.info, false));
  EXPECT_THAT(ResolvePlan("*:fp,7:int4.asym.token", entry.info, false),
              StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr("7")));
  EXPECT_FALSE(ResolvePlan("*:int4.asym.channel", entry.info, false).ok());
  EXPECT_OK(ResolvePlan("*:int4.asym.channel", entry.info, true));
}

}  // namespace
}  // namespace plumbline
