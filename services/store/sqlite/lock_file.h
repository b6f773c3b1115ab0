// One coordinator a database file: an exclusive lock on FILE.lock, let go when the process ends.
#pragma once

#include <memory>
#include <string>

#include "absl/status/statusor.h"
#include "absl/time/time.h"

namespace plumbline {

class LockFile {
 public:
  // Waits up to `patience` for another process (or another LockFile of this one) to let go, and
  // says so in the log. FailedPrecondition when it holds on; the message names its pid.
  static absl::StatusOr<std::unique_ptr<LockFile>> Acquire(const std::string& path,
                                                           absl::Duration patience);
  ~LockFile();
  LockFile(const LockFile&) = delete;
  LockFile& operator=(const LockFile&) = delete;

 private:
  explicit LockFile(int fd) : fd_(fd) {}
  int fd_;
};

}  // namespace plumbline
