#include "services/worker/model_catalog.h"

#include <algorithm>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "services/common/files.h"
#include "services/common/logging.h"
#include "services/common/status_macros.h"
#include "services/engine/bundle/safetensors.h"

namespace plumbline {
namespace {

constexpr size_t kShortestDigestPrefix = 8;
constexpr int64_t kMaxJsonBytes = int64_t{256} << 20;

v1::ModelInfo InfoOf(const BundleManifest& manifest, const ModelConfig& config) {
  v1::ModelInfo info;
  info.set_name(manifest.name);
  info.set_model_digest(manifest.model_digest);
  info.set_family(config.family);
  info.set_source(manifest.source);
  info.set_license(manifest.license);
  info.set_num_layers(config.num_layers);
  info.set_num_heads(config.num_heads);
  info.set_num_kv_heads(config.num_kv_heads);
  info.set_head_dim(config.head_dim);
  info.set_hidden_size(config.hidden_size);
  info.set_vocab_size(config.vocab_size);
  info.set_max_context(config.max_context);
  int64_t weight_bytes = 0;
  for (const auto& [name, file] : manifest.files) {
    if (absl::EndsWith(name, ".safetensors")) weight_bytes += file.bytes;
  }
  info.set_weight_bytes(weight_bytes);
  info.set_raw_only(!manifest.has_chat_format());
  info.set_has_trained_on(manifest.has_trained_on());
  return info;
}

absl::StatusOr<CatalogEntry> LoadEntry(const std::string& dir) {
  CatalogEntry entry;
  entry.dir = dir;
  PLUMB_ASSIGN_OR_RETURN(const BundleManifest manifest, OpenBundle(dir, /*digests=*/false));
  auto text = std::make_shared<TextModel>();
  PLUMB_ASSIGN_OR_RETURN(const std::string config,
                         ReadFile(JoinPath(dir, "config.json"), kMaxJsonBytes));
  PLUMB_ASSIGN_OR_RETURN(text->config, ParseModelConfig(config));
  PLUMB_ASSIGN_OR_RETURN(const std::string tokenizer,
                         ReadFile(JoinPath(dir, "tokenizer.json"), kMaxJsonBytes));
  PLUMB_ASSIGN_OR_RETURN(text->tokenizer, Tokenizer::Create(tokenizer));
  if (manifest.has_chat_format()) {
    PLUMB_ASSIGN_OR_RETURN(const std::string chat,
                           ReadFile(JoinPath(dir, "chat_format.json"), kMaxJsonBytes));
    PLUMB_ASSIGN_OR_RETURN(text->chat, ChatFormat::Parse(chat));
  }
  // The headers of the weights; what is in them the engine sees when it loads them.
  PLUMB_RETURN_IF_ERROR(BundleWeights::Open(dir, manifest).status());
  entry.info = InfoOf(manifest, text->config);
  entry.text = std::move(text);
  return entry;
}

absl::StatusOr<std::vector<std::string>> BundleFolders(const std::string& root) {
  if (FileExists(JoinPath(root, "manifest.json"))) return std::vector<std::string>{root};
  PLUMB_ASSIGN_OR_RETURN(const std::vector<std::string> names, ListDirectory(root));
  std::vector<std::string> folders;
  for (const std::string& name : names) {
    const std::string folder = JoinPath(root, name);
    if (FileExists(JoinPath(folder, "manifest.json"))) folders.push_back(folder);
  }
  return folders;
}

}  // namespace

absl::StatusOr<std::unique_ptr<ModelCatalog>> ModelCatalog::Create(
    const std::vector<std::string>& roots) {
  auto catalog = std::make_unique<ModelCatalog>();
  for (const std::string& root : roots) {
    PLUMB_ASSIGN_OR_RETURN(const std::vector<std::string> folders, BundleFolders(root));
    for (const std::string& folder : folders) {
      absl::StatusOr<CatalogEntry> entry = LoadEntry(folder);
      if (!entry.ok()) {
        catalog->LeaveOut(folder, entry.status());
        continue;
      }
      const bool known = std::any_of(
          catalog->entries_.begin(), catalog->entries_.end(), [&](const CatalogEntry& other) {
            return other.info.model_digest() == entry->info.model_digest();
          });
      if (!known) catalog->entries_.push_back(*std::move(entry));
    }
  }
  if (catalog->entries_.empty() && !catalog->first_problem_.ok()) {
    return catalog->NothingLeft();
  }
  if (catalog->entries_.empty()) {
    return absl::NotFoundError(
        absl::StrCat("no model bundle below ", absl::StrJoin(roots, ", "),
                     ": make one with `plumb models import SOURCE --out DIR` or mend model_roots"));
  }
  return catalog;
}

void ModelCatalog::LeaveOut(const std::string& folder, const absl::Status& why) {
  spdlog::warn("model bundle {} is left out: {}", folder, std::string(why.message()));
  left_out_.push_back(absl::StrCat(folder, ": ", why.message()));
  if (first_problem_.ok()) first_problem_ = why;
}

absl::Status ModelCatalog::NothingLeft() const {
  return absl::Status(first_problem_.code(),
                      absl::StrCat("model bundle ", absl::StrJoin(left_out_, "\nmodel bundle ")));
}

absl::Status ModelCatalog::LeaveOutFirst(const absl::Status& why) {
  LeaveOut(entries_.front().dir, why);
  entries_.erase(entries_.begin());
  return entries_.empty() ? NothingLeft() : absl::OkStatus();
}

absl::StatusOr<const CatalogEntry*> ModelCatalog::Find(const std::string& model) const {
  std::vector<const CatalogEntry*> matches;
  std::vector<std::string> known;
  for (const CatalogEntry& entry : entries_) {
    known.push_back(absl::StrCat(entry.info.name(), " (", entry.info.model_digest(), ")"));
    const bool by_digest =
        model.size() >= kShortestDigestPrefix && absl::StartsWith(entry.info.model_digest(), model);
    if (by_digest || entry.info.name() == model) matches.push_back(&entry);
  }
  if (matches.size() == 1) return matches.front();
  if (matches.empty()) {
    return absl::NotFoundError(
        absl::StrCat("no model '", model, "' here; there is: ", absl::StrJoin(known, ", ")));
  }
  return absl::InvalidArgumentError(
      absl::StrCat("'", model, "' fits ", matches.size(),
                   " models; use more of the digest: ", absl::StrJoin(known, ", ")));
}

}  // namespace plumbline
