#include "services/engine/batch/shared_states.h"

#include <algorithm>

#include "services/common/digest.h"

namespace plumbline {
namespace {

absl::string_view FirstTokens(const SequenceRequest& request, size_t count) {
  return {reinterpret_cast<const char*>(request.prompt_tokens.data()), count * sizeof(int32_t)};
}

std::string PrefixKey(const SequenceRequest& request, size_t count) {
  return DigestBuilder("prefix/1")
      .Add("jitter", static_cast<int64_t>(request.jitter_seed))
      .Add("tokens", FirstTokens(request, count))
      .Finish();
}

std::string StemKey(const SequenceRequest& request, size_t count) {
  return DigestBuilder("stem/1")
      .Add("jitter", static_cast<int64_t>(request.jitter_seed))
      .Add("plan", CanonicalPlanText(request.layers))
      .Add("tokens", FirstTokens(request, count))
      .Finish();
}

// The stored rows of the first tokens, and what they attend to, are the same whatever follows them.
bool StandsAlone(const TensorFormat& format) {
  return format.is_fp() || (format.rows_stand_alone() && format.prefill == PrefillReads::kSeen);
}

}  // namespace

SharedStates SharedStatesOf(const SequenceRequest& request, int tile_rows) {
  SharedStates shared;
  if (!request.capture_layers.empty() || !request.measure_layers.empty()) return shared;
  const auto& layers = request.layers;
  const auto is_private = [](const LayerFormat& l) { return !l.key.is_fp() || !l.value.is_fp(); };
  shared.shared_layers =
      static_cast<int>(std::find_if(layers.begin(), layers.end(), is_private) - layers.begin());
  if (shared.shared_layers > 0) {
    shared.prefix_key = PrefixKey(request, request.prompt_tokens.size());
  }
  const bool alone = std::all_of(layers.begin(), layers.end(), [](const LayerFormat& l) {
    return StandsAlone(l.key) && StandsAlone(l.value);
  });
  const int stem = request.stem_tokens / tile_rows * tile_rows;
  if (!alone || stem <= 0 || request.score_from >= 0) return shared;
  shared.stem_tokens = stem;
  shared.stem_key = StemKey(request, stem);
  if (shared.shared_layers > 0) shared.stem_prefix_key = PrefixKey(request, stem);
  return shared;
}

}  // namespace plumbline
