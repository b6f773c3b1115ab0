#include "services/engine/batch/scheduler.h"

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"

namespace plumbline {

Scheduler::Scheduler(const SchedulerOptions& options, ReusableLayers reusable)
    : options_(options), reusable_(std::move(reusable)) {}

absl::Status Scheduler::Add(SequenceNeed need) {
  if (need.kv_bytes > options_.kv_pool_bytes) {
    return absl::ResourceExhaustedError(absl::StrCat(
        "sequence ", need.id, " needs ", need.kv_bytes, " bytes of KV cache, the pool has ",
        options_.kv_pool_bytes, ": shorten prompt or answer, or raise kv_pool_bytes"));
  }
  if (!ids_.insert(need.id).second) {
    return absl::AlreadyExistsError(absl::StrCat("sequence ", need.id, " is active"));
  }
  waiting_.push_back(std::move(need));
  return absl::OkStatus();
}

absl::Status Scheduler::Remove(uint64_t id) {
  if (ids_.erase(id) == 0) {
    return absl::NotFoundError(absl::StrCat("sequence ", id, " is not active"));
  }
  const auto running = std::find_if(running_.begin(), running_.end(),
                                    [id](const Running& r) { return r.need.id == id; });
  if (running != running_.end()) {
    reserved_bytes_ -= running->need.kv_bytes;
    running_.erase(running);
  } else {
    waiting_.remove_if([id](const SequenceNeed& need) { return need.id == id; });
  }
  return absl::OkStatus();
}

std::vector<StepRun> Scheduler::NextStep() {
  std::vector<StepRun> runs;
  for (Running& sequence : running_) {
    runs.push_back({sequence.need.id, sequence.next_position, 1, false});
    ++sequence.next_position;
  }
  AdmitWaiting(&runs);
  return runs;
}

bool Scheduler::Fits(const SequenceNeed& need, int64_t wave_rows) const {
  return static_cast<int>(running_.size()) < options_.max_running &&
         reserved_bytes_ + need.kv_bytes <= options_.kv_pool_bytes &&
         (wave_rows == 0 || wave_rows + need.prompt_rows <= options_.wave_rows);
}

// The waiting sequence of the candidate's prefix that shares the most layers.
Scheduler::Waiting::iterator Scheduler::Leader(Waiting::iterator candidate) {
  auto leader = candidate;
  for (auto it = std::next(candidate); it != waiting_.end(); ++it) {
    if (it->prefix_key == candidate->prefix_key && it->shared_layers > leader->shared_layers) {
      leader = it;
    }
  }
  return leader;
}

void Scheduler::Admit(Waiting::iterator it, std::vector<StepRun>* runs, int64_t* wave_rows) {
  runs->push_back({it->id, 0, it->prompt_rows, true});
  *wave_rows += it->prompt_rows;
  reserved_bytes_ += it->kv_bytes;
  const int64_t prompt_rows = it->prompt_rows;
  running_.push_back({std::move(*it), prompt_rows});
  waiting_.erase(it);
}

void Scheduler::AdmitWaiting(std::vector<StepRun>* runs) {
  int64_t wave_rows = 0;
  std::set<std::string> leading;  // prefixes whose leader runs in this very step
  for (auto it = waiting_.begin(); it != waiting_.end();) {
    const std::string key = it->prefix_key;
    const bool shares = !key.empty() && it->shared_layers > 0;
    if (shares && leading.count(key) > 0) {
      ++it;
      continue;
    }
    const bool leads = shares && led_keys_.count(key) == 0 && reusable_ != nullptr &&
                       reusable_(key) < it->shared_layers;
    const auto chosen = leads ? Leader(it) : it;
    if (!Fits(*chosen, wave_rows)) return;
    const auto next = chosen == it ? std::next(it) : it;
    Admit(chosen, runs, &wave_rows);
    if (leads) {
      leading.insert(key);
      led_keys_.insert(key);
    }
    it = next;
  }
  if (waiting_.empty()) led_keys_.clear();
}

}  // namespace plumbline
