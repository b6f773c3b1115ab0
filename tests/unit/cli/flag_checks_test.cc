#include "services/cli/flag_checks.h"

#include <map>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "services/cli/commands.h"
#include "services/cli/study_flags.h"
#include "tests/support/status_matchers.h"

namespace plumbline {
namespace {

using ::testing::AllOf;
using ::testing::HasSubstr;
using testing::StatusIs;

TEST(FlipRateCheckTest, WantsARateAboveZeroAndBelowOne) {
  const CLI::Validator check = FlipRateCheck();
  for (const char* rate : {"0.05", "0.001", "0.999"}) EXPECT_EQ(check(rate), "") << rate;
  for (const char* rate : {"0", "0.0", "1", "-0.1", "2", "nan", "five"}) {
    EXPECT_THAT(check(rate), HasSubstr(rate));
  }
}

// On the wire 0 stands for a flag that was not given: it would become 5%.
TEST(FlipRateCheckTest, StudiesAndGateRefuseALimitOfZero) {
  int exit_code = 0;
  CLI::App study;
  StudyFlags flags;
  flags.RegisterFlipLimit(&study, "limit");
  study.parse("--flip-limit 0.01");
  EXPECT_EQ(flags.flip_limit, 0.01);
  CLI::App studies;
  AddStudyCommands(studies, &exit_code);
  for (const char* kind :
       {"sweep", "diagnose", "mitigate --kv p", "canary --kv p", "custom --kv p"}) {
    EXPECT_THROW(studies.parse(absl::StrCat(kind, " --model m --flip-limit 0")),
                 CLI::ValidationError)
        << kind;
  }

  CLI::App gate;
  AddReportCommands(gate, &exit_code);
  EXPECT_THROW(gate.parse("gate exp-1 --max-flip-rate 0"), CLI::ValidationError);
}

// The limit of the study holds where none is given: the flag has no value of its own.
TEST(FlipRateCheckTest, TheGatesFlagHasNoDefault) {
  CLI::App app;
  int exit_code = 0;
  AddReportCommands(app, &exit_code);
  EXPECT_EQ(app.get_subcommand("gate")->get_option("--max-flip-rate")->get_default_str(), "");
}

TEST(CheckSamplingTest, ANucleusWithoutATemperatureDoesNothing) {
  EXPECT_OK(CheckSampling(0, 0));
  EXPECT_OK(CheckSampling(0.7, 0));
  EXPECT_OK(CheckSampling(0.7, 0.9));
  EXPECT_THAT(CheckSampling(0, 0.9), StatusIs(absl::StatusCode::kInvalidArgument,
                                              AllOf(HasSubstr("0.9"), HasSubstr("--temperature"))));
}

// A flag that a kind of study does not heed is none of its flags, so that --help lists what works.
TEST(StudyFlagsTest, EachKindTakesTheFlagsThatItHeeds) {
  CLI::App app;
  int exit_code = 0;
  AddStudyCommands(app, &exit_code);
  const std::vector<std::string> flags = {"--target", "--flip-limit", "--jitter-replicas",
                                          "--utility-text"};
  const std::map<std::string, std::vector<std::string>> heeded = {
      {"diagnose", flags},
      {"mitigate", flags},
      {"sweep", {"--target", "--flip-limit", "--jitter-replicas"}},
      {"canary", {"--flip-limit", "--jitter-replicas"}},
      {"custom", {"--target", "--flip-limit"}}};
  for (const auto& [kind, expected] : heeded) {
    std::vector<std::string> taken;
    for (const std::string& flag : flags) {
      if (app.get_subcommand(kind)->get_option_no_throw(flag) != nullptr) taken.push_back(flag);
    }
    EXPECT_EQ(taken, expected) << kind;
  }
}

TEST(StudyFlagsTest, ADetachedStudyHasNoReportToPutAnywhere) {
  StudyFlags flags;
  flags.model = "m";
  flags.session.coordinator = "here:7070";
  flags.detach = true;
  flags.out = "reports/mine";
  EXPECT_THAT(flags.Build(), StatusIs(absl::StatusCode::kInvalidArgument,
                                      AllOf(HasSubstr("reports/mine"), HasSubstr("--detach"))));
}

}  // namespace
}  // namespace plumbline
