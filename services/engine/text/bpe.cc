#include "services/engine/text/bpe.h"

#include <queue>

#include "nlohmann/json.hpp"
#include "services/common/status_macros.h"
#include "services/engine/text/json_access.h"
#include "services/engine/text/utf8.h"

namespace plumbline {
namespace {

constexpr absl::string_view kPath = "model";

uint64_t PairKey(int32_t left, int32_t right) {
  return (static_cast<uint64_t>(static_cast<uint32_t>(left)) << 32) | static_cast<uint32_t>(right);
}

// A symbol of the piece; `id` < 0 once it was merged into its left neighbour.
struct Symbol {
  int32_t id;
  int previous, next;  // -1 at the ends
};

struct Candidate {
  int32_t rank;
  int position;
  int32_t id;
  bool operator>(const Candidate& other) const {
    return rank != other.rank ? rank > other.rank : position > other.position;
  }
};
using CandidateQueue =
    std::priority_queue<Candidate, std::vector<Candidate>, std::greater<Candidate>>;

absl::Status CheckOptions(const Json& model) {
  if (const Json* type = MemberOf(model, "type"); type != nullptr && *type != "BPE") {
    return Mismatch(kPath, "type", "\"BPE\"", type);
  }
  for (const char* key : {"continuing_subword_prefix", "end_of_word_suffix"}) {
    const Json* value = MemberOf(model, key);
    if (value != nullptr && *value != "") return Mismatch(kPath, key, "empty or null", value);
  }
  const Json* dropout = MemberOf(model, "dropout");
  if (dropout != nullptr && *dropout != 0.0)
    return Mismatch(kPath, "dropout", "0 or null", dropout);
  PLUMB_ASSIGN_OR_RETURN(const bool fallback, BoolAt(model, "byte_fallback", kPath, false));
  if (fallback) {
    return Mismatch(kPath, "byte_fallback", "false (only byte-level BPE is supported)",
                    MemberOf(model, "byte_fallback"));
  }
  return absl::OkStatus();
}

}  // namespace

absl::StatusOr<Bpe> Bpe::Create(const Json& model) {
  if (!model.is_object()) {
    return absl::InvalidArgumentError("tokenizer.json: model must be an object");
  }
  PLUMB_RETURN_IF_ERROR(CheckOptions(model));
  Bpe bpe;
  PLUMB_RETURN_IF_ERROR(bpe.ReadVocabulary(model));
  PLUMB_RETURN_IF_ERROR(bpe.ReadMerges(model));
  PLUMB_ASSIGN_OR_RETURN(bpe.ignore_merges_, BoolAt(model, "ignore_merges", kPath, false));
  PLUMB_ASSIGN_OR_RETURN(bpe.fuse_unknown_, BoolAt(model, "fuse_unk", kPath, false));
  if (const Json* unknown = MemberOf(model, "unk_token")) {
    const auto id = unknown->is_string() ? bpe.Find(unknown->get<std::string>()) : std::nullopt;
    if (!id.has_value()) return Mismatch(kPath, "unk_token", "a token of the vocabulary", unknown);
    bpe.unknown_id_ = *id;
  }
  return bpe;
}

absl::Status Bpe::ReadVocabulary(const Json& model) {
  const Json* vocab = MemberOf(model, "vocab");
  if (vocab == nullptr || !vocab->is_object() || vocab->empty()) {
    return Mismatch(kPath, "vocab", "an object of token: id", vocab);
  }
  absl::flat_hash_set<int32_t> seen;
  for (const auto& [token, id] : vocab->items()) {
    if (!id.is_number_integer() || id < 0 || id > kMaxTokenId) {
      return Mismatch("model.vocab", ShortDump(Json(token)),
                      absl::StrCat("an id from 0 to ", kMaxTokenId), &id);
    }
    if (!seen.insert(id.get<int32_t>()).second) {
      return Mismatch("model.vocab", ShortDump(Json(token)), "an id of its own", &id);
    }
    vocabulary_[token] = id.get<int32_t>();
  }
  return absl::OkStatus();
}

absl::Status Bpe::ReadMerges(const Json& model) {
  PLUMB_ASSIGN_OR_RETURN(const Json* merges, ArrayAt(model, "merges", kPath));
  int32_t rank = 0;
  for (const Json& merge : *merges) {
    const std::string path = absl::StrCat("merges[", rank, "]");
    if (merge.is_string()) {
      const std::string text = merge.get<std::string>();
      const size_t space = text.find(' ');
      if (space == std::string::npos || text.find(' ', space + 1) != std::string::npos) {
        return Mismatch(kPath, path, "two tokens with one space between", &merge);
      }
      PLUMB_RETURN_IF_ERROR(AddMerge(text.substr(0, space), text.substr(space + 1), rank));
    } else if (merge.is_array() && merge.size() == 2 && merge[0].is_string() &&
               merge[1].is_string()) {
      PLUMB_RETURN_IF_ERROR(
          AddMerge(merge[0].get<std::string>(), merge[1].get<std::string>(), rank));
    } else {
      return Mismatch(kPath, path, "\"left right\" or [\"left\", \"right\"]", &merge);
    }
    ++rank;
  }
  return absl::OkStatus();
}

absl::Status Bpe::AddMerge(const std::string& left, const std::string& right, int32_t rank) {
  int32_t ids[3];
  const std::string tokens[3] = {left, right, left + right};
  for (int i = 0; i < 3; ++i) {
    const auto id = Find(tokens[i]);
    if (!id.has_value()) {
      return absl::InvalidArgumentError(absl::StrCat("model.merges[", rank, "]: token ",
                                                     ShortDump(Json(tokens[i])),
                                                     " is not in the vocabulary"));
    }
    ids[i] = *id;
  }
  merges_[PairKey(ids[0], ids[1])] = {rank, ids[2]};
  return absl::OkStatus();
}

std::optional<int32_t> Bpe::Find(absl::string_view token) const {
  const auto it = vocabulary_.find(token);
  if (it == vocabulary_.end()) return std::nullopt;
  return it->second;
}

const Bpe::Merge* Bpe::FindMerge(int32_t left, int32_t right) const {
  const auto it = merges_.find(PairKey(left, right));
  return it == merges_.end() ? nullptr : &it->second;
}

std::vector<int32_t> Bpe::Characters(absl::string_view piece) const {
  std::vector<int32_t> ids;
  bool after_unknown = false;
  while (!piece.empty()) {
    const size_t bytes = DecodeUtf8(piece).bytes;
    if (const auto id = Find(piece.substr(0, bytes))) {
      ids.push_back(*id);
      after_unknown = false;
    } else if (unknown_id_ >= 0) {
      if (!(after_unknown && fuse_unknown_)) ids.push_back(unknown_id_);
      after_unknown = true;
    }
    piece.remove_prefix(bytes);
  }
  return ids;
}

void Bpe::Encode(absl::string_view piece, const absl::flat_hash_set<int32_t>* never_whole,
                 std::vector<int32_t>& ids) const {
  if (ignore_merges_) {
    const auto whole = Find(piece);
    if (whole.has_value() && (never_whole == nullptr || !never_whole->contains(*whole))) {
      ids.push_back(*whole);
      return;
    }
  }
  const std::vector<int32_t> characters = Characters(piece);
  const int count = static_cast<int>(characters.size());
  std::vector<Symbol> symbols(count);
  CandidateQueue queue;
  const auto propose = [&](int position) {
    const Symbol& left = symbols[position];
    const Merge* merge = FindMerge(left.id, symbols[left.next].id);
    if (merge != nullptr) queue.push({merge->rank, position, merge->id});
  };
  for (int i = 0; i < count; ++i) symbols[i] = {characters[i], i - 1, i + 1 < count ? i + 1 : -1};
  for (int i = 0; i + 1 < count; ++i) propose(i);
  while (!queue.empty()) {
    const Candidate best = queue.top();
    queue.pop();
    Symbol& left = symbols[best.position];
    if (left.id < 0 || left.next < 0) continue;
    Symbol& right = symbols[left.next];
    // A stale candidate counts when the pair now there gives the same token, as in `tokenizers`.
    const Merge* merge = FindMerge(left.id, right.id);
    if (merge == nullptr || merge->id != best.id) continue;
    left.id = best.id;
    left.next = right.next;
    right.id = -1;
    if (left.next >= 0) {
      symbols[left.next].previous = best.position;
      propose(best.position);
    }
    if (left.previous >= 0) propose(left.previous);
  }
  for (int i = 0; i >= 0 && i < count; i = symbols[i].next) ids.push_back(symbols[i].id);
}

}  // namespace plumbline
