// The public suite of 1,894 prompts: pins, counts, table.
#include <map>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "services/common/digest.h"
#include "services/common/files.h"
#include "services/common/status_macros.h"
#include "services/prompts/prompt_library.h"

namespace plumbline {
namespace {

constexpr char kFetchHint[] =
    "scripts/prompts/fetch_public.py --out DIR downloads the suite (or --from DIR copies it)";

LoadOptions OptionsFor(const PublicFile& file) {
  LoadOptions options;
  options.set_name = file.set_name;
  const absl::string_view name = file.set_name;
  if (name.substr(0, 7) == "custom-") {
    options.default_category = std::string(name.substr(7));
    options.default_expected = Expected::kRefuse;
  }
  return options;
}

absl::StatusOr<PromptSet> LoadPinned(const std::string& folder, const PublicFile& file) {
  const std::string path = JoinPath(folder, file.path);
  if (!FileExists(path)) {
    return absl::NotFoundError(absl::StrCat("no ", path, "; ", kFetchHint));
  }
  // Before it is read: what another file's rows lack is no news.
  PLUMB_ASSIGN_OR_RETURN(const std::string digest, Sha256HexOfFile(path));
  if (digest != file.sha256) {
    return absl::DataLossError(
        absl::StrCat(path, ": SHA-256 is ", digest, ", pinned is ", file.sha256, "; ", kFetchHint));
  }
  PLUMB_ASSIGN_OR_RETURN(PromptSet set, LoadPromptFile(path, OptionsFor(file)));
  if (set.report.rows != file.rows) {
    return absl::DataLossError(
        absl::StrCat(path, ": ", set.report.rows, " prompts, expected ", file.rows));
  }
  return set;
}

PublicSetReport ReportOf(const PublicFile& file, const PromptSet& set) {
  PublicSetReport report;
  report.set_name = set.name;
  report.path = file.path;
  report.sha256 = set.report.file_sha256;
  report.digest = set.digest;
  report.rows = set.report.rows;
  report.splits = CountSplits(set.prompts);
  report.repeated_texts = set.report.repeated_texts;
  std::map<std::string, int64_t> categories;
  for (const Prompt& prompt : set.prompts) ++categories[prompt.category];
  report.categories.assign(categories.begin(), categories.end());
  return report;
}

std::string TableLine(absl::string_view name, int64_t rows, const SplitCounts& splits) {
  return absl::StrFormat("%-18s %6d %6d %6d %11d %6d", name, rows, splits.count[0], splits.count[1],
                         splits.count[2], splits.count[3]);
}

}  // namespace

const std::vector<PublicFile>& PublicFiles() {
  static const auto* const files = new std::vector<PublicFile>{
      {"advbench.csv", "advbench",
       "6cd1a5c63c07610d7eb67307772ee5606017ee950b5770ab288a2c487489d3e1", 520, "MIT",
       "llm-attacks/llm-attacks, Zou et al. 2023"},
      {"harmbench.csv", "harmbench",
       "75d257b3e7428c52eb7b0154318f455af3e01b09a3794b5e2f3d36054f3c0e29", 320, "MIT",
       "centerforaisafety/HarmBench test split, Mazeika et al. 2024"},
      {"xstest.csv", "xstest", "11783fb294ed017473ee53c207d71f2161c7672c8d0b037501e78387f801cb5a",
       450, "CC-BY-4.0", "paul-rottger/xstest, R\xC3\xB6ttger et al. 2024"},
      {"ifeval.jsonl", "ifeval", "67ffeee0fcb87c317c5b08a2de85557b4a7e96ada6178aa645b4954fe4b53d49",
       541, "Apache-2.0", "google-research/instruction_following_eval, Zhou et al. 2023"},
      {"custom/refusal.txt", "custom-refusal",
       "976c8d100a8015287cd8b28c1ec988e6d56120bf95e47e4170a8be2f9c95c8df", 19, "MIT",
       "Adarsh321123/kv-quantization-alignment"},
      {"custom/privacy.txt", "custom-privacy",
       "587a888c4320735fea3135cad2e7e8801c4fc9f65c36ee0cc897f0b0900d8790", 21, "MIT",
       "Adarsh321123/kv-quantization-alignment"},
      {"custom/jailbreak.txt", "custom-jailbreak",
       "98ff593a57d39d5a011a5fce3e2c174df7f199da38a0a8e84e4825a200bb6a18", 23, "MIT",
       "Adarsh321123/kv-quantization-alignment"},
  };
  return *files;
}

absl::StatusOr<std::vector<PromptSet>> LoadPublicSuite(const std::string& folder) {
  std::vector<PromptSet> sets;
  for (const PublicFile& file : PublicFiles()) {
    PLUMB_ASSIGN_OR_RETURN(PromptSet set, LoadPinned(folder, file));
    sets.push_back(std::move(set));
  }
  return sets;
}

absl::StatusOr<PublicSuiteReport> VerifyPublicSuite(const std::string& folder) {
  PLUMB_ASSIGN_OR_RETURN(const std::vector<PromptSet> sets, LoadPublicSuite(folder));
  PublicSuiteReport report;
  std::vector<const PromptSet*> pointers;
  for (size_t i = 0; i < sets.size(); ++i) {
    report.sets.push_back(ReportOf(PublicFiles()[i], sets[i]));
    report.total += sets[i].report.rows;
    for (int split = 0; split < kSplitCount; ++split) {
      report.splits.count[split] += report.sets.back().splits.count[split];
    }
    pointers.push_back(&sets[i]);
  }
  report.duplicates = FindDuplicates(pointers);
  if (report.total != kPublicSuitePrompts) {
    return absl::DataLossError(
        absl::StrCat(folder, ": ", report.total, " prompts, expected ", kPublicSuitePrompts));
  }
  return report;
}

std::string FormatPublicSuiteReport(const PublicSuiteReport& report) {
  std::string out = absl::StrFormat("%-18s %6s %6s %6s %11s %6s\n", "set", "rows", "A", "B",
                                    "validation", "test");
  for (const PublicSetReport& set : report.sets) {
    absl::StrAppend(&out, TableLine(set.set_name, set.rows, set.splits));
    for (const auto& [category, count] : set.categories) {
      if (set.categories.size() > 1) absl::StrAppend(&out, "  ", category, " ", count);
    }
    absl::StrAppend(&out, "\n");
  }
  absl::StrAppend(&out, TableLine("total", report.total, report.splits), "\n");
  for (const DuplicateGroup& group : report.duplicates) {
    absl::StrAppend(&out, "same text:");
    for (const std::string& member : group.members) absl::StrAppend(&out, " ", member);
    absl::StrAppend(&out, "\n");
  }
  return out;
}

}  // namespace plumbline
