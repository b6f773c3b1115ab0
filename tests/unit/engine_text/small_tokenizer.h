// A tokenizer.json small enough to check by hand: all 256 bytes, a few merges, three added tokens.
#pragma once

#include <string>

#include "nlohmann/json.hpp"
#include "services/engine/text/byte_level.h"

namespace plumbline::testing {

using Json = nlohmann::json;

// Ids: 0-255 the bytes, 256 "he", 257 "ll", 258 "hell", 259 "hello", 260 " hello" ("\u0120hello"),
// 300 "<|end|>" special, 301 "<|bos|>" special, 302 "<tool>" not special.
inline Json SmallTokenizer() {
  Json vocab = Json::object();
  for (int byte = 0; byte < 256; ++byte) {
    const char raw = static_cast<char>(byte);
    vocab[ToByteLevel(absl::string_view(&raw, 1))] = byte;
  }
  vocab["he"] = 256;
  vocab["ll"] = 257;
  vocab["hell"] = 258;
  vocab["hello"] = 259;
  vocab["\u0120hello"] = 260;
  const auto added = [](int id, const char* content, bool special) {
    return Json{{"id", id},        {"content", content},  {"single_word", false}, {"lstrip", false},
                {"rstrip", false}, {"normalized", false}, {"special", special}};
  };
  return {
      {"version", "1.0"},
      {"added_tokens",
       {added(300, "<|end|>", true), added(301, "<|bos|>", true), added(302, "<tool>", false)}},
      {"normalizer", nullptr},
      {"pre_tokenizer", {{"type", "ByteLevel"}, {"add_prefix_space", false}, {"use_regex", true}}},
      {"post_processor", nullptr},
      {"decoder", {{"type", "ByteLevel"}}},
      {"model",
       {{"type", "BPE"},
        {"vocab", vocab},
        {"merges", {"h e", "l l", "he ll", Json{"hell", "o"}, "\u0120 hello"}}}}};
}

}  // namespace plumbline::testing
