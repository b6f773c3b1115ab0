// One capture as one file: blocks and statistics as they came, then an index that is sealed with
// its SHA-256.
//
//   "PLUMBCAP" version:u32 | block bytes ... | index | index_offset:u64 index_sha256:64 hex
//   characters
//
// The index holds the header and of each block its layer, prompt, tokens, place and SHA-256; in
// version 2, of captures with statistics_layers, also place and SHA-256 of each layer's statistics.
// A file is written under a temporary name with mode 0600 and renamed when it is whole.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "plumbline/v1/capture.pb.h"

namespace plumbline {

struct CaptureIndex {
  struct Block {
    uint32_t layer = 0;
    uint32_t prompt = 0;
    uint32_t tokens = 0;
    uint64_t offset = 0;
    uint64_t keys_bytes = 0;
    uint64_t values_bytes = 0;
    uint64_t queries_bytes = 0;
    std::string sha256;  // of tokens, keys, values and queries
  };
  struct Statistics {
    uint32_t layer = 0;
    uint64_t offset = 0;
    uint64_t bytes = 0;  // of a serialized LayerStats
    std::string sha256;  // StatisticsDigest
  };
  v1::CaptureHeader header;
  std::vector<Block> blocks;           // in (layer, prompt) order
  std::vector<Statistics> statistics;  // by layer
  std::string digest;                  // RecordResponse.capture_digest
  uint64_t bytes = 0;                  // of the whole file
};

class CaptureWriter {
 public:
  // ResourceExhausted, PermissionDenied, ... for the temporary file.
  static absl::StatusOr<std::unique_ptr<CaptureWriter>> Create(const std::string& temporary_path,
                                                               const v1::CaptureHeader& header);
  ~CaptureWriter();  // removes the temporary file unless CommitTo worked

  absl::Status Append(const v1::ActivationBlock& block);
  absl::Status Append(const v1::LayerStats& statistics);
  uint64_t bytes() const { return offset_; }

  // Seals the file; the digest is known from here on.
  absl::StatusOr<CaptureIndex> Finish();
  // After Finish: the file appears under its name, whole.
  absl::Status CommitTo(const std::string& path);

 private:
  CaptureWriter(std::string path, int fd) : path_(std::move(path)), fd_(fd) {}
  absl::Status Write(const std::string& bytes);

  std::string path_;
  int fd_;
  uint64_t offset_ = 0;
  bool committed_ = false;
  CaptureIndex index_;
};

// DataLoss when the index does not fit its seal or the file is cut; InvalidArgument when it is no
// capture.
absl::StatusOr<CaptureIndex> ReadCaptureIndex(const std::string& path);

// DataLoss when the bytes do not fit their SHA-256.
absl::StatusOr<v1::ActivationBlock> ReadCaptureBlock(const std::string& path,
                                                     const CaptureIndex::Block& block);
absl::StatusOr<v1::LayerStats> ReadCaptureStatistics(const std::string& path,
                                                     const CaptureIndex::Statistics& statistics);

}  // namespace plumbline
