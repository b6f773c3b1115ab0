#include "absl/strings/match.h"
#include "absl/strings/str_join.h"
#include "services/common/files.h"
#include "services/common/status_macros.h"
#include "services/engine/bundle/safetensors.h"

namespace plumbline {

absl::StatusOr<std::unique_ptr<BundleWeights>> BundleWeights::Open(const std::string& dir,
                                                                   const BundleManifest& manifest) {
  auto weights = std::unique_ptr<BundleWeights>(new BundleWeights());
  for (const auto& [name, unused] : manifest.files) {
    if (!absl::EndsWith(name, ".safetensors")) continue;
    const std::string path = JoinPath(dir, name);
    PLUMB_ASSIGN_OR_RETURN(std::unique_ptr<SafetensorsFile> file, SafetensorsFile::Open(path));
    for (const auto& [tensor, entry] : file->header().tensors) {
      if (!weights->where_.try_emplace(tensor, Location{file.get(), &entry}).second) {
        return absl::InvalidArgumentError(
            absl::StrCat(path, ": tensor \"", tensor, "\" is in another weight file too"));
      }
    }
    weights->files_.push_back(std::move(file));
  }
  return weights;
}

absl::StatusOr<TensorView> BundleWeights::Get(const std::string& name,
                                              const std::vector<int64_t>& shape) const {
  const auto it = where_.find(name);
  if (it == where_.end()) {
    return absl::NotFoundError(absl::StrCat("the weights lack tensor \"", name, "\""));
  }
  const TensorEntry& entry = *it->second.entry;
  if (entry.shape != shape) {
    return absl::InvalidArgumentError(
        absl::StrCat("tensor \"", name, "\" has shape [", absl::StrJoin(entry.shape, ","),
                     "], the config asks for [", absl::StrJoin(shape, ","), "]"));
  }
  return it->second.file->View(entry);
}

std::vector<std::string> BundleWeights::Names() const {
  std::vector<std::string> names;
  for (const auto& [name, unused] : where_) names.push_back(name);
  return names;
}

absl::StatusOr<ModelFiles> OpenModelFiles(const std::string& bundle_dir, bool verify_digests) {
  PLUMB_ASSIGN_OR_RETURN(const BundleManifest manifest, OpenBundle(bundle_dir, verify_digests));
  PLUMB_ASSIGN_OR_RETURN(const std::string config_json,
                         ReadFile(JoinPath(bundle_dir, "config.json")));
  ModelFiles files;
  PLUMB_ASSIGN_OR_RETURN(files.config, ParseModelConfig(config_json));
  PLUMB_ASSIGN_OR_RETURN(files.weights, BundleWeights::Open(bundle_dir, manifest));
  return files;
}

}  // namespace plumbline
