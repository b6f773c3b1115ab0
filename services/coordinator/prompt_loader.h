// The prompts of a study: sets below the prompt root or sent along, with splits, exclusions and the
// seeded sample applied. A text that an earlier prompt has, of whatever set, is left out and
// counted in its set's repeated_texts: a refusal seen twice narrows the intervals and tells
// nothing new.
#pragma once

#include <string>

#include "absl/status/statusor.h"
#include "plumbline/v1/study.pb.h"
#include "services/store/records.h"

namespace plumbline {

// Thread safe; holds only the root's path.
class PromptLoader {
 public:
  explicit PromptLoader(std::string prompts_root) : root_(std::move(prompts_root)) {}

  // InvalidArgument names the field and the value: an unknown set (with those there are), a digest
  // that does not match, an unusable inline prompt, a prompt of several turns in a raw study, or
  // nothing left after the exclusions.
  absl::StatusOr<ExperimentPrompts> Load(const v1::Study& study) const;

 private:
  absl::Status LoadSet(const v1::PromptSetRef& ref, const std::string& field,
                       ExperimentPrompts* out) const;

  const std::string root_;
};

}  // namespace plumbline
