#include "services/coordinator/planner/selection.h"

#include <algorithm>
#include <set>
#include <utility>

#include "absl/strings/str_cat.h"
#include "services/common/digest.h"
#include "services/common/status_macros.h"
#include "services/coordinator/planner/counting.h"
#include "services/pcr/policy.h"

namespace plumbline {
namespace {

std::string OrderKey(const v1::Study& study, const v1::Prompt& prompt) {
  DigestBuilder builder("plumbline-prompt-order/1");
  builder.Add("seed", static_cast<int64_t>(study.seed()));
  for (const v1::ChatTurn& turn : prompt.turns()) builder.Add("turn", turn.text());
  builder.Add("set", prompt.prompt_set()).Add("id", prompt.id());
  return builder.Finish();
}

const char* SplitText(v1::Split split) {
  switch (split) {
    case v1::SPLIT_A:
      return "split A";
    case v1::SPLIT_B:
      return "split B";
    case v1::SPLIT_VALIDATION:
      return "split validation";
    case v1::SPLIT_TEST:
      return "split test";
    default:
      return "all";
  }
}

}  // namespace

uint64_t MinimumRefusals(const v1::Study& study) {
  const Policy policy = study.policy() == v1::POLICY_PAPER ? Policy::kPaper : Policy::kPlumbline;
  return static_cast<uint64_t>(RulesOf(policy).min_refusals);
}

PromptList AllPrompts(const StudyContext& context) {
  PromptList prompts;
  for (const v1::Prompt& prompt : context.prompts) prompts.push_back(&prompt);
  return prompts;
}

PromptList PoolOf(const StudyContext& context, v1::Split split) {
  const bool one_set = context.study.policy() == v1::POLICY_PAPER;
  std::vector<std::pair<std::string, const v1::Prompt*>> keyed;
  for (const v1::Prompt& prompt : context.prompts) {
    if (one_set || prompt.split() == split) {
      keyed.emplace_back(OrderKey(context.study, prompt), &prompt);
    }
  }
  std::stable_sort(keyed.begin(), keyed.end(),
                   [](const auto& a, const auto& b) { return a.first < b.first; });
  PromptList pool;
  for (const auto& [key, prompt] : keyed) pool.push_back(prompt);
  return pool;
}

absl::StatusOr<PromptList> RefusedBy(const StudyContext& context, const ResultView& results,
                                     const PromptList& pool) {
  Condition baseline{.name = "baseline", .plan = "*:fp", .prompts = pool};
  PLUMB_ASSIGN_OR_RETURN(std::vector<PromptOutcome> outcomes,
                         OutcomesOf(context, results, baseline));
  PromptList refused;
  for (const PromptOutcome& outcome : outcomes) {
    if (outcome.is_trial()) refused.push_back(outcome.prompt);
  }
  return refused;
}

PromptList FirstOf(const PromptList& prompts, uint64_t limit) {
  if (limit == 0 || prompts.size() <= limit) return prompts;
  return PromptList(prompts.begin(), prompts.begin() + static_cast<int64_t>(limit));
}

bool ExpectsAnswer(const v1::Prompt& prompt) {
  return prompt.expected() == v1::EXPECTED_BEHAVIOUR_COMPLY;
}

PromptList ExpectedToComply(const PromptList& prompts) {
  PromptList harmless;
  for (const v1::Prompt* prompt : prompts) {
    if (ExpectsAnswer(*prompt)) harmless.push_back(prompt);
  }
  return harmless;
}

PromptList UnionOf(const PromptList& a, const PromptList& b) {
  PromptList all;
  std::set<const v1::Prompt*> seen;
  for (const PromptList* list : {&a, &b}) {
    for (const v1::Prompt* prompt : *list) {
      if (seen.insert(prompt).second) all.push_back(prompt);
    }
  }
  return all;
}

std::string PoolLabel(const StudyContext& context, v1::Split split) {
  return context.study.policy() == v1::POLICY_PAPER ? "all" : SplitText(split);
}

}  // namespace plumbline
