// Whole-file reads and writes with clear errors. Every write is atomic: the bytes go to a
// temporary file in the same folder, are synced, and are renamed over the target, so a full disk
// or a kill leaves the old file (or none), never half a file.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"

namespace plumbline {

// NotFound, PermissionDenied, ResourceExhausted (larger than max_bytes; 0 = no limit).
absl::StatusOr<std::string> ReadFile(const std::string& path, int64_t max_bytes = 0);

// mode: permission bits of the new file; 0600 for anything that holds prompts or answers.
// ResourceExhausted when the disk is full.
absl::Status WriteFileAtomically(const std::string& path, absl::string_view bytes, int mode = 0644);

absl::Status MakeDirectories(const std::string& path, int mode = 0755);

bool FileExists(const std::string& path);
bool DirectoryExists(const std::string& path);

// Names (not paths) of the entries of a folder, sorted; no "." and "..".
absl::StatusOr<std::vector<std::string>> ListDirectory(const std::string& path);

std::string JoinPath(absl::string_view folder, absl::string_view name);
// From the root, without "." and ".."; links stay.
std::string AbsolutePath(const std::string& path);

// OK if `path`, with symbolic links and ".." resolved, lies in `root` or is it; else
// PermissionDenied that names both.
absl::Status CheckBelowRoot(const std::string& path, const std::string& root);

}  // namespace plumbline
