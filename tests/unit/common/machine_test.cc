#include "services/common/machine.h"

#include <fstream>
#include <string>

#include "absl/strings/str_cat.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "services/common/parallel.h"

namespace plumbline {
namespace {

using ::testing::HasSubstr;

TEST(MachineTest, NamesCoresMemoryAndWhatTheSystemTells) {
  const std::string machine = DescribeMachine();
  const int cores = AvailableCores();
  EXPECT_THAT(machine, HasSubstr(absl::StrCat(cores, cores == 1 ? " core," : " cores,")));
  EXPECT_THAT(machine, HasSubstr(" GiB"));
  std::ifstream release("/etc/os-release");
  for (std::string line; std::getline(release, line);) {
    if (line.rfind("PRETTY_NAME=\"", 0) != 0) continue;
    EXPECT_THAT(machine, HasSubstr(line.substr(13, line.size() - 14)));
  }
}

}  // namespace
}  // namespace plumbline
