#include "services/engine/cuda/prompt_reuse.h"

#include <algorithm>
#include <set>
#include <utility>

#include "absl/strings/string_view.h"
#include "services/common/status_macros.h"

namespace plumbline {

absl::StatusOr<std::vector<Placed>> PromptReuse::Place(const std::vector<ForwardRun>& runs) {
  std::vector<Placed> placed(runs.size());
  for (size_t i = 0; i < runs.size(); ++i) {
    placed[i].run = &runs[i];
    placed[i].index = i;
    placed[i].sequence = static_cast<CudaSequence*>(runs[i].state);
  }
  Reserve(&placed);
  // Only now: room for new states may have cost older ones.
  for (Placed& p : placed) {
    if (p.run->prompt) PLUMB_RETURN_IF_ERROR(Begin(&p));
  }
  std::stable_sort(placed.begin(), placed.end(),
                   [](const Placed& a, const Placed& b) { return a.start_layer < b.start_layer; });
  int64_t row = 0;
  for (Placed& p : placed) {
    p.row = row;
    row += p.rows();
  }
  return placed;
}

// Room for states that this step's prompts keep.
void PromptReuse::Reserve(std::vector<Placed>* placed) {
  std::set<absl::string_view> saving;
  const auto reserve = [&](const std::string& key, int64_t rows, int layers) {
    const bool wanted = !key.empty() && layers > prefixes_->Layers(key);
    return wanted && saving.insert(key).second ? prefixes_->Reserve(rows, layers) : nullptr;
  };
  for (Placed& p : *placed) {
    if (!p.run->prompt) continue;
    const CudaSequence& sequence = *p.sequence;
    p.saved = reserve(sequence.prefix_key(), p.rows(), sequence.shared_layers());
    if (p.saved == nullptr) continue;
    p.saved_stem =
        reserve(sequence.stem_prefix_key(), sequence.stem_tokens(), sequence.shared_layers());
  }
}

// The stem that the run can start from, or null.
std::shared_ptr<const CacheSpace::Stem> PromptReuse::StemOf(Placed* placed) {
  const CudaSequence& sequence = *placed->sequence;
  if (sequence.stem_key().empty()) return nullptr;
  if (placed->saved != nullptr) {
    const PrefixStore::Entry* states = prefixes_->Use(sequence.stem_prefix_key());
    if (states == nullptr || states->layers() < placed->saved->layers()) return nullptr;
    placed->stem_states = states;
  }
  return stems_->Use(sequence.stem_key());
}

absl::Status PromptReuse::Begin(Placed* placed) {
  CudaSequence& sequence = *placed->sequence;
  if (placed->saved == nullptr && sequence.shared_layers() > 0) {
    placed->reused = prefixes_->Use(sequence.prefix_key());
  }
  std::shared_ptr<const CacheSpace::Stem> stem = StemOf(placed);
  const auto lacks = [&] {
    const int64_t held = stem != nullptr ? stem->whole_pages() : 0;
    return space_->free_pages() < sequence.pages_needed() - held;
  };
  while (lacks() && stems_->Evict()) {
  }
  if (lacks()) stem.reset();  // the last one, whose pages are free now
  if (stem != nullptr) placed->skipped = stem->tokens();
  PLUMB_RETURN_IF_ERROR(sequence.Begin(stem.get()));
  if (placed->reused == nullptr) return absl::OkStatus();
  placed->start_layer = std::min(placed->reused->layers(), sequence.shared_layers());
  return prefixes_->LoadPages(*placed->reused, placed->start_layer,
                              placed->skipped / cuda::kPageTokens, space_->pool(),
                              sequence.pages());
}

absl::Status PromptReuse::SaveInputs(int layer, const char* rows, const Placed& placed) {
  if (placed.skipped > 0) {
    PLUMB_RETURN_IF_ERROR(
        prefixes_->CopyHidden(*placed.stem_states, layer, placed.skipped, *placed.saved));
  }
  PLUMB_RETURN_IF_ERROR(prefixes_->SaveHidden(*placed.saved, layer, placed.skipped, rows));
  if (placed.saved_stem == nullptr) return absl::OkStatus();
  return prefixes_->SaveHidden(*placed.saved_stem, layer, 0, rows);
}

absl::Status PromptReuse::TakeInputs(int layer, char* hidden, const std::vector<Placed>& placed) {
  for (const Placed& p : placed) {
    char* rows = hidden + p.row * row_bytes_;
    if (p.saved != nullptr && layer <= p.saved->layers()) {
      PLUMB_RETURN_IF_ERROR(SaveInputs(layer, rows, p));
    }
    if (p.reused != nullptr && layer == p.start_layer) {
      PLUMB_RETURN_IF_ERROR(prefixes_->LoadHidden(*p.reused, layer, p.skipped, rows));
    }
  }
  return absl::OkStatus();
}

absl::Status PromptReuse::KeepStem(const Placed& placed) {
  const std::string& key = placed.sequence->stem_key();
  if (key.empty() || placed.skipped > 0 || stems_->Has(key)) return absl::OkStatus();
  PLUMB_ASSIGN_OR_RETURN(
      auto stem, space_->HoldFirst(placed.sequence->place(), placed.sequence->stem_tokens()));
  stems_->Put(key, std::move(stem));
  return absl::OkStatus();
}

absl::Status PromptReuse::Keep(std::vector<Placed>* placed) {
  for (Placed& p : *placed) {
    if (!p.run->prompt) continue;
    const auto keep = [&](const std::string& key,
                          std::unique_ptr<PrefixStore::Entry> states) -> absl::Status {
      if (states == nullptr) return absl::OkStatus();
      PLUMB_RETURN_IF_ERROR(prefixes_->SavePages(*states, space_->pool(), p.sequence->pages()));
      prefixes_->Put(key, std::move(states));
      return absl::OkStatus();
    };
    PLUMB_RETURN_IF_ERROR(keep(p.sequence->prefix_key(), std::move(p.saved)));
    PLUMB_RETURN_IF_ERROR(keep(p.sequence->stem_prefix_key(), std::move(p.saved_stem)));
    PLUMB_RETURN_IF_ERROR(KeepStem(p));
  }
  return absl::OkStatus();
}

}  // namespace plumbline
