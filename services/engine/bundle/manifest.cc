#include <sys/stat.h>

#include <set>

#include "absl/strings/match.h"
#include "services/common/digest.h"
#include "services/common/files.h"
#include "services/common/status_macros.h"
#include "services/engine/bundle/json_fields.h"
#include "services/engine/model_bundle.h"

namespace plumbline {
namespace {

constexpr absl::string_view kFormat = "plumbline-bundle/1";
constexpr absl::string_view kManifestName = "manifest.json";
constexpr int64_t kMaxManifestBytes = int64_t{16} << 20;
constexpr const char* kRequiredFiles[] = {"config.json", "tokenizer.json"};

bool IsSha256Hex(absl::string_view text) {
  if (text.size() != 64) return false;
  for (const char c : text) {
    if (!((c >= '0' && c <= '9') || (c >= 'a' && c <= 'f'))) return false;
  }
  return true;
}

// Plain names only: a name that could leave the folder or hide in it never reaches the file system.
bool IsPlainFileName(absl::string_view name) {
  if (name.empty() || name.size() > 255 || name[0] == '.' || name == kManifestName) return false;
  for (const char c : name) {
    const bool plain = (c >= '0' && c <= '9') || (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') ||
                       c == '.' || c == '_' || c == '-';
    if (!plain) return false;
  }
  return true;
}

absl::StatusOr<BundleFile> ParseFile(const std::string& name, const Json& entry) {
  const std::string path = absl::StrCat("files[\"", name, "\"].");
  if (!entry.is_object()) return WrongField(path, "an object", entry);
  BundleFile file;
  PLUMB_ASSIGN_OR_RETURN(file.sha256, StringField(entry, "sha256", path));
  if (!IsSha256Hex(file.sha256)) {
    return WrongField(absl::StrCat(path, "sha256"), "64 lower-case hexadecimal digits",
                      entry["sha256"]);
  }
  PLUMB_ASSIGN_OR_RETURN(file.bytes, IntegerField(entry, "bytes", path, 0, INT64_MAX));
  return file;
}

absl::Status ParseFiles(const Json& json, BundleManifest& manifest) {
  const Json* files = FindField(json, "files");
  if (files == nullptr) return absl::InvalidArgumentError("files is missing");
  if (!files->is_object()) return WrongField("files", "an object", *files);
  bool has_weights = false;
  for (const auto& [name, entry] : files->items()) {
    if (!IsPlainFileName(name)) {
      return WrongField("a name in files",
                        "a plain file name of letters, digits, '.', '_', '-', not starting with '.'"
                        " and not manifest.json",
                        Json(name));
    }
    PLUMB_ASSIGN_OR_RETURN(manifest.files[name], ParseFile(name, entry));
    has_weights = has_weights || absl::EndsWith(name, ".safetensors");
  }
  for (const char* required : kRequiredFiles) {
    if (manifest.files.count(required) == 0) {
      return absl::InvalidArgumentError(absl::StrCat("files lists no ", required));
    }
  }
  if (!has_weights) return absl::InvalidArgumentError("files lists no *.safetensors file");
  return absl::OkStatus();
}

std::string DigestOfFiles(const std::map<std::string, BundleFile>& files) {
  std::string text;
  for (const auto& [name, file] : files) {
    if (name != kTrainedOnFile) absl::StrAppend(&text, name, "\n", file.sha256, "\n");
  }
  return Sha256Hex(text);
}

absl::Status CheckFile(const std::string& path, const BundleFile& expected, bool digests) {
  struct stat info;
  if (lstat(path.c_str(), &info) != 0) {
    return absl::NotFoundError(
        absl::StrCat(path, " is listed in the manifest but is not there: import the model again"));
  }
  if (!S_ISREG(info.st_mode)) {
    return absl::InvalidArgumentError(absl::StrCat(path, " is not a regular file"));
  }
  if (info.st_size != expected.bytes) {
    return absl::DataLossError(absl::StrCat(path, " has ", info.st_size,
                                            " bytes, the manifest says ", expected.bytes,
                                            ": import the model again"));
  }
  if (!digests) return absl::OkStatus();
  PLUMB_ASSIGN_OR_RETURN(const std::string digest, Sha256HexOfFile(path));
  if (digest != expected.sha256) {
    return absl::DataLossError(absl::StrCat(path, " has SHA-256 ", digest, ", the manifest says ",
                                            expected.sha256, ": import the model again"));
  }
  return absl::OkStatus();
}

}  // namespace

absl::Status NeedsRaw(const std::string& model_name) {
  return absl::InvalidArgumentError(
      absl::StrCat("model ", model_name,
                   " has no chat format: it takes raw prompts only, as base models do. Give --raw "
                   "(decoding.raw), or import a model whose tokenizer has a chat template"));
}

absl::StatusOr<BundleManifest> ParseBundleManifest(const std::string& text) {
  PLUMB_ASSIGN_OR_RETURN(const Json json, ParseJsonObject(text, "the bundle manifest"));
  PLUMB_ASSIGN_OR_RETURN(const std::string format, StringField(json, "format", ""));
  if (format != kFormat) {
    return WrongField("format", absl::StrCat("\"", kFormat, "\""), json["format"]);
  }
  BundleManifest manifest;
  PLUMB_ASSIGN_OR_RETURN(manifest.name, StringField(json, "name", ""));
  PLUMB_ASSIGN_OR_RETURN(manifest.source, StringField(json, "source", ""));
  PLUMB_ASSIGN_OR_RETURN(manifest.license, StringField(json, "license", ""));
  PLUMB_ASSIGN_OR_RETURN(manifest.model_digest, StringField(json, "model_digest", ""));
  PLUMB_RETURN_IF_ERROR(ParseFiles(json, manifest));
  const std::string digest = DigestOfFiles(manifest.files);
  if (manifest.model_digest != digest) {
    return absl::DataLossError(absl::StrCat("model_digest is ", Shown(json["model_digest"]),
                                            ", but the listed files give ", digest));
  }
  return manifest;
}

absl::StatusOr<BundleManifest> OpenBundle(const std::string& dir, bool digests) {
  if (!DirectoryExists(dir)) {
    return absl::NotFoundError(
        absl::StrCat("no model bundle at ", dir, ": create one with `plumb models import`"));
  }
  const std::string path = JoinPath(dir, kManifestName);
  PLUMB_ASSIGN_OR_RETURN(const std::string text, ReadFile(path, kMaxManifestBytes));
  absl::StatusOr<BundleManifest> manifest = ParseBundleManifest(text);
  if (!manifest.ok()) return Annotate(manifest.status(), path);
  PLUMB_ASSIGN_OR_RETURN(const std::vector<std::string> names, ListDirectory(dir));
  for (const std::string& name : names) {
    if (name != kManifestName && manifest->files.count(name) == 0) {
      return absl::InvalidArgumentError(absl::StrCat(
          JoinPath(dir, name), " is not listed in the manifest: remove it or import again"));
    }
  }
  for (const auto& [name, file] : manifest->files) {
    PLUMB_RETURN_IF_ERROR(CheckFile(JoinPath(dir, name), file, digests));
  }
  return manifest;
}

}  // namespace plumbline
