// The compiled chat format: how a list of turns becomes token ids, without Jinja at run time.
// `plumb models import` compiles it from the template by rendering probes and checks it against the
// template; chat_format.json holds literal pieces only.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "services/engine/tokenizer.h"

namespace plumbline {

struct ChatTurn {
  std::string role;  // "system", "user" or "assistant"
  std::string text;
};

class ChatFormat {
 public:
  // InvalidArgument with the JSON path.
  static absl::StatusOr<ChatFormat> Parse(const std::string& json);

  // Token ids up to where the assistant's answer begins. Template pieces may hold special tokens;
  // texts of turns are encoded by `user_special`. Exactly one BOS where the model has one, none where
  // it has none (Internal otherwise). InvalidArgument: unknown role, no turn, roles in an order that
  // the template refuses.
  absl::StatusOr<std::vector<int32_t>> Encode(const Tokenizer& tokenizer,
                                              const std::vector<ChatTurn>& turns,
                                              SpecialTokens user_special) const;

  // The rendered text, for tests against the template.
  absl::StatusOr<std::string> Render(const std::vector<ChatTurn>& turns) const;

 private:
  // The pieces; the implementer completes this (literal text before/after each role, default system
  // prompt, generation prompt, trimming, BOS).
  std::string json_;
};

}  // namespace plumbline
