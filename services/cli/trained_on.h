// The prompts that a model was trained on, as its bundle lists them: no study of ours measures on
// them unless asked to.
#pragma once

#include <string>
#include <vector>

#include "absl/container/flat_hash_set.h"
#include "absl/status/statusor.h"

namespace plumbline {

using TextHashes = absl::flat_hash_set<std::string>;

// `model` as --model gives it. Empty: the bundle has no list, or `model` is a name, whose list the
// coordinator asks for where there is one. DataLoss: the list is not the one that the manifest
// names.
absl::StatusOr<TextHashes> ReadTrainedOn(const std::string& model);

// What the user is told: how many of the prompts with these text hashes (services/prompts:
// TextHash) are left out, or take part with `include`. Empty where there is nothing to tell.
std::string TrainedOnNote(const TextHashes& trained_on, bool include,
                          const std::vector<std::string>& prompt_hashes);

}  // namespace plumbline
