// Steps every active experiment, each by one thread at a time. Call Round from as many threads as
// experiments should conclude at once: a slow peer then holds up one study alone.
#pragma once

#include <map>
#include <memory>
#include <mutex>
#include <set>
#include <string>

#include "services/coordinator/experiment_driver.h"

namespace plumbline {

// Thread safe.
class DriverPool {
 public:
  explicit DriverPool(DriverDeps deps) : deps_(std::move(deps)) {}

  // One step of every active experiment that no other thread steps. True when one made progress.
  bool Round();

 private:
  std::shared_ptr<ExperimentDriver> Take(const std::string& id);  // null when another thread has it
  void PutBack(const std::string& id, bool ended);

  const DriverDeps deps_;
  std::mutex mutex_;
  std::map<std::string, std::shared_ptr<ExperimentDriver>> drivers_;  // guarded by mutex_
  std::set<std::string> busy_;                                        // guarded by mutex_
};

}  // namespace plumbline
