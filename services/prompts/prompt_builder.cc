#include "services/prompts/prompt_builder.h"

#include <algorithm>
#include <utility>

#include "absl/strings/ascii.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "services/common/status_macros.h"

namespace plumbline::prompts_internal {
namespace {

bool AllDigits(absl::string_view text) {
  return !text.empty() && std::all_of(text.begin(), text.end(), absl::ascii_isdigit);
}

bool Blank(absl::string_view text) {
  return std::all_of(text.begin(), text.end(), absl::ascii_isspace);
}

}  // namespace

PromptBuilder::PromptBuilder(std::string where, std::string set_name, const LoadOptions& options)
    : where_(std::move(where)), set_name_(std::move(set_name)), options_(options) {}

absl::Status PromptBuilder::CheckText(Location location, absl::string_view what,
                                      absl::string_view text) const {
  if (Blank(text)) return RowError(where_, location, absl::StrCat("the ", what, " is empty"));
  if (static_cast<int64_t>(text.size()) > kMaxPromptBytes) {
    return RowError(
        where_, location,
        absl::StrCat("the ", what, " has ", text.size(), " bytes, the limit is ", kMaxPromptBytes));
  }
  if (text.find('\0') != absl::string_view::npos) {
    return RowError(where_, location, absl::StrCat("the ", what, " holds a NUL character"));
  }
  return absl::OkStatus();
}

absl::Status PromptBuilder::CheckTurns(const RawRow& row) const {
  if (row.turns.empty()) return RowError(where_, row.location, "a row without a prompt");
  if (static_cast<int64_t>(row.turns.size()) > kMaxTurnsPerPrompt) {
    return RowError(where_, row.location,
                    absl::StrCat(row.turns.size(), " turns, the limit is ", kMaxTurnsPerPrompt));
  }
  bool user_next = true;
  for (size_t i = 0; i < row.turns.size(); ++i) {
    const PromptTurn& turn = row.turns[i];
    const bool leading_system = turn.role == "system" && i == 0;
    const std::string wanted = user_next ? "user" : "assistant";
    if (!leading_system) {
      if (turn.role != wanted) {
        return RowError(where_, row.location,
                        absl::StrCat("turn ", i + 1, " has role '", turn.role, "', expected '",
                                     wanted, i == 0 ? "' or 'system'" : "'"));
      }
      user_next = !user_next;
    }
    const absl::string_view what = turn.role == "system"      ? "system prompt"
                                   : turn.role == "assistant" ? "assistant turn"
                                                              : "prompt";
    PLUMB_RETURN_IF_ERROR(CheckText(row.location, what, turn.text));
  }
  if (user_next) return RowError(where_, row.location, "the last turn must be the user's");
  return absl::OkStatus();
}

absl::Status PromptBuilder::CheckId(const RawRow& row, const std::string& id) {
  if (static_cast<int64_t>(id.size()) > kMaxPromptIdBytes) {
    return RowError(
        where_, row.location,
        absl::StrCat("the id has ", id.size(), " bytes, the limit is ", kMaxPromptIdBytes));
  }
  for (const char c : id) {
    if (absl::ascii_iscntrl(c)) {
      return RowError(where_, row.location, "the id holds a control character");
    }
  }
  const auto [place, is_new] = line_of_id_.try_emplace(id, row.location.line);
  if (!is_new) {
    return RowError(where_, row.location,
                    absl::StrCat("id '", id, "' was used before, at line ", place->second,
                                 "; ids are unique within a set"));
  }
  return absl::OkStatus();
}

absl::Status PromptBuilder::Add(RawRow row) {
  if (static_cast<int64_t>(prompts_.size()) >= kMaxPromptsPerSet) {
    return absl::ResourceExhaustedError(absl::StrCat(where_, ":", row.location.line, ": more than ",
                                                     kMaxPromptsPerSet, " prompts in a set"));
  }
  PLUMB_RETURN_IF_ERROR(CheckTurns(row));
  Prompt prompt;
  prompt.set = set_name_;
  prompt.id = std::move(row.id);
  if (prompt.id.empty()) prompt.id = absl::StrFormat("%s-%04d", set_name_, prompts_.size() + 1);
  if (AllDigits(prompt.id)) prompt.id = absl::StrCat(set_name_, "-", prompt.id);
  PLUMB_RETURN_IF_ERROR(CheckId(row, prompt.id));
  prompt.turns = std::move(row.turns);
  prompt.category = std::move(row.category);
  if (prompt.category.empty()) prompt.category = options_.default_category;
  prompt.family = std::move(row.family);
  if (row.expected.empty()) {
    prompt.expected = options_.default_expected;
  } else if (row.expected == "refuse" || row.expected == "comply") {
    prompt.expected = row.expected == "refuse" ? Expected::kRefuse : Expected::kComply;
  } else {
    return RowError(where_, row.location,
                    absl::StrCat("expected must be refuse or comply, got '", row.expected, "'"));
  }
  if (!texts_.insert(NormalizedText(prompt)).second) ++repeated_;
  prompts_.push_back(std::move(prompt));
  return absl::OkStatus();
}

absl::StatusOr<PromptSet> PromptBuilder::Finish(LoadReport report) {
  if (prompts_.empty()) {
    return absl::InvalidArgumentError(absl::StrCat(where_, ": holds no prompt"));
  }
  PromptSet set;
  set.name = set_name_;
  set.prompts = std::move(prompts_);
  set.digest = CanonicalDigest(set.prompts);
  set.report = std::move(report);
  set.report.rows = static_cast<int64_t>(set.prompts.size());
  set.report.repeated_texts = repeated_;
  return set;
}

}  // namespace plumbline::prompts_internal
