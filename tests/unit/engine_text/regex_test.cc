#include "services/engine/text/regex.h"

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/support/status_matchers.h"

namespace plumbline {
namespace {

using ::plumbline::testing::StatusIs;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using ::testing::Pair;

std::vector<std::pair<size_t, size_t>> Find(absl::string_view pattern, absl::string_view text) {
  auto regex = Regex::Compile(pattern);
  EXPECT_OK(regex);
  return regex->FindAll(text);
}

TEST(RegexTest, SpaceIsUnicodeWhiteSpace) {
  EXPECT_THAT(Find(R"(\s)", "\u0085"), ElementsAre(Pair(0, 2)));
  EXPECT_THAT(Find(R"(\s)", "\u3000"), ElementsAre(Pair(0, 3)));
  EXPECT_THAT(Find(R"(\s)", "\u180E"), IsEmpty());  // PCRE2's own \s takes it
  EXPECT_THAT(Find(R"([^\s])", "\u3000"), IsEmpty());
  EXPECT_THAT(Find(R"(\s+(?!\S))", "  a"), ElementsAre(Pair(0, 1)));
}

TEST(RegexTest, VerticalTabIsOneCharacter) {
  EXPECT_THAT(Find(R"(\v)", "\n\x0b"), ElementsAre(Pair(1, 2)));
}

TEST(RegexTest, IgnoringCaseFoldsTheLongS) {
  EXPECT_THAT(Find("(?i:'s)", "'\u017F"), ElementsAre(Pair(0, 3)));
}

TEST(RegexTest, EmptyMatchesDoNotRepeatAfterAMatch) {
  EXPECT_THAT(Find("a*", "ba"), ElementsAre(Pair(0, 0), Pair(1, 2)));
}

TEST(RegexTest, LiteralTextIsNotAPattern) {
  auto regex = Regex::Literal("a.b\n");
  ASSERT_OK(regex);
  EXPECT_THAT(regex->FindAll("axb\na.b\n"), ElementsAre(Pair(4, 8)));
}

class RefusedPatternTest : public ::testing::TestWithParam<const char*> {};

TEST_P(RefusedPatternTest, IsNamed) {
  EXPECT_THAT(Regex::Compile(GetParam()),
              StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr(GetParam())));
}

INSTANTIATE_TEST_SUITE_P(Patterns, RefusedPatternTest,
                         ::testing::Values(R"(\h)", R"(\R)", R"(\Z)", R"(\G)", R"(\1)",
                                           "[[:alpha:]]", "[a&&b]", R"([\S])", "(?m:.)",
                                           "(?<name>a)", "(?P<n>a)", "a{2}+", "(*VERB)", "[]a]",
                                           R"(\pL)", R"(\p{NoSuch})", "a\\", "(", "a**b(*)"));

TEST(RegexTest, RunawayPatternEndsWithoutAMatch) {
  EXPECT_THAT(Find("(a+)+$b", std::string(5000, 'a')), IsEmpty());
}

}  // namespace
}  // namespace plumbline
