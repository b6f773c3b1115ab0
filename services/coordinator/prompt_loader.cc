#include "services/coordinator/prompt_loader.h"

#include <algorithm>
#include <set>
#include <utility>
#include <vector>

#include "absl/container/flat_hash_set.h"
#include "absl/strings/ascii.h"
#include "absl/strings/str_cat.h"
#include "services/common/digest.h"
#include "services/common/status_macros.h"
#include "services/prompts/prompt_library.h"
#include "services/prompts/prompt_set.h"

namespace plumbline {
namespace {

v1::Split ToProto(Split split) {
  switch (split) {
    case Split::kA:
      return v1::SPLIT_A;
    case Split::kB:
      return v1::SPLIT_B;
    case Split::kValidation:
      return v1::SPLIT_VALIDATION;
    case Split::kTest:
      return v1::SPLIT_TEST;
  }
  return v1::SPLIT_UNSPECIFIED;
}

v1::Prompt ToProto(const Prompt& prompt) {
  v1::Prompt out;
  out.set_id(prompt.id);
  for (const PromptTurn& turn : prompt.turns) {
    v1::ChatTurn* added = out.add_turns();
    added->set_role(turn.role == "system"      ? v1::ROLE_SYSTEM
                    : turn.role == "assistant" ? v1::ROLE_ASSISTANT
                                               : v1::ROLE_USER);
    added->set_text(turn.text);
  }
  out.set_expected(prompt.expected == Expected::kRefuse   ? v1::EXPECTED_BEHAVIOUR_REFUSE
                   : prompt.expected == Expected::kComply ? v1::EXPECTED_BEHAVIOUR_COMPLY
                                                          : v1::EXPECTED_BEHAVIOUR_UNSPECIFIED);
  out.set_category(prompt.category);
  return out;
}

Prompt ToPlain(const v1::Prompt& prompt) {
  Prompt out;
  out.id = prompt.id();
  for (const v1::ChatTurn& turn : prompt.turns()) {
    out.turns.push_back({turn.role() == v1::ROLE_SYSTEM      ? "system"
                         : turn.role() == v1::ROLE_ASSISTANT ? "assistant"
                                                             : "user",
                         turn.text()});
  }
  out.category = prompt.category();
  return out;
}

absl::Status CheckInline(const v1::Prompt& prompt, const std::string& field) {
  if (prompt.id().empty() || static_cast<int64_t>(prompt.id().size()) > kMaxPromptIdBytes) {
    return absl::InvalidArgumentError(absl::StrCat(field, ".id must have 1..", kMaxPromptIdBytes,
                                                   " bytes, has ", prompt.id().size()));
  }
  if (prompt.turns().empty() || prompt.turns().rbegin()->role() != v1::ROLE_USER) {
    return absl::InvalidArgumentError(
        absl::StrCat(field, ".turns ('", prompt.id(), "') must end with a user turn"));
  }
  for (const v1::ChatTurn& turn : prompt.turns()) {
    if (turn.role() == v1::ROLE_UNSPECIFIED) {
      return absl::InvalidArgumentError(
          absl::StrCat(field, ".turns ('", prompt.id(), "'): a turn has no role"));
    }
    if (absl::StripAsciiWhitespace(turn.text()).empty() ||
        static_cast<int64_t>(turn.text().size()) > kMaxPromptBytes) {
      return absl::InvalidArgumentError(
          absl::StrCat(field, ".turns ('", prompt.id(), "'): a text must have 1..", kMaxPromptBytes,
                       " bytes and not be blank, has ", turn.text().size()));
    }
  }
  return absl::OkStatus();
}

absl::Status CountSplits(const std::vector<v1::Prompt>& prompts,
                         std::vector<v1::PromptSetSummary>* sets) {
  std::set<std::string> names;
  for (v1::PromptSetSummary& set : *sets) {
    if (!names.insert(set.name()).second) continue;  // the first of a name has the counts
    for (const v1::Prompt& prompt : prompts) {
      if (prompt.prompt_set() != set.name()) continue;
      set.set_split_a(set.split_a() + (prompt.split() == v1::SPLIT_A));
      set.set_split_b(set.split_b() + (prompt.split() == v1::SPLIT_B));
      set.set_split_validation(set.split_validation() + (prompt.split() == v1::SPLIT_VALIDATION));
      set.set_split_test(set.split_test() + (prompt.split() == v1::SPLIT_TEST));
    }
  }
  if (!prompts.empty()) return absl::OkStatus();
  return absl::InvalidArgumentError(
      "study.prompt_sets: no prompt is left after the exclusions; add another set");
}

// Which prompts stay depends on the seed and the prompt alone; the order stays.
void KeepSample(const v1::Study& study, ExperimentPrompts* out) {
  const size_t keep = study.max_prompts();
  if (keep == 0 || out->prompts.size() <= keep) return;
  std::vector<std::pair<std::string, size_t>> drawn;
  for (size_t i = 0; i < out->prompts.size(); ++i) {
    drawn.push_back({DigestBuilder("plumbline sample/1")
                         .Add("seed", absl::StrCat(study.seed()))
                         .Add("set", out->prompts[i].prompt_set())
                         .Add("id", out->prompts[i].id())
                         .Finish(),
                     i});
  }
  std::sort(drawn.begin(), drawn.end());
  std::set<size_t> kept;
  for (size_t i = 0; i < keep; ++i) kept.insert(drawn[i].second);
  std::vector<v1::Prompt> sample;
  for (const size_t i : kept) sample.push_back(std::move(out->prompts[i]));
  out->prompts = std::move(sample);
  for (v1::PromptSetSummary& set : out->prompt_sets) set.set_partial(true);
}

// A raw prompt is one text.
absl::Status CheckRaw(const std::vector<v1::Prompt>& prompts) {
  for (const v1::Prompt& prompt : prompts) {
    if (prompt.turns_size() == 1 && prompt.turns(0).role() == v1::ROLE_USER) continue;
    return absl::InvalidArgumentError(
        absl::StrCat("study.decoding.raw: prompt '", prompt.id(), "' of set '", prompt.prompt_set(),
                     "' has ", prompt.turns_size(),
                     " turns or one that is not the user's; without a chat format a prompt is one "
                     "user turn: leave it "
                     "out, or run the study with a chat model and without raw"));
  }
  return absl::OkStatus();
}

}  // namespace

absl::Status PromptLoader::LoadSet(const v1::PromptSetRef& ref, const std::string& field,
                                   ExperimentPrompts* out) const {
  v1::PromptSetSummary summary;
  summary.set_name(ref.name());
  std::vector<v1::Prompt> prompts;
  if (ref.inline_prompts().empty()) {
    auto set = PromptLibrary(root_).Open(ref.name());
    if (!set.ok()) {
      const absl::Status status =
          Annotate(set.status(), absl::StrCat(field, " '", ref.name(), "'"));
      return absl::IsNotFound(status) ? absl::InvalidArgumentError(status.message()) : status;
    }
    if (!ref.sha256().empty() && ref.sha256() != set->digest) {
      return absl::InvalidArgumentError(absl::StrCat(field, ".sha256 is ", ref.sha256(), ", set '",
                                                     ref.name(), "' here has ", set->digest));
    }
    summary.set_sha256(set->digest);
    for (const Prompt& prompt : set->prompts) prompts.push_back(ToProto(prompt));
  } else {
    std::vector<Prompt> plain;
    std::set<std::string> ids;
    for (int i = 0; i < ref.inline_prompts_size(); ++i) {
      const v1::Prompt& prompt = ref.inline_prompts(i);
      const std::string where = absl::StrCat(field, ".inline_prompts[", i, "]");
      PLUMB_RETURN_IF_ERROR(CheckInline(prompt, where));
      if (!ids.insert(prompt.id()).second) {
        return absl::InvalidArgumentError(
            absl::StrCat(where, ".id '", prompt.id(), "' is there twice"));
      }
      plain.push_back(ToPlain(prompt));
      prompts.push_back(prompt);
    }
    summary.set_sha256(ref.sha256().empty() ? CanonicalDigest(plain) : ref.sha256());
  }
  summary.set_prompts(prompts.size());
  out->prompt_sets.push_back(std::move(summary));
  for (v1::Prompt& prompt : prompts) {
    prompt.set_prompt_set(ref.name());
    if (prompt.split() == v1::SPLIT_UNSPECIFIED) {
      prompt.set_split(ToProto(SplitOf(ToPlain(prompt))));
    }
    out->prompts.push_back(std::move(prompt));
  }
  return absl::OkStatus();
}

absl::StatusOr<ExperimentPrompts> PromptLoader::Load(const v1::Study& study) const {
  ExperimentPrompts loaded;
  std::vector<size_t> set_of;  // one a prompt
  for (int i = 0; i < study.prompt_sets_size(); ++i) {
    PLUMB_RETURN_IF_ERROR(
        LoadSet(study.prompt_sets(i), absl::StrCat("study.prompt_sets[", i, "]"), &loaded));
    set_of.resize(loaded.prompts.size(), static_cast<size_t>(i));
  }
  const absl::flat_hash_set<std::string> excluded(study.exclude_prompt_sha256().begin(),
                                                  study.exclude_prompt_sha256().end());
  ExperimentPrompts out;
  out.prompt_sets = std::move(loaded.prompt_sets);
  absl::flat_hash_set<std::string> seen;
  for (size_t i = 0; i < loaded.prompts.size(); ++i) {
    v1::PromptSetSummary& set = out.prompt_sets[set_of[i]];
    std::string text = TextHash(ToPlain(loaded.prompts[i]));
    if (excluded.contains(text)) {
      set.set_excluded(set.excluded() + 1);
    } else if (!seen.insert(std::move(text)).second) {
      set.set_repeated_texts(set.repeated_texts() + 1);
    } else {
      out.prompts.push_back(std::move(loaded.prompts[i]));
    }
  }
  KeepSample(study, &out);
  PLUMB_RETURN_IF_ERROR(CountSplits(out.prompts, &out.prompt_sets));
  if (study.decoding().raw()) PLUMB_RETURN_IF_ERROR(CheckRaw(out.prompts));
  return out;
}

}  // namespace plumbline
