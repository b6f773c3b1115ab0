// A child process of `plumb`: own process group (Ctrl-C goes to plumb alone), ended by the kernel
// when plumb dies, output in a log file.
//
// Not thread safe.
#pragma once

#include <sys/types.h>

#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/time/time.h"

namespace plumbline {

class ChildProcess {
 public:
  // argv[0] without a folder is looked for in PATH. log_path: both streams are appended, mode 0600;
  // empty = inherit. NotFound when the program is not there or may not run.
  static absl::StatusOr<std::unique_ptr<ChildProcess>> Start(const std::vector<std::string>& argv,
                                                             const std::string& log_path);
  ~ChildProcess();  // SIGKILL if it still runs
  ChildProcess(const ChildProcess&) = delete;
  ChildProcess& operator=(const ChildProcess&) = delete;

  pid_t pid() const { return pid_; }
  // How it ended, or nothing while it runs: "exit code 2", "signal 9 (Killed)".
  std::optional<std::string> Ended();
  int exit_code() const { return exit_code_; }  // after Ended; 128 + signal where a signal ended it
  void Signal(int signal_number);
  // SIGTERM, then SIGKILL when `patience` is over.
  void Stop(absl::Duration patience);

 private:
  explicit ChildProcess(pid_t pid) : pid_(pid) {}
  pid_t pid_ = -1;
  std::optional<std::string> ended_;
  int exit_code_ = -1;
};

}  // namespace plumbline
