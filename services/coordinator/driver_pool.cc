#include "services/coordinator/driver_pool.h"

#include "services/common/logging.h"

namespace plumbline {

std::shared_ptr<ExperimentDriver> DriverPool::Take(const std::string& id) {
  std::lock_guard<std::mutex> lock(mutex_);
  if (!busy_.insert(id).second) return nullptr;
  std::shared_ptr<ExperimentDriver>& driver = drivers_[id];
  if (driver == nullptr) driver = std::make_shared<ExperimentDriver>(id, deps_);
  return driver;
}

void DriverPool::PutBack(const std::string& id, bool ended) {
  std::lock_guard<std::mutex> lock(mutex_);
  busy_.erase(id);
  if (ended) drivers_.erase(id);
}

bool DriverPool::Round() {
  const auto experiments = deps_.store->ActiveExperiments();
  if (!experiments.ok()) {
    spdlog::error("store: {}", experiments.status().ToString());
    return false;
  }
  {
    // An experiment that was cancelled by a client leaves no last step behind.
    std::set<std::string> active;
    for (const ExperimentRecord& experiment : *experiments) active.insert(experiment.id);
    std::lock_guard<std::mutex> lock(mutex_);
    std::erase_if(drivers_, [&](const auto& entry) {
      return !active.contains(entry.first) && !busy_.contains(entry.first);
    });
  }
  bool progress = false;
  for (const ExperimentRecord& experiment : *experiments) {
    const std::shared_ptr<ExperimentDriver> driver = Take(experiment.id);
    if (driver == nullptr) continue;
    const auto outcome = driver->Step();
    if (!outcome.ok()) {
      spdlog::error("experiment {}: {}", experiment.id, outcome.status().ToString());
    }
    progress = progress || (outcome.ok() && *outcome == StepOutcome::kProgress);
    PutBack(experiment.id, outcome.ok() && *outcome == StepOutcome::kEnded);
  }
  return progress;
}

}  // namespace plumbline
