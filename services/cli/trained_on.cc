#include "services/cli/trained_on.h"

#include <algorithm>

#include "absl/strings/str_cat.h"
#include "services/common/digest.h"
#include "services/common/files.h"
#include "services/common/status_macros.h"
#include "services/engine/model_bundle.h"
#include "services/prompts/prompt_set.h"

namespace plumbline {

absl::StatusOr<TrainedOn> ReadTrainedOn(const std::string& model) {
  TrainedOn trained_on;
  trained_on.is_bundle = FileExists(JoinPath(model, "manifest.json"));
  if (!trained_on.is_bundle) return trained_on;
  PLUMB_ASSIGN_OR_RETURN(const BundleManifest manifest, OpenBundle(model, /*digests=*/false));
  if (!manifest.has_trained_on()) return trained_on;
  const std::string path = JoinPath(model, kTrainedOnFile);
  const std::string& listed = manifest.files.at(kTrainedOnFile).sha256;
  PLUMB_ASSIGN_OR_RETURN(const std::string found, Sha256HexOfFile(path));
  if (found != listed) {
    return absl::DataLossError(absl::StrCat(path, " has SHA-256 ", found, ", the manifest says ",
                                            listed, ": import the model again"));
  }
  PLUMB_ASSIGN_OR_RETURN(trained_on.text_hashes, LoadTextHashList(path));
  return trained_on;
}

std::string TrainedOnNote(const TrainedOn& trained_on, bool include,
                          const std::vector<std::string>& prompt_hashes) {
  if (!trained_on.is_bundle) {
    return "which prompts the model was trained on is listed in its bundle: to leave them out give "
           "the folder as --model, or a list as --exclude";
  }
  if (trained_on.text_hashes.empty()) return "";
  const auto listed =
      std::count_if(prompt_hashes.begin(), prompt_hashes.end(),
                    [&](const std::string& hash) { return trained_on.text_hashes.contains(hash); });
  return absl::StrCat(listed, " of ", prompt_hashes.size(),
                      include ? " prompts take part although the model was trained on them "
                                "(--include-trained-on)"
                              : " prompts are left out, for the model was trained on them "
                                "(--include-trained-on keeps them)");
}

}  // namespace plumbline
