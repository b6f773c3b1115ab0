// Whole rows of logits from an engine whose results hold only the two best.
#pragma once

#include <map>
#include <memory>
#include <set>
#include <string>
#include <vector>

#include "services/engine/batch/forward.h"

namespace plumbline::parity {

// Row of each watched answer index: [vocab].
using LogitRows = std::map<int64_t, std::vector<float>>;

// Every call goes on to `inner`; tasks of watched rows ask for the whole vocabulary besides.
class RowWatcher : public Forward {
 public:
  explicit RowWatcher(std::unique_ptr<Forward> inner) : inner_(std::move(inner)) {}

  // Before the sequence is submitted. steps: indices in the answer, 0 = the token after the prompt.
  void Watch(uint64_t id, const std::set<int64_t>& steps) { wanted_[id] = steps; }
  LogitRows Take(uint64_t id) { return std::move(rows_[id]); }

  const ModelShape& shape() const override { return inner_->shape(); }
  const std::string& numerics_class() const override { return inner_->numerics_class(); }
  absl::StatusOr<std::unique_ptr<SequenceState>> Open(const SequenceRequest& request) override;
  absl::StatusOr<std::vector<std::vector<LogitOutcome>>> Run(const std::vector<ForwardRun>& runs,
                                                             EngineStats* stats) override;
  int ReusableLayers(const std::string& prefix_key) const override {
    return inner_->ReusableLayers(prefix_key);
  }
  bool HasStem(const std::string& stem_key) const override { return inner_->HasStem(stem_key); }

 private:
  bool Wanted(const ForwardRun& run, const LogitTask& task) const;

  std::unique_ptr<Forward> inner_;
  std::map<uint64_t, std::set<int64_t>> wanted_;
  std::map<const SequenceState*, uint64_t> ids_;  // a state's latest owner
  std::map<uint64_t, LogitRows> rows_;
};

}  // namespace plumbline::parity
