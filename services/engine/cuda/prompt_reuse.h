// What prompts have in common is computed once: a step's runs with what each of them starts from,
// and what is kept of them for others.
//
// - A prompt whose states below the plan's first quantized layer are held starts at that layer
//   (PrefixStore).
// - A prompt whose first tokens are held under its plan skips their rows in every layer
// (StemStore).
//   One that keeps its hidden states for others needs those of the skipped rows too: the first
//   tokens are kept as a prompt of their own for that.
//
// Not thread safe.
#pragma once

#include <cstdint>
#include <memory>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "services/engine/batch/forward.h"
#include "services/engine/cuda/cache_space.h"
#include "services/engine/cuda/cuda_sequence.h"
#include "services/engine/cuda/prefix_store.h"
#include "services/engine/cuda/stem_store.h"

namespace plumbline {

// A run on its way through the blocks.
struct Placed {
  const ForwardRun* run = nullptr;
  size_t index = 0;  // in the caller's runs
  CudaSequence* sequence = nullptr;
  int64_t row = 0;                             // its first
  int64_t skipped = 0;                         // first tokens whose rows are reused in every block
  int start_layer = 0;                         // blocks below are reused
  const PrefixStore::Entry* reused = nullptr;  // from there
  const PrefixStore::Entry* stem_states = nullptr;  // of the skipped rows, for `saved`
  std::unique_ptr<PrefixStore::Entry> saved;        // states that are kept for others
  std::unique_ptr<PrefixStore::Entry> saved_stem;   // those of the first tokens, likewise
  bool measured_on_host = false;  // the device has no room for its statistics in this step
  int64_t rows() const { return static_cast<int64_t>(run->tokens.size()) - skipped; }
};

class PromptReuse {
 public:
  // All outlive it. row_bytes: of one row of hidden states.
  PromptReuse(CacheSpace* space, PrefixStore* prefixes, StemStore* stems, int64_t row_bytes)
      : space_(space), prefixes_(prefixes), stems_(stems), row_bytes_(row_bytes) {}

  // Takes room for new sequences, and gives the runs in the order of their rows: those that start
  // at a deeper block come later, so that the rows of every block are the first ones. Held states
  // never cost a sequence its room.
  absl::StatusOr<std::vector<Placed>> Place(const std::vector<ForwardRun>& runs);
  // When hidden, [rows, hidden], holds the inputs of block `layer` (BodyHooks::on_inputs).
  absl::Status TakeInputs(int layer, char* hidden, const std::vector<Placed>& placed);
  // After the last block.
  absl::Status Keep(std::vector<Placed>* placed);

 private:
  void Reserve(std::vector<Placed>* placed);
  absl::Status Begin(Placed* placed);
  std::shared_ptr<const CacheSpace::Stem> StemOf(Placed* placed);
  absl::Status SaveInputs(int layer, const char* rows, const Placed& placed);
  absl::Status KeepStem(const Placed& placed);

  CacheSpace* const space_;
  PrefixStore* const prefixes_;
  StemStore* const stems_;
  const int64_t row_bytes_;
};

}  // namespace plumbline
