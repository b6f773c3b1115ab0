// The judge that a study names, among those that the judge service has.
#pragma once

#include <string>

#include "absl/status/statusor.h"
#include "plumbline/v1/judge.pb.h"
#include "services/coordinator/judge_client.h"

namespace plumbline {

// InvalidArgument: there is none of this name, or it needs a judge model; the message lists the
// judges there are. Unavailable: the judge service is away.
absl::StatusOr<v1::JudgeCard> FindJudge(JudgeClient& client, const std::string& judge);

}  // namespace plumbline
