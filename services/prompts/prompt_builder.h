// Turns raw rows of any format into checked prompts. Internal to services/prompts.
#pragma once

#include <string>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "absl/container/flat_hash_set.h"
#include "absl/status/status.h"
#include "absl/strings/string_view.h"
#include "services/prompts/bytes_check.h"
#include "services/prompts/prompt_set.h"

namespace plumbline::prompts_internal {

struct RawRow {
  Location location;
  std::string id;  // empty: "<set>-<row, four digits>"; digits alone: "<set>-<digits>"
  std::vector<PromptTurn> turns;
  std::string category;
  std::string family;
  std::string expected;  // "", "refuse" or "comply"
};

class PromptBuilder {
 public:
  // `options` must outlive the builder; set_name is final.
  PromptBuilder(std::string where, std::string set_name, const LoadOptions& options);

  absl::Status Add(RawRow row);

  // InvalidArgument when no row was added. Sets digest, rows and repeated_texts.
  absl::StatusOr<PromptSet> Finish(LoadReport report);

  const std::string& where() const { return where_; }

 private:
  absl::Status CheckTurns(const RawRow& row) const;
  absl::Status CheckText(Location location, absl::string_view what, absl::string_view text) const;
  absl::Status CheckId(const RawRow& row, const std::string& id);

  std::string where_;
  std::string set_name_;
  const LoadOptions& options_;
  std::vector<Prompt> prompts_;
  absl::flat_hash_map<std::string, int64_t> line_of_id_;
  absl::flat_hash_set<std::string> texts_;
  int64_t repeated_ = 0;
};

// One set of rows each; the file's bytes passed CheckFileBytes. They fill format and line counts.
absl::Status AddCsvRows(absl::string_view bytes, PromptBuilder* builder, LoadReport* report);
absl::Status AddJsonlRows(absl::string_view bytes, PromptBuilder* builder, LoadReport* report);
absl::Status AddTextRows(absl::string_view bytes, PromptBuilder* builder, LoadReport* report);

}  // namespace plumbline::prompts_internal
