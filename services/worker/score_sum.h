// The result of a SCORE cell from its windows, which finish in any order on several threads.
#pragma once

#include <cstdint>
#include <mutex>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "plumbline/v1/cell.pb.h"
#include "services/engine/engine.h"

namespace plumbline {

class ScoreSum {
 public:
  // `frame` has what is known before any window ran: key, prompt digest and tokens.
  ScoreSum(v1::CellResult frame, size_t windows)
      : frame_(std::move(frame)), parts_(windows), waiting_(windows) {}

  // Once a window; true for the last one.
  bool Add(size_t window, const absl::StatusOr<SequenceResult>& result);

  // After the last window. The sum of all windows in their order, whatever order they finished in;
  // the status of one that failed; or, where a NaN or an infinity reached the logits of one,
  // NONFINITE without a likelihood: what came before it is no score of the text.
  v1::CellResult Take();

 private:
  struct Part {
    double nll = 0;
    int64_t tokens = 0;
  };

  v1::CellResult frame_;
  std::mutex mutex_;
  std::vector<Part> parts_;  // guarded by mutex_, as all below
  size_t waiting_;
  bool finite_ = true;
  absl::Status status_;
  int64_t elements_ = 0, quantized_ = 0;
};

}  // namespace plumbline
