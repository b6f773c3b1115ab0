#include "services/cli/forced_answers.h"

#include <algorithm>
#include <fstream>
#include <nlohmann/json.hpp>
#include <set>

#include "absl/strings/str_cat.h"
#include "services/common/figures.h"

namespace plumbline {
namespace {

using Json = nlohmann::ordered_json;

// "'a', 'b', 'c' and 4 more"
std::string Some(const std::vector<std::string>& ids) {
  constexpr size_t kShown = 3;
  std::string text;
  for (size_t i = 0; i < std::min(kShown, ids.size()); ++i) {
    absl::StrAppend(&text, i == 0 ? "'" : ", '", ids[i], "'");
  }
  if (ids.size() > kShown) absl::StrAppend(&text, " and ", ids.size() - kShown, " more");
  return text;
}

}  // namespace

absl::StatusOr<ForcedAnswers> ReadForced(const std::string& path) {
  ForcedAnswers forced;
  if (path.empty()) return forced;
  std::ifstream file(path);
  if (!file) return absl::NotFoundError(absl::StrCat("cannot open --force file ", path));
  std::string line;
  for (int number = 1; std::getline(file, line); ++number) {
    if (line.empty()) continue;
    const Json row = Json::parse(line, nullptr, /*allow_exceptions=*/false);
    const char* id_key = row.is_object() && row.contains("prompt_id") ? "prompt_id" : "id";
    if (!row.is_object() || !row.contains(id_key) || !row[id_key].is_string() ||
        !row.contains("token_ids") || !row["token_ids"].is_array()) {
      return absl::InvalidArgumentError(absl::StrCat(
          path, ":", number, ": expected {\"id\": \"...\", \"token_ids\": [1, 2, ...]}"));
    }
    const std::string id = row[id_key].get<std::string>();
    if (forced.contains(id)) {
      return absl::InvalidArgumentError(absl::StrCat(path, ":", number,
                                                     ": a second answer for prompt '", id,
                                                     "'; one each is fed under every --kv plan"));
    }
    std::vector<int32_t>& tokens = forced[id];
    for (const Json& token : row["token_ids"]) {
      if (!token.is_number_integer()) {
        return absl::InvalidArgumentError(
            absl::StrCat(path, ":", number, ": token_ids holds something that is no integer"));
      }
      tokens.push_back(token.get<int32_t>());
    }
  }
  return forced;
}

absl::Status CheckForced(const ForcedAnswers& forced, const PromptSet& set,
                         const std::string& path) {
  std::set<std::string> prompts;
  std::vector<std::string> without_answer, without_prompt;
  for (const Prompt& prompt : set.prompts) {
    prompts.insert(prompt.id);
    if (!forced.contains(prompt.id)) without_answer.push_back(prompt.id);
  }
  for (const auto& [id, unused] : forced) {
    if (!prompts.contains(id)) without_prompt.push_back(id);
  }
  if (!without_prompt.empty()) {
    return absl::InvalidArgumentError(absl::StrCat(
        path, ": no prompt has the id ", Some(without_prompt), "; the ids here look like ",
        Some({set.prompts.front().id}), " (`plumb generate --json` prints them as prompt_id)"));
  }
  if (!without_answer.empty()) {
    return absl::InvalidArgumentError(absl::StrCat(
        path, ": no answer for prompt ", Some(without_answer), "; give one line for each prompt (",
        CountText(set.prompts.size(), "prompt"), " here)"));
  }
  return absl::OkStatus();
}

}  // namespace plumbline
