#include "services/prompts/prompt_set.h"

#include <utility>

#include "absl/container/flat_hash_map.h"
#include "absl/strings/ascii.h"
#include "absl/strings/str_cat.h"
#include "nlohmann/json.hpp"
#include "services/common/digest.h"
#include "services/common/files.h"
#include "services/common/status_macros.h"
#include "services/prompts/bytes_check.h"

namespace plumbline {
namespace {

using nlohmann::ordered_json;

ordered_json ToJson(const Prompt& prompt) {
  ordered_json object;
  object["id"] = prompt.id;
  const bool has_system = prompt.turns.size() > 1 && prompt.turns[0].role == "system";
  if (prompt.turns.size() == (has_system ? 2u : 1u)) {
    if (has_system) object["system"] = prompt.turns[0].text;
    object["prompt"] = prompt.turns.back().text;
  } else {
    for (const PromptTurn& turn : prompt.turns) {
      object["turns"].push_back(ordered_json{{"role", turn.role}, {"text", turn.text}});
    }
  }
  if (!prompt.category.empty()) object["category"] = prompt.category;
  if (!prompt.family.empty()) object["family"] = prompt.family;
  if (prompt.expected != Expected::kUnspecified) {
    object["expected"] = std::string(ExpectedName(prompt.expected));
  }
  return object;
}

bool IsTextHash(absl::string_view text) {
  if (text.size() != 64) return false;
  for (const char c : text) {
    if (!absl::ascii_isdigit(c) && !(c >= 'a' && c <= 'f')) return false;
  }
  return true;
}

}  // namespace

absl::string_view ExpectedName(Expected expected) {
  switch (expected) {
    case Expected::kRefuse:
      return "refuse";
    case Expected::kComply:
      return "comply";
    case Expected::kUnspecified:
      break;
  }
  return "";
}

const std::string& LastUserText(const Prompt& prompt) {
  static const auto* const none = new std::string;
  for (auto turn = prompt.turns.rbegin(); turn != prompt.turns.rend(); ++turn) {
    if (turn->role == "user") return turn->text;
  }
  return *none;
}

std::string ComposeContextualPrompt(absl::string_view context, absl::string_view behavior) {
  if (context.empty()) return std::string(behavior);
  return absl::StrCat(context, "\n\n---\n\n", behavior);
}

std::string ToCanonicalJsonl(const std::vector<Prompt>& prompts) {
  std::string out;
  for (const Prompt& prompt : prompts) absl::StrAppend(&out, ToJson(prompt).dump(), "\n");
  return out;
}

std::string CanonicalDigest(const std::vector<Prompt>& prompts) {
  return Sha256Hex(ToCanonicalJsonl(prompts));
}

std::string NormalizeText(absl::string_view text) {
  std::string out;
  bool pending_blank = false;
  for (const char c : text) {
    if (absl::ascii_isspace(c)) {
      pending_blank = !out.empty();
      continue;
    }
    if (pending_blank) out.push_back(' ');
    pending_blank = false;
    out.push_back(absl::ascii_tolower(c));
  }
  return out;
}

std::string NormalizedText(const Prompt& prompt) {
  std::string out;
  bool first = true;
  for (const PromptTurn& turn : prompt.turns) {
    if (turn.role != "user") continue;
    absl::StrAppend(&out, first ? "" : "\n", NormalizeText(turn.text));
    first = false;
  }
  return out;
}

std::string TextHash(const Prompt& prompt) { return Sha256Hex(NormalizedText(prompt)); }

std::vector<DuplicateGroup> FindDuplicates(const std::vector<const PromptSet*>& sets) {
  absl::flat_hash_map<std::string, size_t> place;
  std::vector<DuplicateGroup> groups;
  for (const PromptSet* set : sets) {
    for (const Prompt& prompt : set->prompts) {
      const std::string hash = TextHash(prompt);
      const auto [found, is_new] = place.try_emplace(hash, groups.size());
      if (is_new) groups.push_back({hash, {}});
      groups[found->second].members.push_back(absl::StrCat(set->name, "/", prompt.id));
    }
  }
  std::vector<DuplicateGroup> duplicates;
  for (DuplicateGroup& group : groups) {
    if (group.members.size() > 1) duplicates.push_back(std::move(group));
  }
  return duplicates;
}

absl::StatusOr<absl::flat_hash_set<std::string>> LoadTextHashList(const std::string& path) {
  PLUMB_ASSIGN_OR_RETURN(const std::string bytes, ReadFile(path, kMaxPromptFileBytes));
  absl::flat_hash_set<std::string> hashes;
  absl::string_view rest = bytes;
  for (int64_t line_number = 1; !rest.empty(); ++line_number) {
    const size_t end = rest.find('\n');
    const absl::string_view line = absl::StripAsciiWhitespace(rest.substr(0, end));
    rest.remove_prefix(end == absl::string_view::npos ? rest.size() : end + 1);
    if (line.empty() || line[0] == '#') continue;
    if (!IsTextHash(line)) {
      return prompts_internal::RowError(
          path, {line_number, 1}, "expected a SHA-256 as 64 lower-case hexadecimal characters");
    }
    hashes.insert(std::string(line));
  }
  return hashes;
}

ExclusionReport ExcludeByTextHash(const absl::flat_hash_set<std::string>& hashes, PromptSet* set) {
  ExclusionReport report;
  report.before = static_cast<int64_t>(set->prompts.size());
  std::vector<Prompt> kept;
  for (Prompt& prompt : set->prompts) {
    if (hashes.contains(TextHash(prompt))) {
      report.excluded_ids.push_back(prompt.id);
    } else {
      kept.push_back(std::move(prompt));
    }
  }
  set->prompts = std::move(kept);
  report.kept = static_cast<int64_t>(set->prompts.size());
  report.excluded = report.before - report.kept;
  if (report.excluded > 0) {
    set->name += "-minus-trained";
    set->digest = CanonicalDigest(set->prompts);
    set->report.rows = report.kept;
  }
  return report;
}

}  // namespace plumbline
