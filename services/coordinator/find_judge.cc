#include "services/coordinator/find_judge.h"

#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "services/common/status_macros.h"

namespace plumbline {

absl::StatusOr<v1::JudgeCard> FindJudge(JudgeClient& client, const std::string& judge) {
  PLUMB_ASSIGN_OR_RETURN(const std::vector<v1::JudgeCard> cards, client.ListJudges());
  std::string model;
  std::vector<std::string> usable;
  for (const v1::JudgeCard& card : cards) {
    if (card.judge() == judge && card.model().empty()) return card;
    if (card.judge() == judge) model = card.model();
    if (card.model().empty()) usable.push_back(card.judge());
  }
  const std::string those =
      absl::StrCat("; judges that a study can name: ", absl::StrJoin(usable, ", "));
  if (!model.empty()) {
    return absl::InvalidArgumentError(absl::StrCat("study.judge: '", judge,
                                                   "' needs the judge model '", model,
                                                   "', which studies cannot run", those));
  }
  return absl::InvalidArgumentError(
      absl::StrCat("study.judge: there is no judge '", judge, "'", those));
}

}  // namespace plumbline
