// The captures of one folder: ID.capture files (capture_file.h), found again after a restart.
#pragma once

#include <list>
#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "services/capture/capture_file.h"

namespace plumbline {

// Thread safe.
class CaptureStore {
 public:
  // Makes the folder (0700) if needed, removes unfinished files, reads the index of every capture.
  // A file that cannot be read is left alone and logged; its id counts as absent.
  static absl::StatusOr<std::unique_ptr<CaptureStore>> Open(const std::string& folder);

  // A writer whose file is no capture until Commit.
  absl::StatusOr<std::unique_ptr<CaptureWriter>> Begin(const v1::CaptureHeader& header);
  struct Committed {
    std::string digest;
    uint64_t bytes = 0;
    bool was_there = false;  // the same bytes had been recorded before
  };
  // AlreadyExists when the id is there with another digest; the message carries both.
  absl::StatusOr<Committed> Commit(CaptureWriter* writer);

  // By id or digest. NotFound.
  absl::StatusOr<std::shared_ptr<const CaptureIndex>> Find(const std::string& id_or_digest) const;
  std::vector<std::shared_ptr<const CaptureIndex>> List() const;  // by id
  absl::Status Delete(const std::string& id);                     // NotFound
  uint64_t total_bytes() const;

  // DataLoss when the bytes do not fit their digest. Precondition: index came from this store.
  absl::StatusOr<v1::ActivationBlock> ReadBlock(const CaptureIndex& index, uint32_t layer,
                                                uint32_t prompt) const;
  absl::StatusOr<v1::LayerStats> ReadStatistics(const CaptureIndex& index, uint32_t layer) const;

 private:
  explicit CaptureStore(std::string folder) : folder_(std::move(folder)) {}
  std::string PathOf(const std::string& id) const;

  const std::string folder_;
  mutable std::mutex mutex_;
  std::map<std::string, std::shared_ptr<const CaptureIndex>> captures_;  // by id; guarded by mutex_
  uint64_t next_temporary_ = 0;                                          // guarded by mutex_
};

}  // namespace plumbline
