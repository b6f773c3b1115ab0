// Statistics that come in place of raw blocks: their checks and their digest.
#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <string>

#include "absl/status/status.h"
#include "plumbline/v1/capture.pb.h"

namespace plumbline {

// The checks of statistics against their header, one layer after the other.
class StatisticsChecker {
 public:
  explicit StatisticsChecker(const v1::CaptureHeader& header);  // checked; copied

  // InvalidArgument naming layer, field and place: a layer that the header does not ask statistics
  // of or that came before, sizes that do not fit, numbers that are not finite or that contradict
  // each other: absmax, minimum, maximum, mean and variance of a channel, counts of a head and its
  // tokens or largest magnitude, so that channels in another order do not pass unseen.
  absl::Status Check(const v1::LayerStats& stats);
  // InvalidArgument naming the first missing layer, or one whose tokens differ from those of the
  // raw blocks of a layer, where there are any.
  absl::Status CheckComplete(std::optional<uint64_t> raw_tokens) const;

 private:
  v1::CaptureHeader header_;
  std::map<uint32_t, uint64_t> tokens_;  // of the layers seen
};

// SHA-256 over what Record takes of it.
std::string StatisticsDigest(const v1::LayerStats& stats);

}  // namespace plumbline
