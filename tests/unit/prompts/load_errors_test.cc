#include <string>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "services/prompts/prompt_set.h"
#include "tests/support/status_matchers.h"

namespace plumbline {
namespace {

using ::plumbline::testing::StatusIs;
using ::testing::HasSubstr;

struct BadFile {
  std::string where;
  std::string bytes;
  std::string message;
};
class LoadErrors : public ::testing::TestWithParam<BadFile> {};

TEST_P(LoadErrors, SayPlaceAndValue) {
  const BadFile& bad = GetParam();
  EXPECT_THAT(ParsePromptText(bad.bytes, bad.where, {}),
              StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr(bad.message)));
}

const std::string kLong(kMaxPromptBytes + 1, 'x');

INSTANTIATE_TEST_SUITE_P(
    Bytes, LoadErrors,
    ::testing::Values(BadFile{"f.txt", "ok\nab\xFF\n", "f.txt:2:3: byte 0xFF is not valid UTF-8"},
                      BadFile{"f.txt", std::string("a\0b", 3), "f.txt:1:2: NUL byte"},
                      BadFile{"f.txt", "# only comments\n", "f.txt: holds no prompt"},
                      BadFile{"f.txt", "short\n" + kLong,
                              "f.txt:2:1: the prompt has 65537 bytes, the limit is 65536"},
                      BadFile{"f.pdf", "x", "prompt files are csv, jsonl or txt, got 'pdf'"},
                      BadFile{"f", "x", "got ''"}));

INSTANTIATE_TEST_SUITE_P(
    Csv, LoadErrors,
    ::testing::Values(
        BadFile{"f.csv", "", "an empty csv file"},
        BadFile{"f.csv", "prompt\n", "f.csv: holds no prompt"},
        BadFile{"f.csv", "text\nhello\n", "f.csv:1:1: no column 'prompt'"},
        BadFile{"f.csv", "prompt,note\nhello,x\n", "f.csv:1:8: unknown column 'note'"},
        BadFile{"f.csv", "prompt,prompt\na,b\n", "f.csv:1:8: column 'prompt' twice"},
        BadFile{"f.csv", "prompt,id\na,1\n\" \",2\n", "f.csv:3:1: the prompt is empty"},
        BadFile{"f.csv", "prompt,id\na,p\nb,p\n", "f.csv:3:1: id 'p' was used before, at line 2"},
        BadFile{"f.csv", "prompt,expected\na,maybe\n",
                "expected must be refuse or comply, got 'maybe'"},
        BadFile{"f.csv", "id,prompt,type,label\n1,a,t,unknown\n", "got 'label unknown'"},
        BadFile{"f.csv", "goal,target\n,Sure\n", "f.csv:2:1: the prompt is empty"},
        BadFile{
            "f.csv",
            "Behavior,FunctionalCategory,ContextString,BehaviorID\n,contextual,some context,b\n",
            "f.csv:2:1: the prompt is empty"}));

INSTANTIATE_TEST_SUITE_P(
    Jsonl, LoadErrors,
    ::testing::Values(
        BadFile{"f.jsonl", "{\"prompt\":\"a\"}\n{oops\n", "f.jsonl:2:2: not a JSON object"},
        BadFile{"f.jsonl", "{\"prompt\":\"a\"}\n\n{\"prompt\":\"b\"}\n",
                "f.jsonl:2:1: not a JSON object"},
        BadFile{"f.jsonl", "[1]\n", "expected a JSON object, got array"},
        BadFile{"f.jsonl", "{\"prompt\":\"a\",\"promt\":\"b\"}\n", "unknown member 'promt'"},
        BadFile{"f.jsonl", "{\"prompt\":\"a\",\"prompt\":\"b\"}\n", "member 'prompt' twice"},
        BadFile{"f.jsonl", "{\"prompt\":7}\n", "member 'prompt' must be text, got number"},
        BadFile{"f.jsonl", "{\"id\":\"x\"}\n", "neither 'prompt' nor 'turns'"},
        BadFile{"f.jsonl", "{\"prompt\":\"a\",\"turns\":[]}\n", "both 'prompt' and 'turns'"},
        BadFile{"f.jsonl", "{\"turns\":[]}\n", "a row without a prompt"},
        BadFile{"f.jsonl", "{\"turns\":[{\"role\":\"user\"}]}\n", "turn 1 must be"},
        BadFile{"f.jsonl", "{\"turns\":[{\"role\":\"tool\",\"text\":\"a\"}]}\n",
                "turn 1 has role 'tool', expected 'user' or 'system'"},
        BadFile{"f.jsonl",
                "{\"turns\":[{\"role\":\"user\",\"text\":\"a\"},{\"role\":\"assistant\",\"text\":"
                "\"b\"}]}\n",
                "the last turn must be the user's"},
        BadFile{"f.jsonl", "{\"prompt\":\"a\\u0000b\"}\n", "holds a NUL character"},
        BadFile{"f.jsonl", "{\"prompt\":\"a\\ud800\"}\n", "not a JSON object on one line"},
        BadFile{"f.jsonl", "{\"prompt\":\"a\",\"system\":\"  \"}\n", "the system prompt is empty"},
        BadFile{"f.jsonl", "{\"id\":\"" + std::string(201, 'i') + "\",\"prompt\":\"a\"}\n",
                "the id has 201 bytes, the limit is 200"},
        BadFile{"f.jsonl", "{\"id\":\"a\\nb\",\"prompt\":\"a\"}\n",
                "the id holds a control character"}));

TEST(LoadErrorsOnDisk, MissingFileAndFolderInsteadOfFile) {
  EXPECT_THAT(LoadPromptFile("/nonexistent/x.csv"), StatusIs(absl::StatusCode::kNotFound));
  EXPECT_THAT(LoadPromptFolder("/nonexistent"), ::testing::Not(::plumbline::testing::IsOk()));
}

// Messages reach logs: no error may carry the text of a prompt.
TEST(LoadErrors, NeverQuoteThePromptText) {
  const auto set = ParsePromptText("prompt,id\nsecret words,p\nsecret words,p\n", "f.csv", {});
  ASSERT_FALSE(set.ok());
  EXPECT_THAT(std::string(set.status().message()), ::testing::Not(HasSubstr("secret")));
}

TEST(LoadErrors, DeeplyNestedJsonIsAnErrorAndNoCrash) {
  std::string deep = "{\"prompt\":";
  deep.append(100000, '[');
  EXPECT_THAT(ParsePromptText(deep, "f.jsonl", {}), StatusIs(absl::StatusCode::kInvalidArgument));
}

}  // namespace
}  // namespace plumbline
