// What the store holds, as plain values. No database type appears here or in store.h.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "absl/time/time.h"
#include "plumbline/v1/cell.pb.h"
#include "plumbline/v1/experiments.pb.h"
#include "plumbline/v1/model.pb.h"
#include "plumbline/v1/report.pb.h"
#include "plumbline/v1/study.pb.h"
#include "plumbline/v1/work.pb.h"

namespace plumbline {

// Of cells and of captures. The numbers are stored.
enum class WorkState { kOpen = 0, kLeased = 1, kStored = 2, kPoisoned = 3 };

struct ExperimentRecord {
  std::string id;
  int64_t number = 0;  // grows with creation: the order of lists
  std::string request_id;
  std::string request_digest;  // of the study as the client sent it
  v1::Study study;             // normalized
  v1::ExperimentState state = v1::EXPERIMENT_STATE_PENDING;
  int stage_index = 0;  // stages before it are concluded
  std::string stage;    // its name; empty after the last
  std::string message;
  absl::Time created = absl::InfinitePast();
  absl::Time updated = absl::InfinitePast();
  absl::Time ended = absl::InfinitePast();  // InfinitePast = still active
  bool bound = false;                       // model, numerics and judge_version are set for good
  v1::ModelInfo model;
  v1::NumericsClass numerics;
  std::string judge_version;
  uint64_t violations = 0;
  bool texts_purged = false;
};

struct NewExperiment {
  std::string id;
  std::string request_id;
  std::string request_digest;
  v1::Study study;
  std::vector<v1::Prompt> prompts;
  std::vector<v1::PromptSetSummary> prompt_sets;
  std::string first_stage;
  absl::Time now;
};

struct ExperimentPrompts {
  std::vector<v1::Prompt> prompts;
  std::vector<v1::PromptSetSummary> prompt_sets;
};

// A cell as an experiment needs it. One cell may serve several conditions and experiments.
struct CellMember {
  std::string key;
  v1::CellSpec spec;
  std::string condition;
  std::string prompt_id;
  std::string prompt_set;
  int64_t position = 0;  // cells are handed out in this order within a stage
};

struct StageCount {
  int stage_index = 0;
  std::string stage;
  uint64_t total = 0;     // different cells
  uint64_t finished = 0;  // poisoned, or stored and judged (SCORE cells need no verdict)
  uint64_t stored = 0;    // have a result, judged or not
  uint64_t poisoned = 0;
  uint64_t shared = 0;  // had their result before this experiment asked for them
};

// A row of ListResults: a cell of an experiment under one condition.
struct ResultRow {
  std::string cell_key;
  v1::CellSpec spec;
  std::string condition;
  std::string prompt_id;
  std::string prompt_set;
  std::string stage;
  WorkState state = WorkState::kOpen;
  std::string poison_reason;
  v1::CellResult result;  // when stored
  bool has_verdict = false;
  v1::Verdict verdict;
};

// A cell that is poisoned, or stored and judged (or in no need of a verdict).
struct FinishedCell {
  std::string cell_key;
  v1::CellResult result;
  v1::Verdict verdict;
  bool poisoned = false;
  std::string poison_reason;
};

struct UnjudgedCell {
  std::string cell_key;
  std::vector<v1::ChatTurn> turns;  // empty when purged
  v1::CellResult result;            // with the answer's text
  bool text_purged = false;
};

struct NewVerdict {
  std::string cell_key;
  std::string verdict_key;
  v1::Verdict verdict;
};

struct LeaseRecord {
  std::string lease_id;
  std::string worker_id;
  std::string incarnation_id;
  absl::Time expires = absl::InfinitePast();
  int resends = 0;  // times it was sent again because the worker did not list it
  bool audit = false;
  std::vector<std::string> cell_keys;  // without those that have ended
  std::string capture_id;              // when set, there are no cells
};

struct OpenCell {
  std::string cell_key;
  int attempts = 0;  // so far
};

struct NewResult {
  v1::CellResult result;  // status OK
  std::string digest;
  bool want_audit = false;     // run it once more on another worker
  std::string incarnation_id;  // the worker's process that computed it; empty = not known
};

// One process of a worker.
struct Incarnation {
  std::string incarnation_id;
  std::string worker_id;
  std::string version;  // of its build
  std::string machine;
};

enum class PutOutcome { kStored, kEqual, kConflict, kUnknownCell };
struct PutResultOutcome {
  PutOutcome outcome = PutOutcome::kUnknownCell;
  std::string other_worker;  // kConflict: who reported the stored result
};

enum class FailureKind {
  kRetry,      // counts as an attempt
  kPermanent,  // no other attempt can help
  kReturned,   // the worker gave it back unrun: not an attempt
};
struct WorkFailure {
  FailureKind kind = FailureKind::kRetry;
  std::string reason;
  int max_attempts = 3;
  absl::Time not_before = absl::InfinitePast();  // earliest next attempt
};
enum class FailOutcome { kRetry, kPoisoned, kAlreadyStored, kUnknownCell };

struct CaptureRecord {
  v1::CaptureTask task;
  WorkState state = WorkState::kOpen;
  int attempts = 0;
  std::string reason;  // of the last failure
  std::string digest;
  uint64_t tokens = 0;
};

struct QuarantinedWorker {
  std::string worker_id;
  std::string reason;
  absl::Time since;
};

struct ExperimentTotals {
  uint64_t cells = 0;  // different ones
  uint64_t cells_shared = 0;
  uint64_t cells_poisoned = 0;
  uint64_t tokens_generated = 0;
  uint64_t audited = 0;
  std::vector<v1::WorkerSummary> workers;  // by id
};

struct PurgeOutcome {
  uint64_t texts_removed = 0;
  uint64_t cells_removed = 0;
  std::vector<std::string>
      captures;  // that no unpurged experiment holds: delete them at the service
};

}  // namespace plumbline
