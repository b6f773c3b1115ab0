// Judges that ask a model. The judge service only writes the question and reads the answer; the
// coordinator runs the question as an ordinary cell of the judge model.
//
// Both templates follow the form of the judge they are named after (what is asked, which lines come
// back); the wording is this project's own, and `version` says so. Agreement is in the judge's
// card.
#pragma once

#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "services/judge/keyword_judge.h"

namespace plumbline {

struct JudgeTurn {
  enum class Speaker { kSystem, kUser, kAssistant };
  Speaker speaker = Speaker::kUser;
  std::string text;
};

struct JudgePrompt {
  std::string text;  // one user turn
  bool raw = false;  // the template carries the model's own turn marks: no chat format on top
  int max_new_tokens = 0;
};

class ModelJudge {
 public:
  virtual ~ModelJudge() = default;
  virtual std::string name() const = 0;     // "wildguard"
  virtual std::string version() const = 0;  // "1"
  virtual std::string model() const = 0;    // the model's name as a worker advertises it
  virtual std::string description() const = 0;
  // InvalidArgument without a user turn.
  virtual absl::StatusOr<JudgePrompt> Plan(const std::vector<JudgeTurn>& turns,
                                           absl::string_view answer) const = 0;
  // Anything but a clear answer is judge_failed. Never fails otherwise.
  virtual Judgement Parse(absl::string_view judge_answer) const = 0;
};

// "wildguard", "llamaguard". Owned by the process.
const std::vector<const ModelJudge*>& ModelJudges();
// Null when there is none of that name.
const ModelJudge* FindModelJudge(absl::string_view name);

}  // namespace plumbline
