#include "services/prompts/prompt_library.h"

#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <utility>

#include "absl/strings/ascii.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/strings/strip.h"
#include "nlohmann/json.hpp"
#include "services/common/files.h"
#include "services/common/status_macros.h"

namespace plumbline {
namespace {

using nlohmann::ordered_json;

constexpr absl::string_view kMetaSuffix = ".meta.json";
constexpr int64_t kMaxMetaBytes = 1 << 20;
constexpr int kPrivateFile = 0600;

std::string BaseName(absl::string_view path) {
  while (absl::ConsumeSuffix(&path, "/")) {
  }
  const size_t slash = path.find_last_of('/');
  return std::string(slash == absl::string_view::npos ? path : path.substr(slash + 1));
}

bool HasPromptExtension(absl::string_view name) {
  return absl::EndsWith(name, ".csv") || absl::EndsWith(name, ".jsonl") ||
         absl::EndsWith(name, ".txt");
}

absl::Status Remove(const std::string& path) {
  if (unlink(path.c_str()) == 0 || errno == ENOENT) return absl::OkStatus();
  return absl::UnavailableError(absl::StrCat("cannot remove ", path, ": ", strerror(errno)));
}

std::string MetaText(const PromptSetInfo& info) {
  ordered_json meta;
  meta["name"] = info.name;
  meta["digest"] = info.digest;
  meta["prompts"] = info.prompts;
  meta["licence"] = info.licence;
  meta["source"] = info.source;
  meta["imported_from"] = info.imported_from;
  meta["imported_sha256"] = info.imported_sha256;
  meta["imported_format"] = info.imported_format;
  return meta.dump(1, ' ', false, ordered_json::error_handler_t::replace) + "\n";
}

absl::StatusOr<PromptSetInfo> ReadMeta(const std::string& path, const std::string& name) {
  PLUMB_ASSIGN_OR_RETURN(const std::string bytes, ReadFile(path, kMaxMetaBytes));
  const ordered_json meta = ordered_json::parse(bytes, nullptr, /*allow_exceptions=*/false);
  const auto broken = [&](absl::string_view why) {
    return absl::DataLossError(absl::StrCat(path, ": ", why, "; import the set again"));
  };
  if (!meta.is_object()) return broken("not a JSON object");
  PromptSetInfo info;
  const std::pair<const char*, std::string*> texts[] = {{"name", &info.name},
                                                        {"digest", &info.digest},
                                                        {"licence", &info.licence},
                                                        {"source", &info.source},
                                                        {"imported_from", &info.imported_from},
                                                        {"imported_sha256", &info.imported_sha256},
                                                        {"imported_format", &info.imported_format}};
  for (const auto& [key, target] : texts) {
    if (!meta.contains(key) || !meta[key].is_string()) {
      return broken(absl::StrCat("member '", key, "' is missing or no text"));
    }
    *target = meta[key].get<std::string>();
  }
  if (!meta.contains("prompts") || !meta["prompts"].is_number_integer()) {
    return broken("member 'prompts' is missing or no number");
  }
  info.prompts = meta["prompts"].get<int64_t>();
  if (info.name != name) return broken(absl::StrCat("its name is '", info.name, "'"));
  return info;
}

absl::StatusOr<PromptSet> LoadEither(const std::string& path, const LoadOptions& options) {
  return DirectoryExists(path) ? LoadPromptFolder(path, options) : LoadPromptFile(path, options);
}

std::string NameFromPath(const std::string& path) {
  std::string name = BaseName(path);
  for (const absl::string_view extension : {".csv", ".jsonl", ".txt"}) {
    absl::string_view view = name;
    if (absl::ConsumeSuffix(&view, extension)) return std::string(view);
  }
  return name;
}

}  // namespace

absl::Status CheckPromptSetName(absl::string_view name) {
  bool good = !name.empty() && name.size() <= 64 &&
              (absl::ascii_islower(name[0]) || absl::ascii_isdigit(name[0]));
  for (const char c : name) {
    good &= absl::ascii_islower(c) || absl::ascii_isdigit(c) || c == '.' || c == '_' || c == '-';
  }
  if (good) return absl::OkStatus();
  return absl::InvalidArgumentError(
      absl::StrCat("prompt set name '", name,
                   "': use 1 to 64 of a-z 0-9 . _ - and begin with a letter or digit (--name)"));
}

PromptLibrary::PromptLibrary(std::string root) : root_(std::move(root)) {}

absl::StatusOr<std::vector<PromptSetInfo>> PromptLibrary::List() const {
  std::vector<PromptSetInfo> infos;
  if (!DirectoryExists(root_)) return infos;
  PLUMB_ASSIGN_OR_RETURN(const std::vector<std::string> names, ListDirectory(root_));
  for (const std::string& file : names) {
    absl::string_view name = file;
    if (!absl::ConsumeSuffix(&name, kMetaSuffix)) continue;
    PLUMB_ASSIGN_OR_RETURN(PromptSetInfo info, Info(name));
    infos.push_back(std::move(info));
  }
  return infos;
}

absl::StatusOr<PromptSetInfo> PromptLibrary::Info(absl::string_view name) const {
  PLUMB_RETURN_IF_ERROR(CheckPromptSetName(name));
  const std::string meta = JoinPath(root_, absl::StrCat(name, kMetaSuffix));
  if (!FileExists(meta)) {
    std::vector<std::string> known;
    if (DirectoryExists(root_)) {
      PLUMB_ASSIGN_OR_RETURN(const std::vector<std::string> files, ListDirectory(root_));
      for (absl::string_view file : files) {
        if (absl::ConsumeSuffix(&file, kMetaSuffix)) known.push_back(std::string(file));
      }
    }
    return absl::NotFoundError(absl::StrCat("no prompt set '", name, "' in ", root_, "; there is: ",
                                            known.empty() ? "none" : absl::StrJoin(known, ", ")));
  }
  PLUMB_ASSIGN_OR_RETURN(PromptSetInfo info, ReadMeta(meta, std::string(name)));
  const std::string folder = JoinPath(root_, name);
  info.path = DirectoryExists(folder) ? folder : folder + ".jsonl";
  return info;
}

absl::StatusOr<PromptSet> PromptLibrary::Open(absl::string_view name) const {
  PLUMB_ASSIGN_OR_RETURN(const PromptSetInfo info, Info(name));
  LoadOptions options;
  options.set_name = info.name;
  PLUMB_ASSIGN_OR_RETURN(PromptSet set, LoadEither(info.path, options));
  if (set.digest != info.digest || set.report.rows != info.prompts) {
    return absl::DataLossError(absl::StrCat(
        info.path, ": ", set.report.rows, " prompts with digest ", set.digest, ", imported were ",
        info.prompts, " with ", info.digest, "; import the set again (--replace)"));
  }
  return set;
}

absl::StatusOr<PromptSetInfo> PromptLibrary::Import(const std::string& path,
                                                    const ImportOptions& options) const {
  PromptSetInfo info;
  info.name = options.name.empty() ? NameFromPath(path) : options.name;
  PLUMB_RETURN_IF_ERROR(CheckPromptSetName(info.name));
  LoadOptions load = options.load;
  load.set_name = info.name;
  PLUMB_ASSIGN_OR_RETURN(const PromptSet set, LoadEither(path, load));
  info.path = JoinPath(root_, info.name + ".jsonl");
  info.digest = set.digest;
  info.prompts = set.report.rows;
  info.licence = options.licence;
  info.source = options.source;
  info.imported_from = BaseName(path);
  info.imported_sha256 = set.report.file_sha256;
  info.imported_format = set.report.format;
  const std::string meta = JoinPath(root_, absl::StrCat(info.name, kMetaSuffix));
  if (FileExists(meta) || DirectoryExists(JoinPath(root_, info.name))) {
    const absl::StatusOr<PromptSet> old = Open(info.name);
    if (old.ok() && old->digest == info.digest) return Info(info.name);
    if (!options.replace || DirectoryExists(JoinPath(root_, info.name))) {
      return absl::AlreadyExistsError(
          absl::StrCat("prompt set '", info.name, "' is in ", root_,
                       " with other content; choose another name, or replace it (--replace)"));
    }
    PLUMB_RETURN_IF_ERROR(Remove(meta));
  }
  PLUMB_RETURN_IF_ERROR(MakeDirectories(root_, 0700));
  PLUMB_RETURN_IF_ERROR(
      WriteFileAtomically(info.path, ToCanonicalJsonl(set.prompts), kPrivateFile));
  PLUMB_RETURN_IF_ERROR(WriteFileAtomically(meta, MetaText(info), kPrivateFile));
  return info;
}

absl::Status PromptLibrary::Verify() const {
  PLUMB_ASSIGN_OR_RETURN(const std::vector<PromptSetInfo> infos, List());
  for (const PromptSetInfo& info : infos) PLUMB_RETURN_IF_ERROR(Open(info.name).status());
  return absl::OkStatus();
}

bool IsPromptPath(absl::string_view name_or_path) {
  return absl::StrContains(name_or_path, '/') || HasPromptExtension(name_or_path);
}

absl::StatusOr<PromptSet> ResolvePromptSet(const std::string& name_or_path,
                                           const std::vector<std::string>& roots) {
  if (IsPromptPath(name_or_path)) return LoadEither(name_or_path, {});
  for (const std::string& root : roots) {
    absl::StatusOr<PromptSet> set = PromptLibrary(root).Open(name_or_path);
    if (set.ok() || !absl::IsNotFound(set.status())) return set;
  }
  return absl::NotFoundError(absl::StrCat("no prompt set '", name_or_path, "' in ",
                                          absl::StrJoin(roots, ", "),
                                          "; plumb prompts list shows what there is, a path to a "
                                          "csv, jsonl or txt file works too"));
}

}  // namespace plumbline
