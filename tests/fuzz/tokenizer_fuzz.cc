// The tokenizer: no tokenizer.json crashes it, nor any text or ids on one that loads. On a sound
// one with all 256 bytes, text comes back as it was and streaming equals decoding.
//
// The first byte picks the part: '{' (a whole tokenizer.json, then some text) or text for the sound
// one.
//
// link: plumb::engine_text
#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <string>
#include <vector>

#include "services/engine/text/utf8.h"
#include "services/engine/tokenizer.h"
#include "tests/unit/engine_text/small_tokenizer.h"

namespace plumbline {
namespace {

constexpr size_t kShortText = 48;  // a hostile pattern may take long on each character

void Require(bool holds) {
  if (!holds) abort();
}

std::string Streamed(const Tokenizer& tokenizer, const std::vector<int32_t>& ids) {
  IncrementalDecoder decoder(&tokenizer, /*skip_special=*/false);
  std::string text;
  for (const int32_t id : ids) {
    const std::string step = decoder.Push(id);
    Require(ReplaceBrokenUtf8(step) == step);
    text += step;
  }
  return text + decoder.Finish();
}

void Exercise(const Tokenizer& tokenizer, absl::string_view text) {
  for (const SpecialTokens special : {SpecialTokens::kText, SpecialTokens::kParse}) {
    const std::vector<int32_t> ids = tokenizer.Encode(text, special);
    for (const int32_t id : ids) Require(id >= 0 && id < tokenizer.vocab_size());
    Require(Streamed(tokenizer, ids) == tokenizer.Decode(ids, false));
  }
  const std::vector<int32_t> mixed =
      tokenizer.EncodeMixed(text, {{text.size() / 3, text.size() / 2}});
  tokenizer.Decode(mixed, true);
}

void CheckSound(absl::string_view text) {
  static const Tokenizer* const sound =
      Tokenizer::Create(plumbline::testing::SmallTokenizer().dump()).value().release();
  const std::vector<int32_t> ids = sound->Encode(text, SpecialTokens::kText);
  Require(sound->Decode(ids, false) == ReplaceBrokenUtf8(text));
  for (const int32_t id : ids) Require(!sound->is_special(id));
  Exercise(*sound, text);
  std::vector<int32_t> bytes;
  for (const char byte : text) bytes.push_back(static_cast<uint8_t>(byte));
  Require(Streamed(*sound, bytes) == ReplaceBrokenUtf8(text));
}

void CheckHostile(absl::string_view json) {
  const auto tokenizer = Tokenizer::Create(json);
  if (!tokenizer.ok()) return;
  Exercise(**tokenizer, json.substr(0, kShortText));
  Exercise(**tokenizer, "hello  <|end|> 12 e\u0301");
}

}  // namespace
}  // namespace plumbline

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const absl::string_view bytes(reinterpret_cast<const char*>(data), size);
  if (size > 0 && bytes[0] == '{') {
    plumbline::CheckHostile(bytes);
  } else {
    plumbline::CheckSound(bytes);
  }
  return 0;
}
