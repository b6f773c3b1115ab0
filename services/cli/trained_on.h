// The prompts that a model was trained on, as its bundle lists them: no study of ours measures on
// them unless asked to.
#pragma once

#include <string>
#include <vector>

#include "absl/container/flat_hash_set.h"
#include "absl/status/statusor.h"

namespace plumbline {

struct TrainedOn {
  bool is_bundle = false;  // false: a model's name, whose list lies with the bundle alone
  absl::flat_hash_set<std::string> text_hashes;  // empty: the bundle has no list
};

// `model` as --model gives it. DataLoss: the list is not the one that the manifest names.
absl::StatusOr<TrainedOn> ReadTrainedOn(const std::string& model);

// What the user is told: how many of the prompts with these text hashes (services/prompts:
// TextHash) are left out, or take part with `include`. Empty where there is nothing to tell.
std::string TrainedOnNote(const TrainedOn& trained_on, bool include,
                          const std::vector<std::string>& prompt_hashes);

}  // namespace plumbline
