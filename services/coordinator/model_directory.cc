#include "services/coordinator/model_directory.h"

#include <algorithm>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"

namespace plumbline {
namespace {

constexpr size_t kMinPrefix = 8;

bool Fits(const v1::ModelInfo& info, const std::string& wanted) {
  return info.name() == wanted || info.model_digest() == wanted ||
         (wanted.size() >= kMinPrefix && absl::StartsWith(info.model_digest(), wanted));
}

std::string NamesOf(const std::map<std::string, v1::ModelInfo>& models) {
  std::vector<std::string> names;
  for (const auto& [digest, info] : models) {
    names.push_back(absl::StrCat(info.name(), " (", digest.substr(0, 12), ")"));
  }
  return absl::StrJoin(names, ", ");
}

}  // namespace

bool HasModel(const v1::WorkerCapabilities& capabilities, const std::string& model_digest) {
  return std::any_of(capabilities.models().begin(), capabilities.models().end(),
                     [&](const v1::ModelInfo& m) { return m.model_digest() == model_digest; });
}

void ModelDirectory::Update(const std::string& worker_id,
                            const v1::WorkerCapabilities& capabilities) {
  const absl::Time now = clock_->Now();
  std::lock_guard<std::mutex> lock(mutex_);
  workers_[worker_id] = {capabilities, now};
}

void ModelDirectory::Remove(const std::string& worker_id) {
  std::lock_guard<std::mutex> lock(mutex_);
  workers_.erase(worker_id);
}

std::vector<const ModelDirectory::Entry*> ModelDirectory::Live() const {
  const absl::Time oldest = clock_->Now() - forget_after_;
  std::vector<const Entry*> live;
  for (const auto& [id, entry] : workers_) {
    if (entry.seen >= oldest) live.push_back(&entry);
  }
  return live;
}

absl::StatusOr<v1::ModelInfo> ModelDirectory::Resolve(const std::string& model) const {
  std::lock_guard<std::mutex> lock(mutex_);
  std::map<std::string, v1::ModelInfo> at_hand;  // by digest
  std::map<std::string, v1::ModelInfo> fitting;
  for (const Entry* entry : Live()) {
    for (const v1::ModelInfo& info : entry->capabilities.models()) {
      at_hand[info.model_digest()] = info;
      if (Fits(info, model)) fitting[info.model_digest()] = info;
    }
  }
  if (fitting.size() == 1) return fitting.begin()->second;
  if (fitting.empty()) {
    return absl::NotFoundError(
        absl::StrCat("no connected worker has the model '", model, "'; ",
                     at_hand.empty() ? "none is connected"
                                     : absl::StrCat("those connected offer ", NamesOf(at_hand))));
  }
  return absl::InvalidArgumentError(absl::StrCat(
      "the model '", model, "' fits several: ", NamesOf(fitting), "; give a longer digest"));
}

absl::StatusOr<v1::NumericsClass> ModelDirectory::PickClass(const std::string& model_digest) const {
  std::lock_guard<std::mutex> lock(mutex_);
  std::map<std::string, std::pair<int, v1::NumericsClass>> classes;
  for (const Entry* entry : Live()) {
    if (!HasModel(entry->capabilities, model_digest)) continue;
    auto& [count, numerics] = classes[entry->capabilities.numerics().id()];
    ++count;
    numerics = entry->capabilities.numerics();
  }
  const auto best = std::max_element(
      classes.begin(), classes.end(),
      [](const auto& a, const auto& b) { return a.second.first < b.second.first; });
  if (best == classes.end()) {
    return absl::NotFoundError(absl::StrCat("no live worker has model ", model_digest));
  }
  return best->second.second;
}

int ModelDirectory::CountWorkers(const std::string& model_digest,
                                 const std::string& numerics_class_id) const {
  std::lock_guard<std::mutex> lock(mutex_);
  int count = 0;
  for (const Entry* entry : Live()) {
    const bool fits = entry->capabilities.numerics().id() == numerics_class_id &&
                      HasModel(entry->capabilities, model_digest);
    if (fits) ++count;
  }
  return count;
}

uint64_t ModelDirectory::CellsAtOnce(const std::string& model_digest,
                                     const std::string& numerics_class_id) const {
  std::lock_guard<std::mutex> lock(mutex_);
  uint64_t cells = 0;
  for (const Entry* entry : Live()) {
    const bool fits = entry->capabilities.numerics().id() == numerics_class_id &&
                      HasModel(entry->capabilities, model_digest);
    if (fits) cells += entry->capabilities.max_cells() / 2;
  }
  return cells;
}

int ModelDirectory::CountLive() const {
  std::lock_guard<std::mutex> lock(mutex_);
  return static_cast<int>(Live().size());
}

bool ModelDirectory::OfferModels() const {
  std::lock_guard<std::mutex> lock(mutex_);
  const std::vector<const Entry*> live = Live();
  return std::any_of(live.begin(), live.end(),
                     [](const Entry* entry) { return entry->capabilities.models_size() > 0; });
}

double ModelDirectory::TokensPerSecond(const std::string& model_digest) const {
  std::lock_guard<std::mutex> lock(mutex_);
  double sum = 0;
  for (const Entry* entry : Live()) {
    if (HasModel(entry->capabilities, model_digest)) sum += entry->capabilities.tokens_per_second();
  }
  return sum;
}

}  // namespace plumbline
