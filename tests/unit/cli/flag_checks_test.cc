#include "services/cli/flag_checks.h"

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "services/cli/commands.h"
#include "services/cli/study_flags.h"

namespace plumbline {
namespace {

using ::testing::HasSubstr;

TEST(FlipRateCheckTest, WantsARateAboveZeroAndBelowOne) {
  const CLI::Validator check = FlipRateCheck();
  for (const char* rate : {"0.05", "0.001", "0.999"}) EXPECT_EQ(check(rate), "") << rate;
  for (const char* rate : {"0", "0.0", "1", "-0.1", "2", "nan", "five"}) {
    EXPECT_THAT(check(rate), HasSubstr(rate));
  }
}

// On the wire 0 stands for a flag that was not given: it would become 5%.
TEST(FlipRateCheckTest, StudiesAndGateRefuseALimitOfZero) {
  CLI::App study;
  StudyFlags flags;
  flags.Register(&study);
  EXPECT_THROW(study.parse("--model m --flip-limit 0"), CLI::ValidationError);
  study.parse("--model m --flip-limit 0.01");
  EXPECT_EQ(flags.flip_limit, 0.01);

  CLI::App gate;
  int exit_code = 0;
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

}  // namespace
}  // namespace plumbline
