#include "services/engine/text/added_tokens.h"

#include <unicode/uchar.h>

#include <algorithm>
#include <utility>

#include "services/engine/text/utf8.h"

namespace plumbline {
namespace {

bool IsWordCharacter(char32_t c) {
  const auto code = static_cast<UChar32>(c);
  constexpr uint32_t kMarkOrDigitOrConnector = U_GC_M_MASK | U_GC_ND_MASK | U_GC_PC_MASK;
  return u_hasBinaryProperty(code, UCHAR_ALPHABETIC) ||
         u_hasBinaryProperty(code, UCHAR_JOIN_CONTROL) ||
         (U_GET_GC_MASK(code) & kMarkOrDigitOrConnector) != 0;
}

bool IsSpace(char32_t c) { return u_hasBinaryProperty(static_cast<UChar32>(c), UCHAR_WHITE_SPACE); }

size_t LastCharacterStart(absl::string_view text) {
  size_t at = text.size() - 1;
  while (at > 0 && (static_cast<unsigned char>(text[at]) & 0xC0) == 0x80) --at;
  return at;
}

bool EndsWithWord(absl::string_view text) {
  return !text.empty() &&
         IsWordCharacter(DecodeUtf8(text.substr(LastCharacterStart(text))).codepoint);
}

bool StartsWithWord(absl::string_view text) {
  return !text.empty() && IsWordCharacter(DecodeUtf8(text).codepoint);
}

size_t WithoutSpaceAtEnd(absl::string_view text) {
  while (!text.empty()) {
    const size_t start = LastCharacterStart(text);
    if (!IsSpace(DecodeUtf8(text.substr(start)).codepoint)) break;
    text = text.substr(0, start);
  }
  return text.size();
}

size_t SpaceAtStart(absl::string_view text) {
  size_t at = 0;
  while (at < text.size()) {
    const Utf8Step step = DecodeUtf8(text.substr(at));
    if (!IsSpace(step.codepoint)) break;
    at += step.bytes;
  }
  return at;
}

enum class Overlap { kNone, kInside, kCrosses };

Overlap OverlapWith(const std::vector<TextRange>& plain, size_t begin, size_t end) {
  const auto it = std::lower_bound(plain.begin(), plain.end(), begin,
                                   [](const TextRange& r, size_t at) { return r.end <= at; });
  if (it == plain.end() || it->begin >= end) return Overlap::kNone;
  return it->begin <= begin && end <= it->end ? Overlap::kInside : Overlap::kCrosses;
}

}  // namespace

void AddedTokenMatcher::Add(AddedToken token, absl::string_view pattern) {
  if (pattern.empty()) return;
  first_byte_[static_cast<uint8_t>(pattern[0])] = true;
  int32_t node = 0;
  for (const char c : pattern) {
    const uint64_t edge = (static_cast<uint64_t>(node) << 8) | static_cast<uint8_t>(c);
    const auto [it, added] = edges_.try_emplace(edge, static_cast<int32_t>(token_of_node_.size()));
    node = it->second;
    if (added) token_of_node_.push_back(-1);
  }
  token_of_node_[node] = static_cast<int32_t>(tokens_.size());
  tokens_.push_back(std::move(token));
}

AddedTokenMatcher::Hit AddedTokenMatcher::At(absl::string_view text, size_t at,
                                             const std::vector<TextRange>& plain) const {
  Hit best, skipped;
  int32_t node = 0;
  for (size_t i = at; i < text.size(); ++i) {
    const auto it = edges_.find((static_cast<uint64_t>(node) << 8) | static_cast<uint8_t>(text[i]));
    if (it == edges_.end()) break;
    node = it->second;
    const int32_t token = token_of_node_[node];
    if (token < 0) continue;
    const size_t length = i + 1 - at;
    const Overlap overlap =
        tokens_[token].special ? OverlapWith(plain, at, at + length) : Overlap::kNone;
    if (overlap == Overlap::kNone) best = {length, token, false};
    // A look-alike that reaches into the template's own text must not hide a token there.
    if (overlap == Overlap::kInside) skipped = {length, token, true};
  }
  return skipped.length > best.length ? skipped : best;
}

std::vector<Segment> AddedTokenMatcher::Cut(absl::string_view text,
                                            const std::vector<TextRange>& plain) const {
  std::vector<Segment> segments;
  size_t done = 0;
  for (size_t at = 0; at < text.size();) {
    const Hit hit = first_byte_[static_cast<uint8_t>(text[at])] ? At(text, at, plain) : Hit{};
    if (hit.token < 0) {
      ++at;
      continue;
    }
    const AddedToken& token = tokens_[hit.token];
    size_t begin = at, end = at + hit.length;
    at = end;
    if (hit.skipped) continue;
    if (token.single_word &&
        (EndsWithWord(text.substr(0, begin)) || StartsWithWord(text.substr(end)))) {
      continue;
    }
    if (token.lstrip) begin = std::max(WithoutSpaceAtEnd(text.substr(0, begin)), done);
    if (token.rstrip) end += SpaceAtStart(text.substr(end));
    if (done < begin) segments.push_back({{done, begin}, -1});
    segments.push_back({{begin, end}, token.id});
    done = end;
  }
  if (done < text.size()) segments.push_back({{done, text.size()}, -1});
  return segments;
}

}  // namespace plumbline
