// One worker as a child process on loopback, for direct generation.
#pragma once

#include <memory>
#include <string>

#include "absl/status/statusor.h"
#include "services/cli/child_process.h"

namespace plumbline {

struct LocalWorkerOptions {
  std::string model_dir;
  std::string dtype, device;
  int threads = 0;
  int max_running = 0;
};

// InvalidArgument where `model` is no bundle folder, as it must be without the flag that names a
// running service instead.
absl::Status CheckIsBundle(const std::string& model, const std::string& instead_of_flag);

class LocalWorker {
 public:
  // Serving when it returns. Unavailable with the end of its log.
  static absl::StatusOr<std::unique_ptr<LocalWorker>> Start(const LocalWorkerOptions& options);
  ~LocalWorker();
  const std::string& address() const { return address_; }

 private:
  LocalWorker() = default;
  std::string folder_, address_;
  std::unique_ptr<ChildProcess> process_;
};

}  // namespace plumbline
