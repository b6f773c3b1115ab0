#include "services/engine/batch/scheduler.h"

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"

namespace plumbline {

Scheduler::Scheduler(const SchedulerOptions& options, ReusableLayers reusable, HasStem has_stem)
    : options_(options), reusable_(std::move(reusable)), has_stem_(std::move(has_stem)) {}

absl::Status Scheduler::Add(SequenceNeed need) {
  if (need.kv_bytes > options_.kv_pool_bytes) {
    return absl::ResourceExhaustedError(
        absl::StrCat("the sequence needs ", need.kv_bytes, " bytes of KV cache, the pool has ",
                     options_.kv_pool_bytes, ": shorten prompt or answer, or raise kv_pool_bytes"));
  }
  const uint64_t id = need.id;
  Waiting entering;  // first, so that nothing is left of a sequence for which memory is short
  entering.push_back(std::move(need));
  if (!ids_.insert(id).second) {
    return absl::AlreadyExistsError(absl::StrCat("sequence ", id, " is active"));
  }
  waiting_.splice(waiting_.end(), entering);
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

bool Scheduler::Fits(const SequenceNeed& need, int64_t wave_rows, int64_t limit) const {
  return static_cast<int>(running_.size()) < options_.max_running &&
         reserved_bytes_ + need.kv_bytes <= options_.kv_pool_bytes &&
         (wave_rows == 0 || wave_rows + need.prompt_rows <= limit);
}

// An estimate: a stem may be gone when the prompt runs.
int64_t Scheduler::ComputedRows(const SequenceNeed& need) const {
  const bool held = need.stem_rows > 0 && has_stem_ != nullptr && has_stem_(need.stem_key);
  return held ? need.prompt_rows - need.stem_rows : need.prompt_rows;
}

// How many prompt rows the next step takes: what fills the chunks that it opens. Where nothing
// does, or only little of what waits, prompts wait, unless a quarter of the sequences' room lies
// idle, or what lay idle step by step while they waited comes to an eighth of the rows that they
// would leave empty. (A batch of full-length answers would else end with a whole answer's length
// for the few that were left over.)
int64_t Scheduler::PromptRows() {
  const int64_t chunk = options_.chunk_rows;
  if (chunk == 0) return options_.wave_rows;
  const int64_t decoding = static_cast<int64_t>(running_.size());
  const int64_t used = (decoding + chunk - 1) / chunk;
  int64_t rows = 0, best = 0, computed = 0, sequences = decoding, bytes = reserved_bytes_;
  int64_t left_empty = 0;
  for (const SequenceNeed& need : waiting_) {
    bytes += need.kv_bytes;
    if (sequences == options_.max_running || bytes > options_.kv_pool_bytes) break;
    if (rows > 0 && rows + need.prompt_rows > options_.wave_rows) break;
    ++sequences;
    rows += need.prompt_rows;
    computed += ComputedRows(need);
    const int64_t opened = (decoding + computed + chunk - 1) / chunk - used;
    const int64_t empty = (used + opened) * chunk - decoding - computed;
    left_empty = empty;
    if (opened == 0 || 8 * empty <= opened * chunk) best = rows;
  }
  if (best > 0 || rows == 0) {
    idle_rows_ = 0;
  } else {
    idle_rows_ += sequences - decoding;
    if (8 * idle_rows_ >= left_empty) {
      idle_rows_ = 0;
      return rows;
    }
  }
  const bool idle = 4 * (options_.max_running - decoding) >= options_.max_running;
  return idle && 2 * best < rows ? rows : best;
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

bool Scheduler::Waits(const SequenceNeed& need, const Leading& leading) const {
  return (need.shared_layers > 0 && leading.prefixes.count(need.prefix_key) > 0) ||
         leading.stems.count(need.stem_key) > 0;
}

bool Scheduler::LeadsPrefix(const SequenceNeed& need) const {
  return !need.prefix_key.empty() && need.shared_layers > 0 &&
         led_.prefixes.count(need.prefix_key) == 0 && reusable_ != nullptr &&
         reusable_(need.prefix_key) < need.shared_layers;
}

void Scheduler::Lead(const SequenceNeed& need, Leading* leading) {
  if (LeadsPrefix(need)) {
    leading->prefixes.insert(need.prefix_key);
    led_.prefixes.insert(need.prefix_key);
  }
  if (!need.stem_key.empty() && led_.stems.count(need.stem_key) == 0 && has_stem_ != nullptr &&
      !has_stem_(need.stem_key)) {
    leading->stems.insert(need.stem_key);
    led_.stems.insert(need.stem_key);
  }
}

void Scheduler::AdmitWaiting(std::vector<StepRun>* runs) {
  const int64_t limit = PromptRows();
  if (limit == 0) return;
  int64_t wave_rows = 0;
  Leading leading;
  for (auto it = waiting_.begin(); it != waiting_.end();) {
    if (Waits(*it, leading)) {
      ++it;
      continue;
    }
    auto chosen = LeadsPrefix(*it) ? Leader(it) : it;
    if (Waits(*chosen, leading)) chosen = it;
    if (!Fits(*chosen, wave_rows, limit)) return;
    const auto next = chosen == it ? std::next(it) : it;
    Lead(*chosen, &leading);
    Admit(chosen, runs, &wave_rows);
    it = next;
  }
  if (waiting_.empty()) led_ = {};
}

}  // namespace plumbline
