#include "services/engine/tokenizer.h"

#include <algorithm>
#include <utility>

#include "absl/container/flat_hash_map.h"
#include "absl/container/flat_hash_set.h"
#include "services/common/status_macros.h"
#include "services/engine/text/added_tokens.h"
#include "services/engine/text/bpe.h"
#include "services/engine/text/byte_level.h"
#include "services/engine/text/json_access.h"
#include "services/engine/text/normalizer.h"
#include "services/engine/text/pre_tokenizer.h"
#include "services/engine/text/utf8.h"

namespace plumbline {
namespace {

struct TokenInfo {
  std::string bytes;
  bool special = false;
};

absl::StatusOr<AddedToken> ParseAddedToken(const Json& json, size_t index) {
  const std::string path = absl::StrCat("added_tokens[", index, "]");
  AddedToken token;
  PLUMB_ASSIGN_OR_RETURN(token.content, StringAt(json, "content", path));
  const Json* id = MemberOf(json, "id");
  if (id == nullptr || !id->is_number_integer() || *id < 0 || *id > kMaxTokenId) {
    return Mismatch(path, "id", absl::StrCat("an id from 0 to ", kMaxTokenId), id);
  }
  token.id = id->get<int32_t>();
  PLUMB_ASSIGN_OR_RETURN(token.special, BoolAt(json, "special", path, false));
  PLUMB_ASSIGN_OR_RETURN(token.single_word, BoolAt(json, "single_word", path, false));
  PLUMB_ASSIGN_OR_RETURN(token.lstrip, BoolAt(json, "lstrip", path, false));
  PLUMB_ASSIGN_OR_RETURN(token.rstrip, BoolAt(json, "rstrip", path, false));
  PLUMB_ASSIGN_OR_RETURN(token.normalized, BoolAt(json, "normalized", path, !token.special));
  return token;
}

absl::Status CheckDecoder(const Json& json) {
  const Json* decoder = MemberOf(json, "decoder");
  if (decoder != nullptr && MemberOf(*decoder, "type") != nullptr &&
      *MemberOf(*decoder, "type") == "ByteLevel") {
    return absl::OkStatus();
  }
  return Mismatch("tokenizer.json", "decoder", "{\"type\": \"ByteLevel\"}", decoder);
}

class BpeTokenizer final : public Tokenizer {
 public:
  static absl::StatusOr<std::unique_ptr<BpeTokenizer>> Create(const Json& json) {
    const Json* model = MemberOf(json, "model");
    if (model == nullptr) return Mismatch("tokenizer.json", "model", "an object", model);
    PLUMB_ASSIGN_OR_RETURN(Bpe bpe, Bpe::Create(*model));
    PLUMB_RETURN_IF_ERROR(CheckDecoder(json));
    const Json* pre = MemberOf(json, "pre_tokenizer");
    if (pre == nullptr) return Mismatch("tokenizer.json", "pre_tokenizer", "an object", pre);
    auto tokenizer = std::unique_ptr<BpeTokenizer>(new BpeTokenizer(std::move(bpe)));
    PLUMB_ASSIGN_OR_RETURN(tokenizer->pre_tokenizer_, PreTokenizer::Create(*pre));
    if (const Json* normalizer = MemberOf(json, "normalizer")) {
      PLUMB_ASSIGN_OR_RETURN(tokenizer->normalizer_, Normalizer::Create(*normalizer));
    }
    PLUMB_RETURN_IF_ERROR(tokenizer->ReadAddedTokens(json));
    tokenizer->ReadDroppedBytes();
    return tokenizer;
  }

  std::vector<int32_t> Encode(absl::string_view text, SpecialTokens special) const override {
    const std::string valid = ReplaceBrokenUtf8(text);
    if (special == SpecialTokens::kParse) {
      return EncodeValid(valid, {}, raw_tokens_, normalized_tokens_, nullptr);
    }
    return EncodeValid(valid, {{0, SIZE_MAX}}, raw_tokens_, normalized_tokens_, &special_ids_);
  }

  std::vector<int32_t> EncodeMixed(absl::string_view text,
                                   const std::vector<ByteSpan>& plain) const override {
    const std::string valid = ReplaceBrokenUtf8(text);
    if (valid != text) return Encode(text, SpecialTokens::kText);
    std::vector<TextRange> ranges;
    for (const ByteSpan& span : plain) {
      if (span.begin < span.end) ranges.push_back({span.begin, span.end});
    }
    return EncodeValid(valid, ranges, mixed_tokens_, ordinary_normalized_tokens_, &special_ids_);
  }

  std::string TokenBytes(int32_t id, bool skip_special) const override {
    const auto it = tokens_.find(id);
    if (it == tokens_.end() || (skip_special && it->second.special)) return "";
    return it->second.bytes;
  }

  std::string Decode(const std::vector<int32_t>& ids, bool skip_special) const override {
    std::string bytes;
    for (const int32_t id : ids) bytes += TokenBytes(id, skip_special);
    return ReplaceBrokenUtf8(bytes);
  }

  int vocab_size() const override { return highest_id_ + 1; }
  bool is_special(int32_t id) const override { return special_ids_.contains(id); }
  const std::vector<uint8_t>& dropped_bytes() const override { return dropped_bytes_; }

 private:
  explicit BpeTokenizer(Bpe bpe) : bpe_(std::move(bpe)) {
    for (const auto& [token, id] : bpe_.vocabulary()) {
      tokens_[id].bytes = FromByteLevel(token);
      highest_id_ = std::max(highest_id_, id);
    }
  }

  absl::Status ReadAddedTokens(const Json& json) {
    if (MemberOf(json, "added_tokens") == nullptr) return absl::OkStatus();
    PLUMB_ASSIGN_OR_RETURN(const Json* list, ArrayAt(json, "added_tokens", "tokenizer.json"));
    for (size_t i = 0; i < list->size(); ++i) {
      PLUMB_ASSIGN_OR_RETURN(const AddedToken token, ParseAddedToken((*list)[i], i));
      if (token.content.empty()) continue;
      const auto in_vocabulary = bpe_.Find(token.content);
      const bool taken = !in_vocabulary.has_value() && tokens_.contains(token.id);
      if (taken || in_vocabulary.value_or(token.id) != token.id) {
        return Mismatch(absl::StrCat("added_tokens[", i, "]"), "id",
                        taken ? "an id that no other token has"
                              : absl::StrCat("the vocabulary's id ", *in_vocabulary, " of ",
                                             ShortDump(Json(token.content))),
                        MemberOf((*list)[i], "id"));
      }
      AddToken(token);
    }
    return absl::OkStatus();
  }

  void AddToken(const AddedToken& token) {
    highest_id_ = std::max(highest_id_, token.id);
    if (token.special) special_ids_.insert(token.id);
    const bool normalizes = token.normalized && normalizer_ != nullptr;
    const std::string pattern = normalizes ? normalizer_->Apply(token.content) : token.content;
    tokens_[token.id] = {FromByteLevel(pattern), token.special};
    (token.normalized ? normalized_tokens_ : raw_tokens_).Add(token, pattern);
    // Spans of a mixed text do not survive normalization: its special tokens are found before it.
    if (token.normalized && !token.special) {
      ordinary_normalized_tokens_.Add(token, pattern);
    } else {
      mixed_tokens_.Add(token, token.content);
    }
  }

  void ReadDroppedBytes() {
    if (bpe_.has_unknown_token()) return;
    for (int byte = 0; byte < 256; ++byte) {
      const char raw = static_cast<char>(byte);
      if (!bpe_.Find(ToByteLevel(absl::string_view(&raw, 1))).has_value()) {
        dropped_bytes_.push_back(static_cast<uint8_t>(byte));
      }
    }
  }

  std::vector<int32_t> EncodeValid(const std::string& text, const std::vector<TextRange>& plain,
                                   const AddedTokenMatcher& first, const AddedTokenMatcher& second,
                                   const absl::flat_hash_set<int32_t>* never_whole) const {
    // After the first cut a segment is wholly text, so plain or not no longer varies inside it for
    // the special tokens that `second` may hold.
    const std::vector<TextRange> rest =
        never_whole == nullptr ? std::vector<TextRange>{} : std::vector<TextRange>{{0, SIZE_MAX}};
    std::vector<int32_t> ids;
    for (const Segment& segment : first.Cut(text, plain)) {
      if (segment.id >= 0) {
        ids.push_back(segment.id);
        continue;
      }
      std::string part = text.substr(segment.range.begin, segment.range.end - segment.range.begin);
      if (normalizer_ != nullptr) part = normalizer_->Apply(std::move(part));
      for (const Segment& inner : second.Cut(part, rest)) {
        if (inner.id >= 0) {
          ids.push_back(inner.id);
        } else {
          EncodeText(part.substr(inner.range.begin, inner.range.end - inner.range.begin),
                     never_whole, ids);
        }
      }
    }
    return ids;
  }

  void EncodeText(std::string text, const absl::flat_hash_set<int32_t>* never_whole,
                  std::vector<int32_t>& ids) const {
    std::vector<std::string> pieces;
    pieces.push_back(std::move(text));
    pre_tokenizer_->Apply(pieces);
    for (const std::string& piece : pieces) bpe_.Encode(piece, never_whole, ids);
  }

  Bpe bpe_;
  std::unique_ptr<Normalizer> normalizer_;  // null: none
  std::unique_ptr<PreTokenizer> pre_tokenizer_;
  AddedTokenMatcher raw_tokens_;                  // found before normalization
  AddedTokenMatcher normalized_tokens_;           // found after it
  AddedTokenMatcher mixed_tokens_;                // the two, for EncodeMixed: raw and every special
  AddedTokenMatcher ordinary_normalized_tokens_;  // and what is left
  absl::flat_hash_map<int32_t, TokenInfo> tokens_;
  absl::flat_hash_set<int32_t> special_ids_;
  std::vector<uint8_t> dropped_bytes_;
  int32_t highest_id_ = -1;
};

}  // namespace

absl::StatusOr<std::unique_ptr<Tokenizer>> Tokenizer::Create(absl::string_view tokenizer_json) {
  const Json json = Json::parse(tokenizer_json.begin(), tokenizer_json.end(), nullptr,
                                /*allow_exceptions=*/false);
  if (json.is_discarded() || !json.is_object()) {
    return absl::InvalidArgumentError(
        absl::StrCat("tokenizer.json is not a JSON object (", tokenizer_json.size(), " bytes)"));
  }
  PLUMB_ASSIGN_OR_RETURN(std::unique_ptr<Tokenizer> tokenizer, BpeTokenizer::Create(json));
  return tokenizer;
}

std::string IncrementalDecoder::Push(int32_t id) {
  pending_ += tokenizer_->TokenBytes(id, skip_special_);
  const size_t ready = pending_.size() - IncompleteTail(pending_);
  std::string text = ReplaceBrokenUtf8(absl::string_view(pending_).substr(0, ready));
  pending_.erase(0, ready);
  return text;
}

std::string IncrementalDecoder::Finish() {
  std::string text = ReplaceBrokenUtf8(pending_);
  pending_.clear();
  return text;
}

}  // namespace plumbline
