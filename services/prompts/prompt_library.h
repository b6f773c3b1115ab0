// Prompt sets on disk under one root folder, and the public suite's check.
//
// Layout of a root (data/prompts in the project is one):
//   <name>.jsonl          canonical form, or
//   <name>/               a folder of files that make one set (the built-in set)
//   <name>.meta.json      {"name","digest","prompts","licence","source","imported_from",
//                          "imported_sha256","imported_format"}
//
//   PromptLibrary library("prompts");
//   PLUMB_ASSIGN_OR_RETURN(PromptSetInfo info, library.Import("mine.csv", {.name = "mine"}));
//   PLUMB_ASSIGN_OR_RETURN(PromptSet set, library.Open("mine"));   // digest checked
//
// Files are written 0600 and atomically; the .meta.json comes last, so a set without it is not
// listed. Thread-compatible: a library object holds only the path.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "services/prompts/prompt_set.h"

namespace plumbline {

struct PromptSetInfo {
  std::string name;
  std::string path;  // file or folder
  std::string digest;
  int64_t prompts = 0;
  std::string licence;          // SPDX id or free text; empty: not said
  std::string source;           // URL or words; empty: not said
  std::string imported_from;    // file name (no folder) it was imported from
  std::string imported_sha256;  // of that file
  std::string imported_format;  // LoadReport::format
};

struct ImportOptions {
  std::string name;  // empty: the file's name; [a-z0-9][a-z0-9._-]{0,63}
  std::string licence;
  std::string source;
  bool replace = false;  // false: AlreadyExists when the name is taken by other content
  LoadOptions load;      // set_name is ignored
};

class PromptLibrary {
 public:
  explicit PromptLibrary(std::string root);

  // Sorted by name. An empty list when the root does not exist. A broken .meta.json is an error
  // that names the file.
  absl::StatusOr<std::vector<PromptSetInfo>> List() const;

  // NotFound lists the names there are.
  absl::StatusOr<PromptSetInfo> Info(absl::string_view name) const;

  // Loads and checks the digest; DataLoss when the content is not what was imported.
  absl::StatusOr<PromptSet> Open(absl::string_view name) const;

  // Reads a file (or a folder) in any supported format and writes the canonical form. Importing the
  // same content again is OK and changes nothing.
  absl::StatusOr<PromptSetInfo> Import(const std::string& path, const ImportOptions& options) const;

  // Every set against its digest; the first failure, or OK.
  absl::Status Verify() const;

  const std::string& root() const { return root_; }

 private:
  std::string root_;
};

// What a user writes where a prompt set is asked for: the name of a set in one of `roots`, or a
// path to a file or folder (anything with '/' or a known extension). NotFound names what was tried.
absl::StatusOr<PromptSet> ResolvePromptSet(const std::string& name_or_path,
                                           const std::vector<std::string>& roots);

// Whether `name_or_path` can be a path alone: it has a '/' or ends in .csv, .jsonl or .txt.
bool IsPromptPath(absl::string_view name_or_path);

// OK for a usable set name, else InvalidArgument with the rule.
absl::Status CheckPromptSetName(absl::string_view name);

// ---- the public suite ---------------------------------------------------------------------------

// One file of the suite of arXiv 2606.09864 as fetch_public.py lays it out, with its pin.
struct PublicFile {
  const char* path;      // relative to the suite's folder
  const char* set_name;  // "advbench", "harmbench", "xstest", "ifeval", "custom-refusal", ...
  const char* sha256;
  int64_t rows;
  const char* licence;
  const char* source;
};
const std::vector<PublicFile>& PublicFiles();
inline constexpr int64_t kPublicSuitePrompts = 1894;

struct PublicSetReport {
  std::string set_name;
  std::string path;
  std::string sha256;
  std::string digest;
  int64_t rows = 0;
  SplitCounts splits;
  std::vector<std::pair<std::string, int64_t>> categories;  // sorted by name
  int64_t repeated_texts = 0;
};
struct PublicSuiteReport {
  std::vector<PublicSetReport> sets;
  int64_t total = 0;
  SplitCounts splits;
  std::vector<DuplicateGroup> duplicates;  // across and within sets
};

// Loads all files of the suite below `folder`, checks SHA-256 pins and row counts. NotFound names
// the missing file and the fetch script; DataLoss a digest or count that differs (both values).
absl::StatusOr<PublicSuiteReport> VerifyPublicSuite(const std::string& folder);

// The suite's sets, loaded (checked as above).
absl::StatusOr<std::vector<PromptSet>> LoadPublicSuite(const std::string& folder);

// Plain text table of a report: per set rows and splits, the total, repeated texts. Holds no
// prompt.
std::string FormatPublicSuiteReport(const PublicSuiteReport& report);

}  // namespace plumbline
