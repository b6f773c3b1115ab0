// One coordinator a database file: an exclusive lock on FILE.lock, let go when the process ends.
#pragma once

#include <memory>
#include <string>

#include "absl/status/statusor.h"

namespace plumbline {

class LockFile {
 public:
  // FailedPrecondition when another process (or another LockFile of this one) holds it; the message
  // names its pid.
  static absl::StatusOr<std::unique_ptr<LockFile>> Acquire(const std::string& path);
  ~LockFile();
  LockFile(const LockFile&) = delete;
  LockFile& operator=(const LockFile&) = delete;

 private:
  explicit LockFile(int fd) : fd_(fd) {}
  int fd_;
};

}  // namespace plumbline
