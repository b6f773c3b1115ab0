// The compiled chat format: how a list of turns becomes token ids, without Jinja at run time.
// `plumb models import` compiles it from the template by rendering probes and checks it against the
// template; chat_format.json holds literal pieces only:
//
//   {"format": "plumbline-chat/1", "bos": "<|begin_of_text|>" or "", "date", "template_sha256",
//    "checked_conversations",
//    "joints": [{"from": "start", "to": "user", "text": "<|im_start|>user\n",
//                "strip_before": false, "strip_after": true}, ...]}
//
// A joint is what stands between two neighbouring turns ("start" and "end" are the outer ones); it
// may take the white space off the end of the turn before it and off the start of the turn after
// it. A pair of roles without a joint is an order that the template refuses.
//
//   PLUMB_ASSIGN_OR_RETURN(ChatFormat chat, ChatFormat::Parse(json));
//   PLUMB_ASSIGN_OR_RETURN(auto ids, chat.Encode(*tokenizer, {{"user", "Hi"}},
//   SpecialTokens::kText));
#pragma once

#include <cstdint>
#include <map>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "services/engine/tokenizer.h"

namespace plumbline {

struct ChatTurn {
  std::string role;  // "system", "user" or "assistant"
  std::string text;
};

// Immutable after Parse, so safe from any thread.
class ChatFormat {
 public:
  // InvalidArgument with the JSON path.
  static absl::StatusOr<ChatFormat> Parse(const std::string& json);

  // Token ids up to where the assistant's answer begins. Template pieces may hold special tokens;
  // texts of turns are encoded by `user_special`. Exactly one BOS where the model has one, none
  // where it has none (Internal otherwise). InvalidArgument: unknown role, no turn, roles in an
  // order that the template refuses, a turn that holds BOS under kParse.
  absl::StatusOr<std::vector<int32_t>> Encode(const Tokenizer& tokenizer,
                                              const std::vector<ChatTurn>& turns,
                                              SpecialTokens user_special) const;

  // The rendered text, for tests against the template. Broken UTF-8 in turns becomes U+FFFD.
  absl::StatusOr<std::string> Render(const std::vector<ChatTurn>& turns) const;

  // The text of BOS, empty where the model has none. Raw prompts begin with it too.
  const std::string& bos() const { return bos_; }

 private:
  struct Joint {
    std::string text;
    bool strip_before = false;
    bool strip_after = false;
  };
  struct Rendered {
    std::string text;
    std::vector<ByteSpan> turns;  // where the turns' own texts stand
  };
  absl::StatusOr<Rendered> RenderSpans(const std::vector<ChatTurn>& turns) const;
  absl::StatusOr<const Joint*> FindJoint(const std::string& from, const std::string& to) const;
  absl::Status CheckBos(const Tokenizer& tokenizer, const std::vector<int32_t>& ids,
                        SpecialTokens user_special) const;

  std::string bos_;
  std::map<std::pair<std::string, std::string>, Joint> joints_;
};

}  // namespace plumbline
