// Files and folders of prompts.
#include <utility>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "services/common/digest.h"
#include "services/common/files.h"
#include "services/common/status_macros.h"
#include "services/prompts/prompt_builder.h"
#include "services/prompts/prompt_set.h"

namespace plumbline {
namespace {

using prompts_internal::PromptBuilder;

std::string BaseName(const std::string& path) {
  const size_t slash = path.find_last_of('/');
  return slash == std::string::npos ? path : path.substr(slash + 1);
}

std::string Extension(const std::string& path) {
  const std::string name = BaseName(path);
  const size_t dot = name.find_last_of('.');
  return dot == std::string::npos ? "" : name.substr(dot + 1);
}

std::string Stem(const std::string& path) {
  const std::string name = BaseName(path);
  return name.substr(0, name.find_last_of('.'));
}

bool IsPromptExtension(absl::string_view extension) {
  return extension == "csv" || extension == "jsonl" || extension == "txt";
}

absl::Status AddRows(absl::string_view bytes, const std::string& format, PromptBuilder* builder,
                     LoadReport* report) {
  constexpr absl::string_view kBom = "\xEF\xBB\xBF";
  if (absl::StartsWith(bytes, kBom)) {
    bytes.remove_prefix(kBom.size());
    report->had_bom = true;
  }
  PLUMB_RETURN_IF_ERROR(prompts_internal::CheckFileBytes(bytes, builder->where()));
  if (format == "csv") return prompts_internal::AddCsvRows(bytes, builder, report);
  if (format == "jsonl") return prompts_internal::AddJsonlRows(bytes, builder, report);
  return prompts_internal::AddTextRows(bytes, builder, report);
}

absl::StatusOr<std::string> FormatOf(const std::string& path, const LoadOptions& options) {
  const std::string format = options.format.empty() ? Extension(path) : options.format;
  if (IsPromptExtension(format)) return format;
  return absl::InvalidArgumentError(absl::StrCat(
      path, ": prompt files are csv, jsonl or txt, got '", format, "'; name the format"));
}

}  // namespace

absl::StatusOr<PromptSet> ParsePromptText(absl::string_view bytes, const std::string& where,
                                          const LoadOptions& options) {
  PLUMB_ASSIGN_OR_RETURN(const std::string format, FormatOf(where, options));
  LoadReport report;
  report.file_sha256 = Sha256Hex(bytes);
  PromptBuilder builder(where, options.set_name.empty() ? Stem(where) : options.set_name, options);
  PLUMB_RETURN_IF_ERROR(AddRows(bytes, format, &builder, &report));
  return builder.Finish(std::move(report));
}

absl::StatusOr<PromptSet> LoadPromptFile(const std::string& path, const LoadOptions& options) {
  PLUMB_RETURN_IF_ERROR(FormatOf(path, options).status());
  if (DirectoryExists(path)) {
    return absl::InvalidArgumentError(absl::StrCat(path, ": is a folder, expected a file"));
  }
  PLUMB_ASSIGN_OR_RETURN(const std::string bytes, ReadFile(path, kMaxPromptFileBytes));
  return ParsePromptText(bytes, path, options);
}

absl::StatusOr<PromptSet> LoadPromptFolder(const std::string& path, const LoadOptions& options) {
  PLUMB_ASSIGN_OR_RETURN(const std::vector<std::string> names, ListDirectory(path));
  const std::string set_name = options.set_name.empty() ? Stem(path) : options.set_name;
  PromptSet all;
  all.name = set_name;
  DigestBuilder files("prompt-folder/1");
  absl::flat_hash_set<std::string> ids;
  for (const std::string& name : names) {
    if (!IsPromptExtension(Extension(name))) continue;
    LoadOptions one = options;
    // Generated ids carry the file's name; prompts of one folder otherwise clash at row 1.
    one.set_name = Stem(name);
    PLUMB_ASSIGN_OR_RETURN(PromptSet part, LoadPromptFile(JoinPath(path, name), one));
    files.Add(name, part.report.file_sha256);
    all.report.format = part.report.format;
    all.report.comment_lines += part.report.comment_lines;
    all.report.blank_lines += part.report.blank_lines;
    all.report.had_bom |= part.report.had_bom;
    for (Prompt& prompt : part.prompts) {
      if (!ids.insert(prompt.id).second) {
        return absl::InvalidArgumentError(absl::StrCat(JoinPath(path, name), ": id '", prompt.id,
                                                       "' is used in another file of the set"));
      }
      prompt.set = set_name;
      all.prompts.push_back(std::move(prompt));
    }
  }
  if (all.prompts.empty()) {
    return absl::InvalidArgumentError(
        absl::StrCat(path, ": no csv, jsonl or txt file in this folder"));
  }
  absl::flat_hash_set<std::string> texts;
  for (const Prompt& prompt : all.prompts) {
    if (!texts.insert(NormalizedText(prompt)).second) ++all.report.repeated_texts;
  }
  all.report.rows = static_cast<int64_t>(all.prompts.size());
  all.report.file_sha256 = files.Finish();
  all.digest = CanonicalDigest(all.prompts);
  return all;
}

}  // namespace plumbline
