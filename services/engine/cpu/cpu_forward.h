// The forward pass on the CPU: embedding, blocks, head.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "services/engine/batch/forward.h"
#include "services/engine/cpu/layer_runner.h"
#include "services/engine/cpu/model_weights.h"
#include "services/engine/cpu/prefix_cache.h"

namespace plumbline {

template <typename T>
class CpuForward : public Forward {
 public:
  CpuForward(ModelWeights<T> weights, RopeTable rope, std::string numerics_class,
             int64_t prefix_cache_bytes);

  const ModelShape& shape() const override { return weights_.shape; }
  const std::string& numerics_class() const override { return numerics_class_; }
  absl::StatusOr<std::unique_ptr<SequenceState>> Open(const SequenceRequest& request) override;
  absl::StatusOr<std::vector<std::vector<LogitOutcome>>> Run(const std::vector<ForwardRun>& runs,
                                                             EngineStats* stats) override;
  int ReusableLayers(const std::string& prefix_key) const override {
    return prefix_cache_.Layers(prefix_key);
  }
  bool HasStem(const std::string& stem_key) const override {
    return stem_cache_.Layers(stem_key) > 0;
  }

  LayerRunner<T>& layer_runner() { return runner_; }

 private:
  using Outcomes = std::vector<std::vector<LogitOutcome>>;
  using Entry = typename PrefixCache<T>::Entry;
  // A run on its way through the blocks.
  struct Active {
    const ForwardRun* run;
    size_t index;     // in the caller's runs
    int start_layer;  // blocks below were reused
    int64_t skipped;  // first tokens whose rows were reused in every block
    LayerRun<T> rows;
    Entry saved;      // prompt states gathered for others
    int save_layers;  // how many blocks' states to gather; 0 = none
  };

  std::vector<Active> Arrange(const std::vector<ForwardRun>& runs);
  Active Start(const ForwardRun& run, size_t index);
  void Begin(Active* active);
  void Join(Active* active);
  void RunLayers(std::vector<Active>* actives, EngineStats* stats);
  void SaveHidden(Active* active);
  void SaveCache(int layer, Active* active);
  void KeepStates(Active* active);
  void KeepStem(const Active& active);
  void RunHead(const std::vector<Active>& actives, Outcomes* outcomes, EngineStats* stats);

  ModelWeights<T> weights_;
  std::string numerics_class_;
  LayerRunner<T> runner_;
  PrefixCache<T> prefix_cache_;  // whole prompts, unquantized
  PrefixCache<T> stem_cache_;    // first tokens, under a plan; hidden states as far as it is fp
  AlignedBuffer<T> hidden_;      // [rows, hidden_size]
  AlignedBuffer<T> gathered_, normed_, logits_;  // one tile of the head
};

}  // namespace plumbline
