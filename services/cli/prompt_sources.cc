#include "services/cli/prompt_sources.h"

#include "services/cli/install_layout.h"
#include "services/common/files.h"
#include "services/common/status_macros.h"
#include "services/prompts/prompt_library.h"

namespace plumbline {
namespace {

v1::Role RoleOf(const std::string& role) {
  if (role == "system") return v1::ROLE_SYSTEM;
  return role == "assistant" ? v1::ROLE_ASSISTANT : v1::ROLE_USER;
}

}  // namespace

v1::Prompt PromptToProto(const Prompt& prompt) {
  v1::Prompt proto;
  proto.set_id(prompt.id);
  proto.set_prompt_set(prompt.set);
  for (const PromptTurn& turn : prompt.turns) {
    v1::ChatTurn* out = proto.add_turns();
    out->set_role(RoleOf(turn.role));
    out->set_text(turn.text);
  }
  if (prompt.expected == Expected::kRefuse) proto.set_expected(v1::EXPECTED_BEHAVIOUR_REFUSE);
  if (prompt.expected == Expected::kComply) proto.set_expected(v1::EXPECTED_BEHAVIOUR_COMPLY);
  proto.set_category(prompt.category);
  return proto;
}

std::vector<std::string> PromptRoots(const std::string& data_dir) {
  std::vector<std::string> roots = {JoinPath(data_dir, "prompts")};
  const absl::StatusOr<std::string> builtin = FindShared("data/prompts");
  if (builtin.ok()) roots.push_back(*builtin);
  return roots;
}

absl::StatusOr<ResolvedPrompts> ResolvePrompts(const std::vector<std::string>& names_or_paths,
                                               const std::string& data_dir, bool remote) {
  ResolvedPrompts resolved;
  for (const std::string& name : names_or_paths) {
    v1::PromptSetRef ref;
    const absl::StatusOr<PromptSet> set = ResolvePromptSet(name, PromptRoots(data_dir));
    // A coordinator may know a name that is not here; it never sees this machine's files.
    if (absl::IsNotFound(set.status()) && remote && !IsPromptPath(name)) {
      ref.set_name(name);
    } else {
      if (!set.ok()) return Annotate(set.status(), "--prompts");
      ref.set_name(set->name);
      ref.set_sha256(set->digest);
      for (const Prompt& prompt : set->prompts) {
        *ref.add_inline_prompts() = PromptToProto(prompt);
        resolved.text_hashes.push_back(TextHash(prompt));
      }
    }
    resolved.sets.push_back(std::move(ref));
  }
  return resolved;
}

}  // namespace plumbline
