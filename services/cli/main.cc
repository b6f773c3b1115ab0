#include <signal.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstdio>
#include <cstring>

#include "CLI/CLI.hpp"
#include "services/cli/commands.h"
#include "services/common/logging.h"
#include "services/rpc/metrics.h"

namespace {

// The reader of a pipe may go away at any time; that is no failure of ours. Anything else that
// keeps output from where it was to go is one.
int FlushedExitCode(int exit_code) {
  errno = 0;
  const bool failed = fflush(stdout) != 0;
  const int error = errno;
  struct stat info = {};
  const bool pipe =
      fstat(STDOUT_FILENO, &info) == 0 && (S_ISFIFO(info.st_mode) || S_ISSOCK(info.st_mode));
  if ((!failed && !plumbline::OutputBroken()) || pipe) return exit_code;
  fprintf(stderr, "error: cannot write the output: %s\n",
          error != 0 ? strerror(error) : "is the disk full?");
  return exit_code == 0 ? 1 : exit_code;
}

}  // namespace

int main(int argc, char** argv) {
  // A write to a closed pipe fails instead of ending plumb on the spot: its services are stopped in
  // order, whoever reads.
  signal(SIGPIPE, SIG_IGN);
  CLI::App app{
      "Plumbline: does a KV-cache format break this model's refusals, why, and which "
      "mixed-precision\n"
      "plan repairs it.\n\n"
      "  plumb diagnose --model models/my-model --target int4.asym.token\n"
      "  plumb report ID --out report.html"};
  app.footer(
      "Exit codes: 0 done; 1 it failed, or a service does not answer; 2 what was asked for must be "
      "mended;\n"
      "130 left by Ctrl-C while the study stays. `plumb gate` has its own: 0 within the limit, 1 "
      "over it,\n"
      "3 undecided, 2 could not say, whatever the reason.");
  app.require_subcommand(1);
  app.set_version_flag("--version", std::string(plumbline::BuildVersion()));
  std::string log_level = "warn";
  app.add_option("--log-level", log_level, "trace, debug, info, warn, error or off")
      ->capture_default_str();
  int exit_code = 0;
  plumbline::AddStudyCommands(app, &exit_code);
  plumbline::AddExperimentCommands(app, &exit_code);
  plumbline::AddReportCommands(app, &exit_code);
  plumbline::AddModelCommands(app, &exit_code);
  plumbline::AddPromptCommands(app, &exit_code);
  plumbline::AddGenerateCommand(app, &exit_code);
  plumbline::AddUpCommand(app, &exit_code);
  app.parse_complete_callback([&] { plumbline::InitLogging("plumb", log_level); });
  try {
    app.parse(argc, argv);
  } catch (const CLI::ParseError& error) {
    if (argc > 1 && argv[1][0] != '-' && app.get_subcommands().empty()) {
      fprintf(stderr, "no command '%s'\n", argv[1]);
    }
    const int code = app.exit(error);
    return code == 0 ? 0 : 2;
  }
  return FlushedExitCode(exit_code);
}
