// Runs cells. The sync loop knows this interface alone, so its tests need no engine.
#pragma once

#include <functional>
#include <memory>
#include <string>

#include "plumbline/v1/cell.pb.h"
#include "plumbline/v1/work.pb.h"
#include "services/worker/calibration_source.h"
#include "services/worker/engine_runner.h"
#include "services/worker/model_catalog.h"

namespace plumbline {

class CellExecutor {
 public:
  // Called exactly once for each started cell that is not dropped; may run on another thread, also
  // before Start returns. A failure of the work is inside the result's status.
  using Done = std::function<void(v1::CellResult)>;
  virtual ~CellExecutor() = default;

  virtual void Start(const std::string& cell_key, const v1::CellSpec& spec, Done done) = 0;
  // The cell's result is no longer wanted; `done` may still come.
  virtual void Drop(const std::string& cell_key) = 0;
};

class EngineCellExecutor final : public CellExecutor {
 public:
  // None owned; all outlive the executor.
  EngineCellExecutor(const ModelCatalog* catalog, EngineRunner* runner,
                     CalibrationSource* calibrations)
      : catalog_(catalog), runner_(runner), calibrations_(calibrations) {}

  void Start(const std::string& cell_key, const v1::CellSpec& spec, Done done) override;
  void Drop(const std::string& cell_key) override;

 private:
  absl::Status StartGenerate(const std::string& cell_key, const v1::CellSpec& spec,
                             const CatalogEntry& entry, const Done& done);
  absl::Status StartScore(const std::string& cell_key, const v1::CellSpec& spec,
                          const CatalogEntry& entry, const Done& done);
  void Submit(const std::string& cell_key, const CatalogEntry& entry, SequenceRequest request,
              EngineRunner::Done finish);
  void Forget(const std::string& cell_key);

  const ModelCatalog* const catalog_;
  EngineRunner* const runner_;
  CalibrationSource* const calibrations_;
  std::mutex mutex_;
  std::map<std::string, std::vector<uint64_t>>
      running_;  // cell key -> sequences; guarded by mutex_
};

// The wire form of an answer. `text` and the prompt's facts come from the caller.
v1::CellResult ToCellResult(const SequenceResult& result, const TextModel& text);

}  // namespace plumbline
