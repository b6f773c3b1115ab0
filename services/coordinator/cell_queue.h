// Which cells a worker gets next: those of its model and numerics class, in stage order, shared
// fairly between experiments and between the workers that could run them.
#pragma once

#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "plumbline/v1/work.pb.h"
#include "services/coordinator/model_directory.h"
#include "services/store/store.h"

namespace plumbline {

// Stateless beyond its pointers; thread safe.
class CellQueue {
 public:
  struct Picked {
    std::vector<std::string> keys;
    bool studies = false;  // some study that is under way may need the worker any moment
  };

  CellQueue(Store* store, const ModelDirectory* directory) : store_(store), directory_(directory) {}

  // At most `max_cells` keys. Experiments with fewer cells under lease come first. When little is
  // left, a worker gets its share of it, so that the others are not idle.
  absl::StatusOr<Picked> Pick(const v1::WorkerCapabilities& capabilities, int max_cells,
                              absl::Time now) const;

 private:
  Store* const store_;
  const ModelDirectory* const directory_;
};

}  // namespace plumbline
