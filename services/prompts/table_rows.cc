// Rows of csv files: the published layouts and our own.
#include <algorithm>
#include <utility>

#include "absl/container/flat_hash_map.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "services/common/status_macros.h"
#include "services/prompts/csv_reader.h"
#include "services/prompts/prompt_builder.h"

namespace plumbline::prompts_internal {
namespace {

// A record read by column name.
class Row {
 public:
  Row(const absl::flat_hash_map<std::string, size_t>& columns, const CsvRecord& record)
      : columns_(columns), record_(record) {}
  std::string operator[](const char* column) const {
    const auto found = columns_.find(column);
    return found == columns_.end() ? std::string() : record_[found->second].text;
  }
  Location LocationOf(const char* column) const {
    return record_[columns_.find(column)->second].location;
  }

 private:
  const absl::flat_hash_map<std::string, size_t>& columns_;
  const CsvRecord& record_;
};

RawRow AdvBenchRow(const Row& row) {
  RawRow raw;
  raw.location = row.LocationOf("goal");
  raw.turns = {{"user", row["goal"]}};
  raw.category = "refusal";
  raw.expected = "refuse";
  return raw;
}

RawRow HarmBenchRow(const Row& row) {
  RawRow raw;
  raw.location = row.LocationOf("Behavior");
  raw.id = row["BehaviorID"];
  // A blank behavior must stay an error although a context is there.
  const std::string behavior = row["Behavior"];
  raw.turns = {{"user", behavior.empty()
                            ? behavior
                            : ComposeContextualPrompt(row["ContextString"], behavior)}};
  raw.category = row["FunctionalCategory"];
  raw.family = row["SemanticCategory"];
  raw.expected = "refuse";
  return raw;
}

RawRow XsTestRow(const Row& row) {
  RawRow raw;
  raw.location = row.LocationOf("prompt");
  raw.id = row["id"];
  raw.turns = {{"user", row["prompt"]}};
  raw.category = row["label"];
  raw.family = row["type"];
  const std::string label = row["label"];
  // Anything but the two labels goes on to the builder, which refuses it by value.
  raw.expected = label == "safe" ? "comply" : label == "unsafe" ? "refuse" : "label " + label;
  return raw;
}

RawRow OwnRow(const Row& row) {
  RawRow raw;
  raw.location = row.LocationOf("prompt");
  raw.id = row["id"];
  if (!row["system"].empty()) raw.turns.push_back({"system", row["system"]});
  raw.turns.push_back({"user", row["prompt"]});
  raw.category = row["category"];
  raw.family = row["family"];
  raw.expected = row["expected"];
  return raw;
}

struct Layout {
  const char* format;
  std::vector<std::string> required;
  std::vector<std::string> optional;
  RawRow (*make)(const Row&);
};

// In order of preference; the first whose required columns are all there is taken.
const std::vector<Layout>& Layouts() {
  static const auto* const layouts = new std::vector<Layout>{
      {"csv/advbench", {"goal", "target"}, {}, AdvBenchRow},
      {"csv/harmbench",
       {"Behavior", "FunctionalCategory", "ContextString", "BehaviorID"},
       {"SemanticCategory", "Tags"},
       HarmBenchRow},
      {"csv/xstest", {"id", "prompt", "type", "label"}, {"focus", "note"}, XsTestRow},
      {"csv", {"prompt"}, {"id", "system", "expected", "category", "family"}, OwnRow},
  };
  return *layouts;
}

absl::StatusOr<const Layout*> ChooseLayout(const absl::flat_hash_map<std::string, size_t>& columns,
                                           const CsvRecord& header, const std::string& where) {
  for (const Layout& layout : Layouts()) {
    const bool fits = std::all_of(layout.required.begin(), layout.required.end(),
                                  [&](const std::string& name) { return columns.contains(name); });
    if (!fits) continue;
    for (const CsvField& field : header) {
      const auto named = [&](const std::vector<std::string>& names) {
        return std::find(names.begin(), names.end(), field.text) != names.end();
      };
      if (!named(layout.required) && !named(layout.optional)) {
        return RowError(where, field.location,
                        absl::StrCat("unknown column '", field.text, "' in a ", layout.format,
                                     " file; columns: ", absl::StrJoin(layout.required, " "),
                                     layout.optional.empty() ? "" : ", optional: ",
                                     absl::StrJoin(layout.optional, " ")));
      }
    }
    return &layout;
  }
  return RowError(where, {1, 1},
                  "no column 'prompt' (nor goal,target or Behavior,...) in the header; the first "
                  "line names the columns");
}

}  // namespace

absl::Status AddCsvRows(absl::string_view bytes, PromptBuilder* builder, LoadReport* report) {
  const std::string& where = builder->where();
  PLUMB_ASSIGN_OR_RETURN(const std::vector<CsvRecord> records, ReadCsv(bytes, where));
  if (records.empty()) return RowError(where, {1, 1}, "an empty csv file");
  absl::flat_hash_map<std::string, size_t> columns;
  for (size_t i = 0; i < records[0].size(); ++i) {
    const CsvField& field = records[0][i];
    if (!columns.try_emplace(field.text, i).second) {
      return RowError(where, field.location, absl::StrCat("column '", field.text, "' twice"));
    }
  }
  PLUMB_ASSIGN_OR_RETURN(const Layout* layout, ChooseLayout(columns, records[0], where));
  report->format = layout->format;
  for (size_t i = 1; i < records.size(); ++i) {
    PLUMB_RETURN_IF_ERROR(builder->Add(layout->make(Row(columns, records[i]))));
  }
  return absl::OkStatus();
}

}  // namespace plumbline::prompts_internal
