// Byte-pair encoding: vocabulary and ranked merges of tokenizer.json's "model".
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "absl/container/flat_hash_set.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "nlohmann/json_fwd.hpp"

namespace plumbline {

constexpr int32_t kMaxTokenId = (1 << 24) - 1;

class Bpe {
 public:
  // InvalidArgument: an option that is not supported (named), ids out of range, merges that do not
  // resolve.
  static absl::StatusOr<Bpe> Create(const nlohmann::json& model);

  // Appends the ids of one pre-token. `never_whole`: ids that the ignore_merges short cut must not
  // give (null: none).
  void Encode(absl::string_view piece, const absl::flat_hash_set<int32_t>* never_whole,
              std::vector<int32_t>& ids) const;

  std::optional<int32_t> Find(absl::string_view token) const;
  const absl::flat_hash_map<std::string, int32_t>& vocabulary() const { return vocabulary_; }
  bool has_unknown_token() const { return unknown_id_ >= 0; }

 private:
  struct Merge {
    int32_t rank;
    int32_t id;
  };
  absl::Status ReadVocabulary(const nlohmann::json& model);
  absl::Status ReadMerges(const nlohmann::json& model);
  absl::Status AddMerge(const std::string& left, const std::string& right, int32_t rank);
  std::vector<int32_t> Characters(absl::string_view piece) const;
  const Merge* FindMerge(int32_t left, int32_t right) const;

  absl::flat_hash_map<std::string, int32_t> vocabulary_;
  absl::flat_hash_map<uint64_t, Merge> merges_;  // left id << 32 | right id
  int32_t unknown_id_ = -1;
  bool fuse_unknown_ = false;
  bool ignore_merges_ = false;
};

}  // namespace plumbline
