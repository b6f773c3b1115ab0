#include "services/coordinator/cell_queue.h"

#include <algorithm>

#include "absl/container/flat_hash_set.h"
#include "services/common/status_macros.h"

namespace plumbline {
namespace {

// Neighbours in the queue mostly share their prompt: a turn takes several, so that a lease keeps
// them together.
constexpr int kCellsATurn = 8;

struct Candidates {
  std::vector<OpenCell> cells;
  size_t next = 0;
  uint64_t under_way = 0;  // under lease or picked now
};

}  // namespace

absl::StatusOr<CellQueue::Picked> CellQueue::Pick(const v1::WorkerCapabilities& capabilities,
                                                  int max_cells, absl::Time now) const {
  Picked out;
  std::vector<std::string>& picked = out.keys;
  if (max_cells <= 0) return out;
  const std::string& numerics = capabilities.numerics().id();
  PLUMB_ASSIGN_OR_RETURN(const std::vector<ExperimentRecord> experiments,
                         store_->ActiveExperiments());
  std::vector<Candidates> queues;
  size_t open = 0;
  int workers = 1;
  for (const ExperimentRecord& experiment : experiments) {
    const std::string& model = experiment.model.model_digest();
    if (!experiment.bound || experiment.numerics.id() != numerics) continue;
    if (!HasModel(capabilities, model)) continue;
    out.studies = true;
    const int sharing = std::max(1, directory_->CountWorkers(model, numerics));
    workers = std::max(workers, sharing);
    Candidates queue;
    PLUMB_ASSIGN_OR_RETURN(
        queue.cells, store_->OpenCells(experiment.id, model, numerics, now, max_cells * sharing));
    if (queue.cells.empty()) continue;
    PLUMB_ASSIGN_OR_RETURN(queue.under_way, store_->CountLeasedCells(experiment.id));
    open += queue.cells.size();
    queues.push_back(std::move(queue));
  }
  const size_t share = (open + static_cast<size_t>(workers) - 1) / static_cast<size_t>(workers);
  const size_t wanted = std::min(static_cast<size_t>(max_cells), share);
  absl::flat_hash_set<std::string> taken;
  while (picked.size() < wanted && !queues.empty()) {
    const auto queue = std::min_element(
        queues.begin(), queues.end(),
        [](const Candidates& a, const Candidates& b) { return a.under_way < b.under_way; });
    for (int turn = 0; turn < kCellsATurn && picked.size() < wanted; ++turn) {
      if (queue->next == queue->cells.size()) break;
      const std::string& key = queue->cells[queue->next++].cell_key;
      ++queue->under_way;
      if (taken.insert(key).second) picked.push_back(key);
    }
    if (queue->next == queue->cells.size()) queues.erase(queue);
  }
  return out;
}

}  // namespace plumbline
