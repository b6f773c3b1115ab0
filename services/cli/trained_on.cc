#include "services/cli/trained_on.h"

#include <algorithm>

#include "absl/strings/str_cat.h"
#include "services/common/digest.h"
#include "services/common/files.h"
#include "services/common/status_macros.h"
#include "services/engine/model_bundle.h"
#include "services/prompts/prompt_set.h"

namespace plumbline {

absl::StatusOr<TextHashes> ReadTrainedOn(const std::string& model) {
  if (!FileExists(JoinPath(model, "manifest.json"))) return TextHashes();
  PLUMB_ASSIGN_OR_RETURN(const BundleManifest manifest, OpenBundle(model, /*digests=*/false));
  if (!manifest.has_trained_on()) return TextHashes();
  const std::string path = JoinPath(model, kTrainedOnFile);
  const std::string& listed = manifest.files.at(kTrainedOnFile).sha256;
  PLUMB_ASSIGN_OR_RETURN(const std::string found, Sha256HexOfFile(path));
  if (found != listed) {
    return absl::DataLossError(absl::StrCat(path, " has SHA-256 ", found, ", the manifest says ",
                                            listed, ": import the model again"));
  }
  return LoadTextHashList(path);
}

std::string TrainedOnNote(const TextHashes& trained_on, bool include,
                          const std::vector<std::string>& prompt_hashes) {
  if (trained_on.empty()) return "";
  const auto listed =
      std::count_if(prompt_hashes.begin(), prompt_hashes.end(),
                    [&](const std::string& hash) { return trained_on.contains(hash); });
  return absl::StrCat(listed, " of ", prompt_hashes.size(),
                      include ? " prompts take part although the model was trained on them "
                                "(--include-trained-on)"
                              : " prompts are left out, for the model was trained on them "
                                "(--include-trained-on keeps them)");
}

}  // namespace plumbline
