// The models a worker can serve: every bundle below its configured roots. Scanned once at start. A
// bundle that cannot be used is left out, with the reason, so that it does not stop the others.
//
// Safe from any thread once LeaveOut is called no more.
#pragma once

#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/statusor.h"
#include "plumbline/v1/model.pb.h"
#include "services/engine/chat_format.h"
#include "services/engine/model_bundle.h"
#include "services/engine/tokenizer.h"

namespace plumbline {

// What turns text into tokens and back, for one model. Immutable.
struct TextModel {
  std::unique_ptr<Tokenizer> tokenizer;
  std::optional<ChatFormat> chat;  // none: raw prompts only
  ModelConfig config;
};

struct CatalogEntry {
  v1::ModelInfo info;
  std::string dir;
  std::shared_ptr<const TextModel> text;
};

class ModelCatalog {
 public:
  // roots: folders that are bundles themselves or hold bundles as direct subfolders. Sizes are
  // checked here, digests when the engine loads the weights. When no bundle is left: why each was
  // left out, with the first one's code (InvalidArgument, DataLoss, ...); NotFound when no root
  // holds a bundle at all.
  static absl::StatusOr<std::unique_ptr<ModelCatalog>> Create(
      const std::vector<std::string>& roots);
  ModelCatalog() = default;
  explicit ModelCatalog(std::vector<CatalogEntry> entries) : entries_(std::move(entries)) {}

  const std::vector<CatalogEntry>& entries() const { return entries_; }
  // "FOLDER: why" of each bundle that is not served.
  const std::vector<std::string>& left_out() const { return left_out_; }
  // Takes the first entry out, whose weights could not be loaded. An error when none is left.
  absl::Status LeaveOutFirst(const absl::Status& why);

  // By digest, a prefix of it (at least 8 characters) or a name that one model alone has. NotFound
  // lists what there is; InvalidArgument when several match.
  absl::StatusOr<const CatalogEntry*> Find(const std::string& model) const;

 private:
  void LeaveOut(const std::string& folder, const absl::Status& why);
  absl::Status NothingLeft() const;

  std::vector<CatalogEntry> entries_;
  std::vector<std::string> left_out_;
  absl::Status first_problem_;
};

}  // namespace plumbline
