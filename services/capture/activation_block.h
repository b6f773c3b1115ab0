// What a well-formed capture is: the checks of its header and blocks. Used by the capture service
// and by quantsim for activations sent along.
#pragma once

#include <cstdint>
#include <map>
#include <set>
#include <utility>

#include "absl/status/status.h"
#include "plumbline/v1/capture.pb.h"

namespace plumbline {

inline constexpr uint32_t kMaxPromptTokens = 1 << 20;

// InvalidArgument naming the field and value: id (letters, digits, '-', '_', 1..64), sizes (kv
// heads 1..1024, heads a multiple of them, head_dim 1..1024), layers and statistics_layers (each
// named once in one of them, not both empty), prompts 1..100000, rotation (none, or one finite
// number a channel pair).
absl::Status CheckCaptureHeader(const v1::CaptureHeader& header);

// The checks of blocks against their header, one after the other.
class BlockChecker {
 public:
  explicit BlockChecker(const v1::CaptureHeader& header);  // checked; copied

  // InvalidArgument: a layer or prompt that the header does not have, one that came before, sizes
  // that do not fit, or a NaN or infinity, named by its place.
  absl::Status Check(const v1::ActivationBlock& block);
  // InvalidArgument naming the first missing block.
  absl::Status CheckComplete() const;
  // Of all blocks of a layer that came.
  uint64_t TokensOf(uint32_t layer) const;

 private:
  v1::CaptureHeader header_;
  std::set<std::pair<uint32_t, uint32_t>> seen_;  // (layer, prompt)
  std::map<uint32_t, uint64_t> tokens_;           // by layer
};

}  // namespace plumbline
