// What a user names with --prompts -> what a study carries.
#pragma once

#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "plumbline/v1/cell.pb.h"
#include "plumbline/v1/study.pb.h"
#include "services/prompts/prompt_set.h"

namespace plumbline {

inline constexpr char kBuiltinPrompts[] = "plumbline-builtin";

v1::Prompt PromptToProto(const Prompt& prompt);

// Folders in which names are looked up: the data folder's own prompts, then the built-in ones.
std::vector<std::string> PromptRoots(const std::string& data_dir);

struct ResolvedPrompts {
  std::vector<v1::PromptSetRef> sets;
  std::vector<std::string> text_hashes;  // of every prompt that is sent along
};

// A file, a folder, or the name of a set in PromptRoots is read here and sent along; with a remote
// coordinator a name that is not found here is left for its prompt root.
absl::StatusOr<ResolvedPrompts> ResolvePrompts(const std::vector<std::string>& names_or_paths,
                                               const std::string& data_dir, bool remote);

}  // namespace plumbline
