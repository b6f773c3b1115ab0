#include "services/coordinator/judge_pump.h"

#include <algorithm>
#include <set>
#include <utility>

#include "absl/strings/str_cat.h"
#include "services/cells/cells.h"
#include "services/common/status_macros.h"

namespace plumbline {
namespace {

NewVerdict OwnVerdict(const UnjudgedCell& cell, const std::string& judge,
                      const std::string& version, v1::VerdictLabel label,
                      const std::string& evidence) {
  NewVerdict out;
  out.cell_key = cell.cell_key;
  out.verdict_key = absl::StrCat("cell:", cell.cell_key);  // never reused for another cell
  out.verdict.set_label(label);
  out.verdict.set_judge(judge);
  out.verdict.set_judge_version(version);
  out.verdict.set_evidence(evidence);
  return out;
}

v1::JudgeRequest RequestFor(const UnjudgedCell& cell, const std::string& judge) {
  v1::JudgeRequest request;
  request.set_key(cell.cell_key);
  request.set_judge(judge);
  request.mutable_turns()->Assign(cell.turns.begin(), cell.turns.end());
  request.set_text(cell.result.text());
  *request.mutable_token_ids() = cell.result.token_ids();
  request.set_finish_reason(cell.result.finish_reason());
  return request;
}

}  // namespace

absl::Status JudgePump::health() const {
  std::lock_guard<std::mutex> lock(mutex_);
  return health_;
}

void JudgePump::SetHealth(const absl::Status& status) {
  std::lock_guard<std::mutex> lock(mutex_);
  health_ = status;
}

absl::StatusOr<int> JudgePump::Step() {
  if (clock_->Now() < not_before_) return 0;
  PLUMB_ASSIGN_OR_RETURN(const std::vector<ExperimentRecord> experiments,
                         store_->ActiveExperiments());
  std::set<std::pair<std::string, std::string>> judges;
  for (const ExperimentRecord& experiment : experiments) {
    if (experiment.bound) judges.insert({experiment.study.judge(), experiment.judge_version});
  }
  int judged = 0;
  for (const auto& [judge, version] : judges) {
    PLUMB_ASSIGN_OR_RETURN(const int count, JudgeBatch(judge, version));
    judged += count;
  }
  if (judged > 0) changed_->Notify();
  return judged;
}

absl::StatusOr<int> JudgePump::JudgeBatch(const std::string& judge, const std::string& version) {
  PLUMB_ASSIGN_OR_RETURN(const std::vector<UnjudgedCell> cells,
                         store_->UnjudgedCells(judge, version, options_.batch));
  std::vector<NewVerdict> verdicts;
  std::vector<UnjudgedCell> to_ask;
  for (const UnjudgedCell& cell : cells) {
    if (cell.result.finish_reason() == v1::FINISH_REASON_NONFINITE) {
      verdicts.push_back(OwnVerdict(cell, judge, version, v1::VERDICT_LABEL_NONFINITE,
                                    "NaN or infinity in the logits"));
      continue;
    }
    if (cell.text_purged) {
      verdicts.push_back(OwnVerdict(cell, judge, version, v1::VERDICT_LABEL_JUDGE_FAILED,
                                    "the answer's text was purged before this judge saw it"));
      continue;
    }
    const std::string key = VerdictKey(cell.result, judge, version);
    if (auto known = store_->FindVerdict(key); known.ok()) {
      verdicts.push_back({cell.cell_key, key, *std::move(known)});
    } else {
      to_ask.push_back(cell);
    }
  }
  const absl::Status asked = AskJudge(judge, version, to_ask, &verdicts);
  if (!to_ask.empty()) {
    SetHealth(asked);
    backoff_ = asked.ok()
                   ? absl::ZeroDuration()
                   : std::clamp(backoff_ * 2, options_.first_backoff, options_.longest_backoff);
    not_before_ = asked.ok() ? absl::InfinitePast() : clock_->Now() + backoff_;
    if (!asked.ok()) changed_->Notify();
  }
  if (verdicts.empty()) return 0;
  PLUMB_RETURN_IF_ERROR(store_->PutVerdicts(verdicts, options_.verdicts_only));
  return static_cast<int>(verdicts.size());
}

absl::Status JudgePump::AskJudge(const std::string& judge, const std::string& version,
                                 const std::vector<UnjudgedCell>& cells,
                                 std::vector<NewVerdict>* verdicts) {
  if (cells.empty()) return absl::OkStatus();
  std::vector<v1::JudgeRequest> requests;
  requests.reserve(cells.size());
  for (const UnjudgedCell& cell : cells) requests.push_back(RequestFor(cell, judge));
  PLUMB_ASSIGN_OR_RETURN(const std::vector<v1::Verdict> answers, judge_->Judge(requests));
  for (size_t i = 0; i < answers.size(); ++i) {
    const v1::Verdict& verdict = answers[i];
    if (verdict.judge() != judge || verdict.judge_version() != version) {
      return absl::FailedPreconditionError(
          absl::StrCat("the judge answers as ", verdict.judge(), " ", verdict.judge_version(),
                       ", the study was started with ", judge, " ", version,
                       ": start that version again, or create the study anew"));
    }
    verdicts->push_back({cells[i].cell_key, VerdictKey(cells[i].result, judge, version), verdict});
  }
  return absl::OkStatus();
}

}  // namespace plumbline
