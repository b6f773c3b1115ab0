#include "services/cli/child_process.h"

#include <fcntl.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <cstdlib>
#include <cstring>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "absl/time/clock.h"

namespace plumbline {
namespace {

constexpr absl::Duration kPoll = absl::Milliseconds(20);

// Where a name without a folder stands in PATH; the name itself where it stands nowhere.
std::string InPath(const std::string& name) {
  const char* path = std::getenv("PATH");
  if (path == nullptr || absl::StrContains(name, '/')) return name;
  for (const absl::string_view folder : absl::StrSplit(path, ':', absl::SkipEmpty())) {
    std::string full = absl::StrCat(folder, "/", name);
    if (access(full.c_str(), X_OK) == 0) return full;
  }
  return name;
}

// Between fork and exec only async-signal-safe calls are allowed.
[[noreturn]] void RunChild(const char* program, char* const* argv, int log_fd, pid_t parent,
                           int error_fd) {
  setpgid(0, 0);
  signal(SIGPIPE, SIG_DFL);  // plumb ignores it, and exec would hand that on
  prctl(PR_SET_PDEATHSIG, SIGTERM);
  if (getppid() != parent) _exit(1);  // the parent died before the line above
  if (log_fd >= 0) {
    dup2(log_fd, STDOUT_FILENO);
    dup2(log_fd, STDERR_FILENO);
  }
  execv(program, argv);
  const int error = errno;
  [[maybe_unused]] ssize_t written = write(error_fd, &error, sizeof(error));
  _exit(127);
}

}  // namespace

absl::StatusOr<std::unique_ptr<ChildProcess>> ChildProcess::Start(
    const std::vector<std::string>& argv, const std::string& log_path) {
  int log_fd = -1;
  if (!log_path.empty()) {
    log_fd = open(log_path.c_str(), O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600);
    if (log_fd < 0) {
      return absl::UnavailableError(
          absl::StrCat("cannot open log ", log_path, ": ", strerror(errno)));
    }
  }
  std::vector<char*> arguments;
  for (const std::string& argument : argv) arguments.push_back(const_cast<char*>(argument.c_str()));
  arguments.push_back(nullptr);
  int error_pipe[2];
  if (pipe2(error_pipe, O_CLOEXEC) != 0) {
    if (log_fd >= 0) close(log_fd);
    return absl::ResourceExhaustedError(absl::StrCat("cannot make a pipe: ", strerror(errno)));
  }
  const std::string program = InPath(argv[0]);
  const pid_t parent = getpid();
  const pid_t pid = fork();
  if (pid == 0) RunChild(program.c_str(), arguments.data(), log_fd, parent, error_pipe[1]);
  const int fork_error = errno;
  if (log_fd >= 0) close(log_fd);
  close(error_pipe[1]);
  int exec_error = 0;
  const ssize_t got = pid < 0 ? 0 : read(error_pipe[0], &exec_error, sizeof(exec_error));
  close(error_pipe[0]);
  if (pid < 0) {
    return absl::ResourceExhaustedError(absl::StrCat("cannot fork: ", strerror(fork_error)));
  }
  if (got == sizeof(exec_error)) {
    waitpid(pid, nullptr, 0);
    return absl::NotFoundError(absl::StrCat("cannot run ", argv[0], ": ", strerror(exec_error)));
  }
  return std::unique_ptr<ChildProcess>(new ChildProcess(pid));
}

ChildProcess::~ChildProcess() {
  if (Ended()) return;
  Signal(SIGKILL);
  waitpid(pid_, nullptr, 0);
}

std::optional<std::string> ChildProcess::Ended() {
  if (ended_) return ended_;
  int status = 0;
  if (waitpid(pid_, &status, WNOHANG) != pid_) return std::nullopt;
  if (WIFSIGNALED(status)) {
    ended_ = absl::StrCat("signal ", WTERMSIG(status), " (", strsignal(WTERMSIG(status)), ")");
    exit_code_ = 128 + WTERMSIG(status);
  } else {
    ended_ = absl::StrCat("exit code ", WEXITSTATUS(status));
    exit_code_ = WEXITSTATUS(status);
  }
  return ended_;
}

void ChildProcess::Signal(int signal_number) {
  if (!ended_) kill(pid_, signal_number);
}

void ChildProcess::Stop(absl::Duration patience) {
  if (Ended()) return;
  Signal(SIGTERM);
  const absl::Time until = absl::Now() + patience;
  while (!Ended() && absl::Now() < until) absl::SleepFor(kPoll);
  if (!Ended()) {
    Signal(SIGKILL);
    while (!Ended()) absl::SleepFor(kPoll);
  }
}

}  // namespace plumbline
