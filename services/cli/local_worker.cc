#include "services/cli/local_worker.h"

#include <cstdlib>
#include <filesystem>
#include <optional>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "services/cli/install_layout.h"
#include "services/cli/port_file.h"
#include "services/common/files.h"
#include "services/common/status_macros.h"

namespace plumbline {
namespace {

constexpr absl::Duration kStartTimeout = absl::Seconds(300);

}  // namespace

absl::Status CheckIsBundle(const std::string& model, const std::string& instead_of_flag) {
  if (FileExists(JoinPath(model, "manifest.json"))) return absl::OkStatus();
  return absl::InvalidArgumentError(
      absl::StrCat("--model '", model, "' is no bundle folder: without ", instead_of_flag,
                   " it must be one (made by `plumb models import SOURCE --out DIR`)"));
}

absl::StatusOr<std::unique_ptr<LocalWorker>> LocalWorker::Start(const LocalWorkerOptions& options) {
  std::unique_ptr<LocalWorker> worker(new LocalWorker);
  std::string folder = (std::filesystem::temp_directory_path() / "plumb-worker-XXXXXX").string();
  if (mkdtemp(folder.data()) == nullptr) {
    return absl::UnavailableError(absl::StrCat("cannot make a folder like ", folder));
  }
  worker->folder_ = folder;
  PLUMB_ASSIGN_OR_RETURN(const std::string binary, FindBinary("plumb-worker"));
  const std::string ports = JoinPath(folder, "ports");
  const std::string log = JoinPath(folder, "log");
  const auto set = [](const std::string& assignment) {
    return std::vector<std::string>{"--set", assignment};
  };
  std::vector<std::string> argv = {binary};
  for (const std::string& assignment :
       {absl::StrCat("model_roots.0=", std::filesystem::absolute(options.model_dir).string()),
        absl::StrCat("server.port_file=", ports), std::string("server.listen=127.0.0.1:0"),
        absl::StrCat("dtype=", options.dtype.empty() ? "fp32" : options.dtype),
        absl::StrCat("device=", options.device.empty() ? "cpu" : options.device),
        absl::StrCat("threads=", options.threads),
        absl::StrCat("max_running=", options.max_running)}) {
    for (const std::string& word : set(assignment)) argv.push_back(word);
  }
  PLUMB_ASSIGN_OR_RETURN(worker->process_, ChildProcess::Start(argv, log));
  PLUMB_ASSIGN_OR_RETURN(const BoundPorts bound,
                         AwaitPortFile(ports, *worker->process_, "the worker", log, kStartTimeout));
  worker->address_ = absl::StrCat("127.0.0.1:", bound.grpc);
  return worker;
}

LocalWorker::~LocalWorker() {
  if (process_ != nullptr) process_->Stop(absl::Seconds(5));
  std::error_code error;
  if (!folder_.empty()) std::filesystem::remove_all(folder_, error);
}

}  // namespace plumbline
