// One thread that drives the engines of a worker. Sequences of cells, of direct calls and of
// captures share its continuous batch; the engine's invariance makes that harmless.
//
//   EngineRunner runner(CreateCpuEngine, options);
//   runner.Submit(entry, std::move(request), [](absl::StatusOr<SequenceResult> r) { ... });
//
// Thread safe. `done` runs on the runner's thread exactly once, unless the runner is destroyed or
// the sequence cancelled first; it must be short.
#pragma once

#include <condition_variable>
#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <thread>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "absl/status/statusor.h"
#include "services/engine/engine.h"
#include "services/worker/model_catalog.h"

namespace plumbline {

using EngineFactory =
    std::function<absl::StatusOr<std::unique_ptr<Engine>>(const EngineOptions& options)>;

class EngineRunner {
 public:
  using Done = std::function<void(absl::StatusOr<SequenceResult>)>;
  // What one step of one engine added, and how long it took. Runs on the runner's thread, before
  // the step's results are handed out.
  using StepObserver = std::function<void(const EngineStats& added, double seconds)>;
  // How many sequences are active, before and after the steps of a round; on the runner's thread.
  using ActiveObserver = std::function<void(int active)>;

  // options.bundle_dir is ignored: it comes from the entry. At most `max_loaded` engines stay in
  // memory; the one idle longest goes first.
  EngineRunner(EngineFactory factory, EngineOptions options, size_t max_loaded = 2,
               StepObserver on_step = nullptr, ActiveObserver on_active = nullptr);
  ~EngineRunner();  // drops what is active, without calling `done`
  // Ends the work while its owners still live: returns once every active sequence's `done` had
  // Cancelled, and answers later ones so. What `done` refers to may go afterwards.
  void Stop();
  EngineRunner(const EngineRunner&) = delete;
  EngineRunner& operator=(const EngineRunner&) = delete;

  // Returns the runner's id of the sequence; request.id is ignored.
  uint64_t Submit(const CatalogEntry& entry, SequenceRequest request, Done done);
  // No effect when it has finished.
  void Cancel(uint64_t id);

  // Loads the model's engine now and answers its numerics class.
  absl::StatusOr<std::string> NumericsClassOf(const CatalogEntry& entry);

  // Tokens a second of a short full batch, run now, its first steps left out. 0 where something
  // else runs on that engine or the batch fails: the rate is then learnt from real work.
  double ProbeRate(const CatalogEntry& entry);

  int active() const;
  // Tokens (prompt and answer) computed since the start, for the measured rate.
  int64_t tokens_computed() const;
  EngineStats stats() const;  // of all engines together, as of the last step

 private:
  struct Job {
    uint64_t id = 0;
    CatalogEntry entry;
    SequenceRequest request;
    Done done;
  };
  struct Loaded {
    std::unique_ptr<Engine> engine;
    absl::flat_hash_map<uint64_t, Done> running;
    uint64_t last_used = 0;
  };

  // What `ask` says of the entry's engine, which is loaded where it is not; on the engine thread.
  template <typename Answer>
  absl::StatusOr<Answer> OnEngine(const CatalogEntry& entry,
                                  const std::function<Answer(Loaded& loaded)>& ask);
  void Run();
  void StartJob(Job job, bool refuse);
  void StepAll();
  absl::StatusOr<std::vector<SequenceResult>> Step(Engine& engine) const;
  void Deliver(Loaded& loaded, std::vector<SequenceResult> results);
  void FailAll(Loaded& loaded, const absl::Status& status);
  void CancelAll();
  void DropCancelled(const std::vector<uint64_t>& ids);
  absl::StatusOr<Loaded*> Load(const CatalogEntry& entry);
  void EvictIdle();
  void RefreshStats();

  const EngineFactory factory_;
  const EngineOptions options_;
  const size_t max_loaded_;
  const StepObserver on_step_;
  const ActiveObserver on_active_;

  std::map<std::string, Loaded> loaded_;  // by model digest; engine thread alone
  EngineStats evicted_stats_;             // engine thread alone
  uint64_t clock_ = 0;                    // engine thread alone

  mutable std::mutex mutex_;
  std::condition_variable wake_;
  std::condition_variable idle_;              // in Stop: no sequence is active any more
  bool refusing_ = false;                     // guarded by mutex_
  bool stopping_ = false;                     // guarded by mutex_
  uint64_t next_id_ = 1;                      // guarded by mutex_
  int active_ = 0;                            // guarded by mutex_
  std::vector<Job> queue_;                    // guarded by mutex_
  std::vector<uint64_t> cancelled_;           // guarded by mutex_
  std::vector<std::function<void()>> tasks_;  // guarded by mutex_; run on the engine thread
  EngineStats stats_;                         // guarded by mutex_
  std::thread thread_;
};

}  // namespace plumbline
