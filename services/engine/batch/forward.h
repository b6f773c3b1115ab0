// What a device provides under the batch engine: the forward pass of a step over many sequences.
// The batch engine above it (admission, sampling results, stopping) is the same for every device.
#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "services/engine/engine.h"
#include "services/engine/sampling/logits.h"

namespace plumbline {

// A sequence's cache and quantizers on the device.
class SequenceState {
 public:
  virtual ~SequenceState() = default;
  virtual int64_t kv_bytes() const = 0;               // at its full length
  virtual const std::string& prefix_key() const = 0;  // empty = shares nothing
  virtual int shared_layers() const = 0;              // layers below the first private one
  // Names the plan and the first prompt tokens whose states others may start from; empty = none.
  virtual const std::string& stem_key() const = 0;
  virtual int64_t stem_tokens() const { return 0; }
  virtual int64_t kv_elements() const = 0;
  virtual int64_t kv_elements_quantized() const = 0;
  virtual std::vector<CapturedLayer> TakeCaptures() = 0;
  virtual std::vector<MeasuredLayer> TakeMeasures() = 0;
  // The outcomes of a run of `rows` rows count. Runs whose outcomes nobody wants are not told.
  virtual void Accepted(int64_t /*rows*/) {}
};

struct RowTask {
  int64_t row = 0;  // within its run
  LogitTask task;
};

// Stands for the token that the run before chose: a device that is ahead has it, the host has not.
constexpr int32_t kFedToken = -1;

// Consecutive tokens of one sequence in one step: its whole prompt, or one generated token.
struct ForwardRun {
  SequenceState* state = nullptr;
  std::span<const int32_t> tokens;
  int64_t first = 0;  // position of tokens[0]
  bool prompt = false;
  std::vector<RowTask> tasks;  // rows whose logits are read, ascending
};

class Forward {
 public:
  virtual ~Forward() = default;
  virtual const ModelShape& shape() const = 0;
  virtual const std::string& numerics_class() const = 0;

  // Cache memory is taken at the first run. InvalidArgument: the plan does not fit the model.
  virtual absl::StatusOr<std::unique_ptr<SequenceState>> Open(const SequenceRequest& request) = 0;

  // One step; outcomes[i][j] answers runs[i].tasks[j]. Adds its times and slots to `stats`.
  virtual absl::StatusOr<std::vector<std::vector<LogitOutcome>>> Run(
      const std::vector<ForwardRun>& runs, EngineStats* stats) = 0;

  // A device that is ahead of the host takes the next step before the outcomes of the last are
  // read: Start, Start, Finish, Start, Finish, ..., each Finish for the oldest step under way.
  // lookahead() is how many steps may be under way when another starts; 0: only Run is used.
  virtual int lookahead() const { return 0; }
  // Whether the device itself has the token that this task chooses, so that the next run of the
  // sequence may be given kFedToken. When not, the step is finished before the next one starts.
  virtual bool Feeds(const LogitTask& /*task*/) const { return false; }
  // `runs` need not outlive the call; their states must not be used by Finish, since they may be
  // gone by then.
  virtual absl::Status Start(const std::vector<ForwardRun>& /*runs*/, EngineStats* /*stats*/) {
    return absl::UnimplementedError("this device has no lookahead");
  }
  virtual absl::StatusOr<std::vector<std::vector<LogitOutcome>>> Finish(EngineStats* /*stats*/) {
    return absl::UnimplementedError("this device has no lookahead");
  }

  // Layers of a prefix key's prompt states that a new sequence could start from.
  virtual int ReusableLayers(const std::string& prefix_key) const = 0;
  // Whether a stem's states are held.
  virtual bool HasStem(const std::string& stem_key) const = 0;
};

}  // namespace plumbline
