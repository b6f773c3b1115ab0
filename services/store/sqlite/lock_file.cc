#include "services/store/sqlite/lock_file.h"

#include <fcntl.h>
#include <sys/file.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>

#include "absl/strings/ascii.h"
#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "services/common/logging.h"

namespace plumbline {
namespace {

constexpr absl::Duration kPoll = absl::Milliseconds(20);

std::string Holder(int fd) {
  char pid[32] = {};
  if (pread(fd, pid, sizeof(pid) - 1, 0) < 0) pid[0] = '\0';
  return std::string(absl::StripAsciiWhitespace(pid));
}

bool Lock(int fd, const std::string& path, absl::Duration patience) {
  const absl::Time until = absl::Now() + patience;
  bool told = false;
  while (flock(fd, LOCK_EX | LOCK_NB) != 0) {
    if (absl::Now() >= until) return false;
    if (!told) {
      spdlog::info("{} is held by pid {}; waiting up to {}", path, Holder(fd),
                   absl::FormatDuration(patience));
    }
    told = true;
    absl::SleepFor(kPoll);
  }
  return true;
}

}  // namespace

absl::StatusOr<std::unique_ptr<LockFile>> LockFile::Acquire(const std::string& path,
                                                            absl::Duration patience) {
  const int fd = open(path.c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0600);
  if (fd < 0) {
    return absl::PermissionDeniedError(
        absl::StrCat("cannot open the lock file ", path, ": ", strerror(errno)));
  }
  if (!Lock(fd, path, patience)) {
    const std::string holder = Holder(fd);
    close(fd);
    return absl::FailedPreconditionError(
        absl::StrCat("another coordinator (pid ", holder, ") holds ", path,
                     ": SQLite allows one; stop it, or give this one its own store.sqlite_file"));
  }
  const std::string pid = absl::StrCat(getpid(), "\n");
  if (ftruncate(fd, 0) != 0 || pwrite(fd, pid.data(), pid.size(), 0) < 0) {
    // The pid only serves the other coordinator's message; the lock itself holds.
  }
  return std::unique_ptr<LockFile>(new LockFile(fd));
}

LockFile::~LockFile() { close(fd_); }

}  // namespace plumbline
