// Reads .safetensors files: header checked in full before any use, data memory-mapped read-only.
//
// Safe on hostile bytes (fuzzed): lengths, offsets and shapes are checked for overflow; tensors may
// neither overlap, leave holes nor reach past the file.
//
//   PLUMB_ASSIGN_OR_RETURN(auto weights, BundleWeights::Open(dir, manifest));
//   PLUMB_ASSIGN_OR_RETURN(TensorView q, weights->Get("model.norm.weight", {hidden}));
#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "services/engine/model_bundle.h"

namespace plumbline {

enum class WeightDtype { kF32, kF16, kBf16 };
const char* WeightDtypeName(WeightDtype dtype);  // "F32" "F16" "BF16", as in the file
int WeightDtypeBytes(WeightDtype dtype);         // 4, 2, 2

struct TensorEntry {
  std::string name;
  WeightDtype dtype = WeightDtype::kF32;
  std::vector<int64_t> shape;  // row-major, outermost first; empty = scalar
  uint64_t begin = 0;          // byte offset from the start of the file
  uint64_t bytes = 0;
};

struct SafetensorsHeader {
  std::map<std::string, TensorEntry> tensors;
  std::map<std::string, std::string> metadata;  // "__metadata__"
};

// `file_start` holds at least the 8 length bytes and the JSON header of a file of `file_bytes`
// bytes. DataLoss: shorter than it promises. InvalidArgument: anything else, with tensor name and
// values.
absl::StatusOr<SafetensorsHeader> ParseSafetensorsHeader(absl::string_view file_start,
                                                         uint64_t file_bytes);

// A tensor inside a mapped file. `data` lives as long as the file object; it is aligned for its
// dtype.
struct TensorView {
  WeightDtype dtype = WeightDtype::kF32;
  std::vector<int64_t> shape;
  const void* data = nullptr;  // contiguous, row-major
  uint64_t bytes = 0;
};

// Gives the pages of a tensor back to the system once it has been copied; a later read maps them in
// again. What a load holds at once is then one tensor of the file, not all of it.
void DropPages(const TensorView& view);

// Immutable after Open, so safe from any thread. The file must not be changed while it is mapped.
class SafetensorsFile {
 public:
  // NotFound, PermissionDenied, DataLoss, InvalidArgument; every message starts with the path.
  static absl::StatusOr<std::unique_ptr<SafetensorsFile>> Open(const std::string& path);
  ~SafetensorsFile();
  SafetensorsFile(const SafetensorsFile&) = delete;
  SafetensorsFile& operator=(const SafetensorsFile&) = delete;

  const SafetensorsHeader& header() const { return header_; }
  TensorView View(const TensorEntry& entry) const;

 private:
  SafetensorsFile() = default;
  SafetensorsHeader header_;
  const char* map_ = nullptr;
  uint64_t map_bytes_ = 0;
};

// All weights of a bundle.
class BundleWeights {
 public:
  // Opens every *.safetensors file of the manifest. InvalidArgument when two files hold one name.
  static absl::StatusOr<std::unique_ptr<BundleWeights>> Open(const std::string& dir,
                                                             const BundleManifest& manifest);

  // NotFound: no such tensor. InvalidArgument: another shape. Both name the tensor and the values.
  absl::StatusOr<TensorView> Get(const std::string& name, const std::vector<int64_t>& shape) const;
  bool Has(const std::string& name) const { return where_.count(name) > 0; }
  std::vector<std::string> Names() const;  // sorted

 private:
  BundleWeights() = default;
  struct Location {
    const SafetensorsFile* file;
    const TensorEntry* entry;
  };
  std::vector<std::unique_ptr<SafetensorsFile>> files_;
  std::map<std::string, Location> where_;
};

// A bundle's config and weights, its digests checked if asked.
struct ModelFiles {
  ModelConfig config;
  std::unique_ptr<BundleWeights> weights;
};
absl::StatusOr<ModelFiles> OpenModelFiles(const std::string& bundle_dir, bool verify_digests);

}  // namespace plumbline
