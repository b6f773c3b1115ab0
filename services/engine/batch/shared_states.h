// What of a sequence's prompt states other sequences could start from, by its request alone.
#pragma once

#include <cstdint>
#include <string>

#include "services/engine/engine.h"

namespace plumbline {

struct SharedStates {
  // Names the prompt and its noise: sequences with one key have equal states below their first
  // quantized layer. Empty = shares nothing.
  std::string prefix_key;
  int shared_layers = 0;  // layers below the first quantized one
  // Names the plan and the first stem_tokens prompt tokens, whose states are the same whatever
  // follows them. Empty = none.
  std::string stem_key;
  int64_t stem_tokens = 0;
  // The prefix_key that these first tokens would have as a whole prompt; empty where either is.
  std::string stem_prefix_key;
};

// A captured or measured layer must be computed, so such a request takes no part in sharing; a
// scored text reads logits of its first rows, so it has no stem. Stems are whole multiples of
// tile_rows: how many rows the device computes together, so that one that is no number can spoil
// those before it.
SharedStates SharedStatesOf(const SequenceRequest& request, int tile_rows = 1);

}  // namespace plumbline
