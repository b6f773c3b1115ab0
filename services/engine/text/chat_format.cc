#include "services/engine/chat_format.h"

#include <algorithm>

#include "services/common/status_macros.h"
#include "services/engine/text/json_access.h"
#include "services/engine/text/utf8.h"

namespace plumbline {
namespace {

constexpr const char* kRoles[] = {"system", "user", "assistant"};

bool IsRole(absl::string_view role) {
  return std::find(std::begin(kRoles), std::end(kRoles), role) != std::end(kRoles);
}

// What Python's str.strip() takes away: templates strip with it.
bool IsPythonSpace(char32_t c) {
  return (c >= 0x09 && c <= 0x0D) || (c >= 0x1C && c <= 0x20) || c == 0x85 || c == 0xA0 ||
         c == 0x1680 || (c >= 0x2000 && c <= 0x200A) || c == 0x2028 || c == 0x2029 || c == 0x202F ||
         c == 0x205F || c == 0x3000;
}

// `text` is valid UTF-8.
absl::string_view StripStart(absl::string_view text) {
  while (!text.empty()) {
    const Utf8Step step = DecodeUtf8(text);
    if (!IsPythonSpace(step.codepoint)) break;
    text.remove_prefix(step.bytes);
  }
  return text;
}

absl::string_view StripEnd(absl::string_view text) {
  while (!text.empty()) {
    size_t at = text.size() - 1;
    while (at > 0 && (static_cast<unsigned char>(text[at]) & 0xC0) == 0x80) --at;
    if (!IsPythonSpace(DecodeUtf8(text.substr(at)).codepoint)) break;
    text = text.substr(0, at);
  }
  return text;
}

}  // namespace

absl::StatusOr<ChatFormat> ChatFormat::Parse(const std::string& text) {
  const Json json = Json::parse(text, nullptr, /*allow_exceptions=*/false);
  constexpr absl::string_view kPath = "chat_format.json";
  if (json.is_discarded() || !json.is_object()) {
    return absl::InvalidArgumentError("chat_format.json is not a JSON object");
  }
  PLUMB_ASSIGN_OR_RETURN(const std::string format, StringAt(json, "format", kPath));
  if (format != "plumbline-chat/1") {
    return Mismatch(kPath, "format", "\"plumbline-chat/1\"", MemberOf(json, "format"));
  }
  ChatFormat chat;
  PLUMB_ASSIGN_OR_RETURN(chat.bos_, StringAt(json, "bos", kPath));
  PLUMB_ASSIGN_OR_RETURN(const Json* joints, ArrayAt(json, "joints", kPath));
  for (size_t i = 0; i < joints->size(); ++i) {
    const std::string path = absl::StrCat("chat_format.json.joints[", i, "]");
    const Json& entry = (*joints)[i];
    PLUMB_ASSIGN_OR_RETURN(const std::string from, StringAt(entry, "from", path));
    PLUMB_ASSIGN_OR_RETURN(const std::string to, StringAt(entry, "to", path));
    if (from != "start" && !IsRole(from)) {
      return Mismatch(path, "from", "start, system, user or assistant", MemberOf(entry, "from"));
    }
    if ((to != "end" && !IsRole(to)) || (from == "start" && to == "end")) {
      return Mismatch(path, "to", "system, user, assistant or end", MemberOf(entry, "to"));
    }
    Joint joint;
    PLUMB_ASSIGN_OR_RETURN(joint.text, StringAt(entry, "text", path));
    PLUMB_ASSIGN_OR_RETURN(joint.strip_before, BoolAt(entry, "strip_before", path, false));
    PLUMB_ASSIGN_OR_RETURN(joint.strip_after, BoolAt(entry, "strip_after", path, false));
    if (!chat.joints_.emplace(std::make_pair(from, to), joint).second) {
      return absl::InvalidArgumentError(absl::StrCat(path, " repeats ", from, " -> ", to));
    }
  }
  return chat;
}

absl::StatusOr<const ChatFormat::Joint*> ChatFormat::FindJoint(const std::string& from,
                                                               const std::string& to) const {
  const auto it = joints_.find({from, to});
  if (it != joints_.end()) return &it->second;
  return absl::InvalidArgumentError(
      to == "end" ? absl::StrCat("this model's chat template lets no conversation end after ", from)
                  : absl::StrCat("this model's chat template takes no ", to, " turn ",
                                 from == "start" ? "at the start" : absl::StrCat("after ", from)));
}

absl::StatusOr<ChatFormat::Rendered> ChatFormat::RenderSpans(
    const std::vector<ChatTurn>& turns) const {
  if (turns.empty()) return absl::InvalidArgumentError("a conversation has at least one turn");
  for (const ChatTurn& turn : turns) {
    if (!IsRole(turn.role)) {
      return absl::InvalidArgumentError(
          absl::StrCat("role must be system, user or assistant, got \"", turn.role, "\""));
    }
  }
  PLUMB_ASSIGN_OR_RETURN(const Joint* before, FindJoint("start", turns[0].role));
  Rendered out;
  out.text = bos_ + before->text;
  for (size_t i = 0; i < turns.size(); ++i) {
    const std::string next = i + 1 < turns.size() ? turns[i + 1].role : "end";
    PLUMB_ASSIGN_OR_RETURN(const Joint* after, FindJoint(turns[i].role, next));
    const std::string valid = ReplaceBrokenUtf8(turns[i].text);
    absl::string_view text = valid;
    if (before->strip_after) text = StripStart(text);
    if (after->strip_before) text = StripEnd(text);
    out.turns.push_back({out.text.size(), out.text.size() + text.size()});
    absl::StrAppend(&out.text, text, after->text);
    before = after;
  }
  return out;
}

absl::StatusOr<std::string> ChatFormat::Render(const std::vector<ChatTurn>& turns) const {
  PLUMB_ASSIGN_OR_RETURN(Rendered rendered, RenderSpans(turns));
  return std::move(rendered.text);
}

absl::StatusOr<std::vector<int32_t>> ChatFormat::Encode(const Tokenizer& tokenizer,
                                                        const std::vector<ChatTurn>& turns,
                                                        SpecialTokens user_special) const {
  PLUMB_ASSIGN_OR_RETURN(const Rendered rendered, RenderSpans(turns));
  std::vector<int32_t> ids = user_special == SpecialTokens::kText
                                 ? tokenizer.EncodeMixed(rendered.text, rendered.turns)
                                 : tokenizer.Encode(rendered.text, SpecialTokens::kParse);
  PLUMB_RETURN_IF_ERROR(CheckBos(tokenizer, ids, user_special));
  return ids;
}

absl::Status ChatFormat::CheckBos(const Tokenizer& tokenizer, const std::vector<int32_t>& ids,
                                  SpecialTokens user_special) const {
  if (bos_.empty()) return absl::OkStatus();
  const std::vector<int32_t> bos = tokenizer.Encode(bos_, SpecialTokens::kParse);
  if (bos.size() != 1 || !tokenizer.is_special(bos[0])) {
    return absl::InternalError(
        absl::StrCat("the chat format's BOS \"", bos_, "\" is no special token of the tokenizer"));
  }
  const auto count = std::count(ids.begin(), ids.end(), bos[0]);
  if (count == 1 && ids[0] == bos[0]) return absl::OkStatus();
  if (count > 1 && ids[0] == bos[0] && user_special == SpecialTokens::kParse) {
    return absl::InvalidArgumentError(absl::StrCat(
        "a turn holds the BOS token \"", bos_, "\": leave it out, or keep special tokens as text"));
  }
  return absl::InternalError(
      absl::StrCat("the chat format gives ", count, " BOS tokens instead of one at the start"));
}

}  // namespace plumbline
