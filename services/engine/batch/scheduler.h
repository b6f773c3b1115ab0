// Decides which rows run in the next step: every running sequence's newest token, and the prompts
// of sequences that are let in. Knows numbers only: no tokens, no device.
//
// - Admission is in order of arrival, by three limits: running sequences, cache bytes (reserved for
// a
//   sequence's whole life, so a running sequence never lacks room) and prompt rows of one step. A
//   prompt never spans two steps, so one longer than the limit runs as the only prompt of its step.
// - Prefix policy: sequences with one prefix_key have equal states below their first private layer.
//   The one that shares most goes first; the others wait one step and then start from its states.
// - Stem policy: likewise sequences with one stem_key, whose prompts begin alike under one plan.
//
// Not thread safe.
#pragma once

#include <cstdint>
#include <functional>
#include <list>
#include <map>
#include <set>
#include <string>
#include <vector>

#include "absl/status/status.h"

namespace plumbline {

struct SchedulerOptions {
  int max_running = 256;
  int64_t kv_pool_bytes = 0;
  int64_t wave_rows = 512;  // prompt rows that one step takes
  // A device that computes whole chunks of rows, used or not; 0 = rows cost what they are. Prompts
  // then wait for a step that they fill well, as long as little of the sequences' room lies idle.
  int64_t chunk_rows = 0;
};

struct SequenceNeed {
  uint64_t id = 0;
  int64_t prompt_rows = 0;
  int64_t kv_bytes = 0;    // at its full length
  std::string prefix_key;  // empty = shares nothing
  int shared_layers = 0;   // layers below the first private one
  std::string stem_key;    // empty = shares no first tokens
  int64_t stem_rows = 0;   // of prompt_rows: those that a held stem saves
};

struct StepRun {
  uint64_t id = 0;
  int64_t first = 0;  // position of the first row
  int64_t rows = 0;
  bool prompt = false;
};

class Scheduler {
 public:
  // How many layers of a prefix key's states can be had now.
  using ReusableLayers = std::function<int(const std::string& prefix_key)>;
  using HasStem = std::function<bool(const std::string& stem_key)>;

  explicit Scheduler(const SchedulerOptions& options, ReusableLayers reusable = nullptr,
                     HasStem has_stem = nullptr);

  // ResourceExhausted: more cache than the pool has. AlreadyExists: the id is active.
  absl::Status Add(SequenceNeed need);
  // A finished or cancelled sequence; its room is free from the next step on. NotFound.
  absl::Status Remove(uint64_t id);

  // Generated tokens first, in order of admission, then prompts. Empty when nothing is active.
  std::vector<StepRun> NextStep();

  int active() const { return static_cast<int>(waiting_.size() + running_.size()); }
  int64_t reserved_bytes() const { return reserved_bytes_; }

 private:
  struct Running {
    SequenceNeed need;
    int64_t next_position;
  };
  using Waiting = std::list<SequenceNeed>;
  // Whose leaders run in the step that is being made: those that share with them wait for it.
  struct Leading {
    std::set<std::string> prefixes, stems;
  };

  bool Fits(const SequenceNeed& need, int64_t wave_rows, int64_t limit) const;
  int64_t PromptRows();
  int64_t ComputedRows(const SequenceNeed& need) const;
  Waiting::iterator Leader(Waiting::iterator candidate);
  bool Waits(const SequenceNeed& need, const Leading& leading) const;
  bool LeadsPrefix(const SequenceNeed& need) const;
  void Lead(const SequenceNeed& need, Leading* leading);
  void Admit(Waiting::iterator it, std::vector<StepRun>* runs, int64_t* wave_rows);
  void AdmitWaiting(std::vector<StepRun>* runs);

  SchedulerOptions options_;
  ReusableLayers reusable_;
  HasStem has_stem_;
  Waiting waiting_;
  std::list<Running> running_;
  std::set<uint64_t> ids_;
  Leading led_;  // whose leaders have run
  int64_t reserved_bytes_ = 0;
  int64_t idle_rows_ = 0;  // of sequences that could run, since the last prompt was let in
};

}  // namespace plumbline
