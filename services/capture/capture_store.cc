#include "services/capture/capture_store.h"

#include <unistd.h>

#include <algorithm>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "services/capture/activation_block.h"
#include "services/common/files.h"
#include "services/common/logging.h"
#include "services/common/status_macros.h"

namespace plumbline {
namespace {

constexpr char kSuffix[] = ".capture";
constexpr char kTemporaryMark[] = ".unfinished.";

}  // namespace

std::string CaptureStore::PathOf(const std::string& id) const {
  return JoinPath(folder_, absl::StrCat(id, kSuffix));
}

absl::StatusOr<std::unique_ptr<CaptureStore>> CaptureStore::Open(const std::string& folder) {
  if (folder.empty()) return absl::InvalidArgumentError("data_dir is empty: name a folder");
  PLUMB_RETURN_IF_ERROR(Annotate(MakeDirectories(folder, 0700), "data_dir"));
  std::unique_ptr<CaptureStore> store(new CaptureStore(folder));
  PLUMB_ASSIGN_OR_RETURN(std::vector<std::string> names, ListDirectory(folder));
  for (const std::string& name : names) {
    const std::string path = JoinPath(folder, name);
    if (absl::StrContains(name, kTemporaryMark)) {
      unlink(path.c_str());
      continue;
    }
    if (!absl::EndsWith(name, kSuffix)) continue;
    absl::StatusOr<CaptureIndex> index = ReadCaptureIndex(path);
    if (!index.ok()) {
      spdlog::error("capture left aside: {}", std::string(index.status().message()));
      continue;
    }
    const std::string id = index->header.capture_id();
    if (absl::StrCat(id, kSuffix) != name) {
      spdlog::error("capture left aside: {} holds capture '{}'", path, id);
      continue;
    }
    store->captures_[id] = std::make_shared<const CaptureIndex>(*std::move(index));
  }
  return store;
}

absl::StatusOr<std::unique_ptr<CaptureWriter>> CaptureStore::Begin(
    const v1::CaptureHeader& header) {
  uint64_t number = 0;
  {
    std::lock_guard<std::mutex> lock(mutex_);
    number = next_temporary_++;
  }
  return CaptureWriter::Create(
      JoinPath(folder_, absl::StrCat(header.capture_id(), kTemporaryMark, getpid(), ".", number)),
      header);
}

absl::StatusOr<CaptureStore::Committed> CaptureStore::Commit(CaptureWriter* writer) {
  PLUMB_ASSIGN_OR_RETURN(CaptureIndex index, writer->Finish());
  const std::string id = index.header.capture_id();
  std::lock_guard<std::mutex> lock(mutex_);
  const auto present = captures_.find(id);
  if (present != captures_.end()) {
    if (present->second->digest == index.digest) {
      return Committed{index.digest, present->second->bytes, true};
    }
    return absl::AlreadyExistsError(
        absl::StrCat("capture '", id, "' was recorded with digest ", present->second->digest,
                     "; this one has ", index.digest, ": use another id, or delete it first"));
  }
  PLUMB_RETURN_IF_ERROR(writer->CommitTo(PathOf(id)));
  captures_[id] = std::make_shared<const CaptureIndex>(index);
  return Committed{index.digest, index.bytes, false};
}

absl::StatusOr<std::shared_ptr<const CaptureIndex>> CaptureStore::Find(
    const std::string& id_or_digest) const {
  std::lock_guard<std::mutex> lock(mutex_);
  const auto by_id = captures_.find(id_or_digest);
  if (by_id != captures_.end()) return by_id->second;
  for (const auto& [id, index] : captures_) {
    if (index->digest == id_or_digest) return index;
  }
  return absl::NotFoundError(absl::StrCat("no capture has the id or digest '", id_or_digest, "'; ",
                                          captures_.size(), " are kept"));
}

std::vector<std::shared_ptr<const CaptureIndex>> CaptureStore::List() const {
  std::lock_guard<std::mutex> lock(mutex_);
  std::vector<std::shared_ptr<const CaptureIndex>> all;
  for (const auto& [id, index] : captures_) all.push_back(index);
  return all;
}

absl::Status CaptureStore::Delete(const std::string& id) {
  std::lock_guard<std::mutex> lock(mutex_);
  if (captures_.erase(id) == 0) {
    return absl::NotFoundError(absl::StrCat("no capture has the id '", id, "'"));
  }
  const std::string path = PathOf(id);
  if (unlink(path.c_str()) != 0 && FileExists(path)) {
    return absl::UnavailableError(absl::StrCat("cannot remove ", path));
  }
  return absl::OkStatus();
}

uint64_t CaptureStore::total_bytes() const {
  std::lock_guard<std::mutex> lock(mutex_);
  uint64_t total = 0;
  for (const auto& [id, index] : captures_) total += index->bytes;
  return total;
}

absl::StatusOr<v1::ActivationBlock> CaptureStore::ReadBlock(const CaptureIndex& index,
                                                            uint32_t layer, uint32_t prompt) const {
  const auto found =
      std::find_if(index.blocks.begin(), index.blocks.end(), [&](const CaptureIndex::Block& block) {
        return block.layer == layer && block.prompt == prompt;
      });
  if (found == index.blocks.end()) {
    return absl::OutOfRangeError(absl::StrCat("capture '", index.header.capture_id(),
                                              "' has no layer ", layer, ", prompt ", prompt));
  }
  return ReadCaptureBlock(PathOf(index.header.capture_id()), *found);
}

absl::StatusOr<v1::LayerStats> CaptureStore::ReadStatistics(const CaptureIndex& index,
                                                            uint32_t layer) const {
  for (const CaptureIndex::Statistics& entry : index.statistics) {
    if (entry.layer != layer) continue;
    return ReadCaptureStatistics(PathOf(index.header.capture_id()), entry);
  }
  return absl::OutOfRangeError(
      absl::StrCat("capture '", index.header.capture_id(), "' has no statistics of layer ", layer));
}

}  // namespace plumbline
