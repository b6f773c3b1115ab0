// The models a worker can serve: every bundle below its configured roots. Scanned once at start; a
// folder that looks like a bundle and is broken is an error, not a silent omission.
//
// Immutable after Create; safe from any thread.
#pragma once

#include <memory>
#include <string>
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
  ChatFormat chat;
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
  // checked here, digests when the engine loads the weights. InvalidArgument / DataLoss with the
  // folder; NotFound when no root holds a bundle.
  static absl::StatusOr<std::unique_ptr<ModelCatalog>> Create(
      const std::vector<std::string>& roots);

  const std::vector<CatalogEntry>& entries() const { return entries_; }

  // By digest, a prefix of it (at least 8 characters) or a name that one model alone has. NotFound
  // lists what there is; InvalidArgument when several match.
  absl::StatusOr<const CatalogEntry*> Find(const std::string& model) const;

 private:
  std::vector<CatalogEntry> entries_;
};

}  // namespace plumbline
