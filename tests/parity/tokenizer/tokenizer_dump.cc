// Reads one JSON request a line and writes one JSON answer a line, for comparisons with the Python
// libraries. Bytes travel as hexadecimal, because JSON holds no broken UTF-8.
//
//   tokenizer_dump TOKENIZER_JSON [CHAT_FORMAT_JSON]
//   {"op": "encode", "hex": "4869", "special": "text"}            -> {"ids": [...]}
//   {"op": "decode", "ids": [1, 2], "skip_special": true}         -> {"hex": "..."}
//   {"op": "stream", "ids": [1, 2], "skip_special": true}         -> {"steps": [hex, ...]}, Finish
//   last
//   {"op": "chat", "turns": [["user", hex]], "special": "parse"}  -> {"ids": [...], "hex": "..."}
//   {"op": "info"}                                                -> {"vocab_size", "dropped"}
#include <cstdio>
#include <iostream>
#include <memory>
#include <optional>

#include "absl/strings/escaping.h"
#include "nlohmann/json.hpp"
#include "services/common/files.h"
#include "services/common/status_macros.h"
#include "services/engine/chat_format.h"
#include "services/engine/tokenizer.h"

namespace plumbline {
namespace {

using Json = nlohmann::json;

struct Subject {
  std::unique_ptr<Tokenizer> tokenizer;
  std::optional<ChatFormat> chat;
};

absl::StatusOr<Subject> Load(int argc, char** argv) {
  if (argc < 2) return absl::InvalidArgumentError("usage: tokenizer_dump TOKENIZER_JSON [CHAT]");
  Subject subject;
  PLUMB_ASSIGN_OR_RETURN(const std::string tokenizer, ReadFile(argv[1]));
  PLUMB_ASSIGN_OR_RETURN(subject.tokenizer, Tokenizer::Create(tokenizer));
  if (argc > 2) {
    PLUMB_ASSIGN_OR_RETURN(const std::string chat, ReadFile(argv[2]));
    PLUMB_ASSIGN_OR_RETURN(subject.chat, ChatFormat::Parse(chat));
  }
  return subject;
}

SpecialTokens SpecialOf(const Json& request) {
  return request.at("special") == "parse" ? SpecialTokens::kParse : SpecialTokens::kText;
}

std::string FromHex(const Json& hex) { return absl::HexStringToBytes(hex.get<std::string>()); }

Json Stream(const Tokenizer& tokenizer, const Json& request) {
  IncrementalDecoder decoder(&tokenizer, request.at("skip_special"));
  Json steps = Json::array();
  for (const int32_t id : request.at("ids"))
    steps.push_back(absl::BytesToHexString(decoder.Push(id)));
  steps.push_back(absl::BytesToHexString(decoder.Finish()));
  return {{"steps", steps}};
}

Json Chat(const Subject& subject, const Json& request) {
  std::vector<ChatTurn> turns;
  for (const Json& turn : request.at("turns")) turns.push_back({turn[0], FromHex(turn[1])});
  const auto ids = subject.chat->Encode(*subject.tokenizer, turns, SpecialOf(request));
  if (!ids.ok()) return {{"error", ids.status().ToString()}};
  return {{"ids", *ids}, {"hex", absl::BytesToHexString(subject.chat->Render(turns).value())}};
}

Json Answer(const Subject& subject, const Json& request) {
  const Tokenizer& tokenizer = *subject.tokenizer;
  const std::string op = request.at("op");
  if (op == "encode")
    return {{"ids", tokenizer.Encode(FromHex(request.at("hex")), SpecialOf(request))}};
  if (op == "decode") {
    return {{"hex", absl::BytesToHexString(
                        tokenizer.Decode(request.at("ids"), request.at("skip_special")))}};
  }
  if (op == "stream") return Stream(tokenizer, request);
  if (op == "chat") return Chat(subject, request);
  return {{"vocab_size", tokenizer.vocab_size()}, {"dropped", tokenizer.dropped_bytes()}};
}

}  // namespace
}  // namespace plumbline

int main(int argc, char** argv) {
  const auto subject = plumbline::Load(argc, argv);
  if (!subject.ok()) {
    std::cerr << subject.status().ToString() << "\n";
    return 2;
  }
  for (std::string line; std::getline(std::cin, line);) {
    std::cout << plumbline::Answer(*subject, nlohmann::json::parse(line)).dump() << "\n";
  }
  return 0;
}
