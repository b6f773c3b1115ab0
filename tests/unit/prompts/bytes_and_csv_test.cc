#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "services/prompts/bytes_check.h"
#include "services/prompts/csv_reader.h"
#include "tests/support/status_matchers.h"

namespace plumbline::prompts_internal {
namespace {

using ::plumbline::testing::StatusIs;
using ::testing::HasSubstr;

// The examples and limits of the Unicode standard, table 3-7.
TEST(Utf8, AcceptsEveryLengthAndItsLimits) {
  for (const char* good :
       {"", "a", "\xC2\x80", "\xDF\xBF", "\xE0\xA0\x80", "\xED\x9F\xBF", "\xEE\x80\x80",
        "\xEF\xBF\xBF", "\xF0\x90\x80\x80", "\xF4\x8F\xBF\xBF"}) {
    EXPECT_EQ(FirstInvalidUtf8(good), absl::string_view::npos) << good;
  }
}

TEST(Utf8, RefusesOverlongSurrogateTruncatedAndTooLarge) {
  for (const char* bad : {"\x80", "\xC0\xAF", "\xC1\xBF", "\xE0\x9F\xBF", "\xED\xA0\x80",
                          "\xED\xBF\xBF", "\xF0\x8F\xBF\xBF", "\xF4\x90\x80\x80",
                          "\xF5\x80\x80\x80", "\xFF", "\xE2\x82", "\xF0\x9F\x98"}) {
    EXPECT_EQ(FirstInvalidUtf8(bad), 0u) << ::testing::PrintToString(std::string(bad));
  }
  EXPECT_EQ(FirstInvalidUtf8("ab\xE2\x82z"), 2u);
}

std::vector<std::vector<std::string>> Texts(absl::string_view bytes) {
  const auto records = ReadCsv(bytes, "f.csv");
  EXPECT_OK(records);
  std::vector<std::vector<std::string>> texts;
  for (const CsvRecord& record : *records) {
    texts.emplace_back();
    for (const CsvField& field : record) texts.back().push_back(field.text);
  }
  return texts;
}

TEST(Csv, QuotesDoubledQuotesNewlinesAndBothLineEnds) {
  EXPECT_EQ(Texts("a,b\r\n\"x,1\",\"say \"\"hi\"\"\"\n\"two\r\nlines\",\n"),
            (std::vector<std::vector<std::string>>{
                {"a", "b"}, {"x,1", "say \"hi\""}, {"two\r\nlines", ""}}));
  EXPECT_EQ(Texts("a"), (std::vector<std::vector<std::string>>{{"a"}}));
  EXPECT_EQ(Texts(""), (std::vector<std::vector<std::string>>{}));
  EXPECT_EQ(Texts("a\n\"\"\n"), (std::vector<std::vector<std::string>>{{"a"}, {""}}));
}

TEST(Csv, FieldsKnowTheirPlaceAfterQuotedNewlines) {
  ASSERT_OK_AND_ASSIGN(const auto records, ReadCsv("h,i\n\"1\n2\",x\ny,z\n", "f.csv"));
  EXPECT_EQ(records[1][1].location.line, 3);
  EXPECT_EQ(records[1][1].location.column, 4);
  EXPECT_EQ(records[2][0].location.line, 4);
}

struct BadCsv {
  const char* bytes;
  const char* message;
};
class CsvErrors : public ::testing::TestWithParam<BadCsv> {};
TEST_P(CsvErrors, NameThePlace) {
  EXPECT_THAT(ReadCsv(GetParam().bytes, "f.csv"),
              StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr(GetParam().message)));
}
INSTANTIATE_TEST_SUITE_P(
    All, CsvErrors,
    ::testing::Values(BadCsv{"a\nb\"c\n", "f.csv:2:2: quote inside an unquoted field"},
                      BadCsv{"a\n\"b\"c\n", "f.csv:2:4: text after the closing quote"},
                      BadCsv{"a\n\n\"never\n ends", "f.csv:2:1: empty line"},
                      BadCsv{"a\n\"never\n ends", "f.csv:2:1: this quoted field never ends"},
                      BadCsv{"a,b\n1,2\n3\n", "f.csv:3:1: this row has 1 fields, the header has 2"},
                      BadCsv{"a\nb\rc\n", "f.csv:2:2: carriage return without line feed"}));

}  // namespace
}  // namespace plumbline::prompts_internal
