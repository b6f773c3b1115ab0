#include "services/rpc/real_main.h"

#include <signal.h>
#include <unistd.h>

#include <thread>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "services/common/files.h"
#include "tests/support/status_matchers.h"
#include "tests/unit/rpc/gated_service.h"

namespace plumbline {
namespace {

using ::testing::AllOf;
using ::testing::HasSubstr;

struct Ran {
  int exit_code = -1;
  bool called = false;
  std::string out;
  std::string err;
  v1::PcrConfig config;
};

Ran RunWith(std::vector<std::string> arguments, absl::Status status = absl::OkStatus()) {
  static int number = 0;  // spdlog wants a new name for each logger
  Ran ran;
  std::string name = absl::StrCat("plumb-test", ++number);
  std::vector<char*> argv = {name.data()};
  for (std::string& argument : arguments) argv.push_back(argument.data());
  ::testing::internal::CaptureStdout();
  ::testing::internal::CaptureStderr();
  ran.exit_code = RealMain(static_cast<int>(argv.size()), argv.data(),
                           {.name = name,
                            .service = "test",
                            .summary = "Tests.",
                            .examples = {"plumb-test --set server.listen=127.0.0.1:0"}},
                           &ran.config, [&](Process& process) {
                             ran.called = true;
                             EXPECT_EQ(process.config_digest.size(), 64u);
                             return status;
                           });
  ran.out = ::testing::internal::GetCapturedStdout();
  ran.err = ::testing::internal::GetCapturedStderr();
  return ran;
}

TEST(RealMain, HelpShowsFlagsAndExamples) {
  const Ran ran = RunWith({"--help"});
  EXPECT_EQ(ran.exit_code, 0);
  EXPECT_FALSE(ran.called);
  EXPECT_THAT(ran.out, AllOf(HasSubstr("--config"), HasSubstr("--print-config"),
                             HasSubstr("plumb-test --set server.listen=127.0.0.1:0")));
}

TEST(RealMain, PrintConfigResolvesFileThenOverrides) {
  const std::string path = absl::StrCat(::testing::TempDir(), "/pcr", getpid(), ".json");
  ASSERT_OK(
      WriteFileAtomically(path, R"({"server": {"listen": "127.0.0.1:1", "drainSeconds": 3}})"));
  const Ran ran = RunWith({"--config", path, "--set", "server.listen=127.0.0.1:2", "--set",
                           "server.insecure=true", "--print-config"});
  EXPECT_EQ(ran.exit_code, 0);
  EXPECT_FALSE(ran.called);
  EXPECT_THAT(ran.out, AllOf(HasSubstr("listen: \"127.0.0.1:2\""), HasSubstr("drain_seconds: 3"),
                             HasSubstr("insecure: true"), HasSubstr("# digest ")));
  unlink(path.c_str());
}

TEST(RealMain, MistakesOfTheUserExitWith2AndAreNamed) {
  const std::pair<std::vector<std::string>, const char*> kBad[] = {
      {{"--nonsense"}, "nonsense"},
      {{"stray"}, "stray"},
      {{"--config", "/nonexistent.txtpb"}, "/nonexistent.txtpb"},
      {{"--set", "server.listn=a"}, "listn"},
      {{"--set", "server.listen"}, "path=value"},
  };
  for (const auto& [arguments, names] : kBad) {
    const Ran ran = RunWith(arguments);
    EXPECT_EQ(ran.exit_code, 2) << names;
    EXPECT_FALSE(ran.called);
    EXPECT_THAT(ran.err, HasSubstr(names));
  }
}

TEST(RealMain, ExitCodeTellsHowTheRunEnded) {
  EXPECT_EQ(RunWith({}).exit_code, 0);
  EXPECT_EQ(RunWith({}, absl::InvalidArgumentError("x")).exit_code, 2);
  const Ran failed = RunWith({}, absl::UnavailableError("port taken"));
  EXPECT_EQ(failed.exit_code, 1);
  EXPECT_THAT(failed.err, HasSubstr("port taken"));
}

TEST(RealMain, SigtermDrainsAndEndsWith0) {
  v1::PcrConfig config;
  const std::string port_file = absl::StrCat(::testing::TempDir(), "/port", getpid());
  std::string name = "plumb-signalled", flag = "--set", value = "server.port_file=" + port_file;
  char* argv[] = {name.data(), flag.data(), value.data()};
  testing::GatedClassifier service(0);
  bool before_drain = false;
  int exit_code = -1;
  std::thread main_thread([&] {
    exit_code =
        RealMain(3, argv, {.name = name, .service = "test"}, &config, [&](Process& process) {
          return ServeUntilShutdown({.default_listen = "127.0.0.1:0",
                                     .config = config.server(),
                                     .services = {Hosted<v1::PcrClassifier>(&service)},
                                     .metrics = process.metrics},
                                    process, [&] { before_drain = true; });
        });
  });
  // The port file is the sign that it serves; nothing else tells another process.
  while (!FileExists(port_file)) std::this_thread::yield();
  raise(SIGTERM);
  main_thread.join();
  EXPECT_EQ(exit_code, 0);
  EXPECT_TRUE(before_drain);
  unlink(port_file.c_str());
}

TEST(ShutdownSignalTest, CountsSignalsAndRestoresTheFormerHandlers) {
  struct sigaction before, after;
  sigaction(SIGINT, nullptr, &before);
  {
    ShutdownSignal shutdown;
    EXPECT_FALSE(shutdown.requested());
    EXPECT_FALSE(shutdown.WaitFor(absl::Milliseconds(1)));
    raise(SIGINT);
    EXPECT_TRUE(shutdown.WaitFor(absl::Seconds(30)));
    shutdown.Request();
    EXPECT_EQ(shutdown.count(), 2);
    shutdown.Wait();
  }
  sigaction(SIGINT, nullptr, &after);
  EXPECT_EQ(before.sa_handler, after.sa_handler);
}

}  // namespace
}  // namespace plumbline
