// Statistics of one layer over the prompts of a capture, added in their order.
#pragma once

#include <cstdint>
#include <vector>

#include "plumbline/v1/capture.pb.h"
#include "services/engine/engine.h"

namespace plumbline {

class LayerStatsSum {
 public:
  // The next prompt's. All are of one layer.
  void Add(const MeasuredLayer& prompt);
  // As ActivationCapture.Record takes them. Precondition: a prompt was added.
  v1::LayerStats Stats() const;

 private:
  uint32_t prompts_ = 0;
  MeasuredLayer sum_;
  std::vector<double> key_absmax_sum_;  // over prompts
};

}  // namespace plumbline
