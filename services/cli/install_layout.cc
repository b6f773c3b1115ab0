#include "services/cli/install_layout.h"

#include <unistd.h>

#include <cstdlib>
#include <filesystem>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "services/common/files.h"

namespace plumbline {
namespace {

std::filesystem::path BinaryFolder() {
  std::error_code error;
  return std::filesystem::read_symlink("/proc/self/exe", error).parent_path();
}

std::vector<std::string> SharedFolders() {
  std::vector<std::string> folders;
  if (const char* configured = std::getenv("PLUMB_SHARE")) folders.push_back(configured);
  const std::filesystem::path bin = BinaryFolder();
  folders.push_back((bin.parent_path() / "share" / "plumbline").string());
  folders.push_back(bin.parent_path().parent_path().string());
  return folders;
}

}  // namespace

absl::StatusOr<std::string> FindBinary(const std::string& name) {
  const std::string path = (BinaryFolder() / name).string();
  if (access(path.c_str(), X_OK) == 0) return path;
  return absl::NotFoundError(
      absl::StrCat("no ", path, ": the services' binaries belong beside plumb"));
}

absl::StatusOr<std::string> FindShared(const std::string& relative) {
  const std::vector<std::string> folders = SharedFolders();
  for (const std::string& folder : folders) {
    const std::string path = JoinPath(folder, relative);
    if (access(path.c_str(), R_OK) == 0) return path;
  }
  return absl::NotFoundError(absl::StrCat("no ", relative, " in ", absl::StrJoin(folders, ", "),
                                          ": set PLUMB_SHARE to the folder that holds it"));
}

std::string FindPython() {
  if (const char* configured = std::getenv("PLUMB_PYTHON")) return configured;
  for (const std::string& folder : SharedFolders()) {
    const std::string python = JoinPath(folder, ".venv/bin/python");
    if (access(python.c_str(), X_OK) == 0) return python;
  }
  return "/usr/bin/python3";
}

}  // namespace plumbline
