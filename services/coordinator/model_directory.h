// Which models live workers can run, in which numerics classes. Learned from Sync alone; nothing
// here is persisted: a restarted coordinator knows it again after one round of calls.
#pragma once

#include <cstdint>
#include <map>
#include <mutex>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "plumbline/v1/model.pb.h"
#include "plumbline/v1/work.pb.h"
#include "services/common/clock.h"

namespace plumbline {

// Thread safe.
class ModelDirectory {
 public:
  // A worker that has not called for `forget_after` does not count.
  ModelDirectory(Clock* clock, absl::Duration forget_after)
      : clock_(clock), forget_after_(forget_after) {}

  void Update(const std::string& worker_id, const v1::WorkerCapabilities& capabilities);
  void Remove(const std::string& worker_id);

  // `model`: a digest, a prefix of at least 8 characters, or a name. NotFound: no live worker has
  // it (yet); InvalidArgument: it fits several models. Both messages list the models at hand.
  absl::StatusOr<v1::ModelInfo> Resolve(const std::string& model) const;
  // The class with most workers for the model; ties go to the smaller id. NotFound when none is
  // live.
  absl::StatusOr<v1::NumericsClass> PickClass(const std::string& model_digest) const;
  // Live workers with this model and class.
  int CountWorkers(const std::string& model_digest, const std::string& numerics_class_id) const;
  // Cells that they compute at once: half of what they hold, the other half waits in reserve.
  uint64_t CellsAtOnce(const std::string& model_digest, const std::string& numerics_class_id) const;
  int CountLive() const;
  // Whether they offer any model at all.
  bool OfferModels() const;
  // Sum over live workers with the model; 0 = not measured yet.
  double TokensPerSecond(const std::string& model_digest) const;

 private:
  struct Entry {
    v1::WorkerCapabilities capabilities;
    absl::Time seen;
  };
  std::vector<const Entry*> Live() const;  // mutex_ held

  Clock* const clock_;
  const absl::Duration forget_after_;
  mutable std::mutex mutex_;
  std::map<std::string, Entry> workers_;  // guarded by mutex_
};

bool HasModel(const v1::WorkerCapabilities& capabilities, const std::string& model_digest);

}  // namespace plumbline
