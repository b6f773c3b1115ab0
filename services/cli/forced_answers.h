// Answers that `plumb generate --force` feeds instead of the model's own.
#pragma once

#include <cstdint>
#include <map>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "services/prompts/prompt_set.h"

namespace plumbline {

using ForcedAnswers = std::map<std::string, std::vector<int32_t>>;  // prompt id -> token ids

// A file of {"id": ..., "token_ids": [...]} a line; none where `path` is empty. InvalidArgument
// names the line.
absl::StatusOr<ForcedAnswers> ReadForced(const std::string& path);

// Every prompt has one answer to feed, and every answer a prompt: a free answer among forced ones
// would pass for one of them.
absl::Status CheckForced(const ForcedAnswers& forced, const PromptSet& set,
                         const std::string& path);

}  // namespace plumbline
