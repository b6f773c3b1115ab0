#include "services/engine/cuda/stem_store.h"

#include <utility>

namespace plumbline {

std::shared_ptr<const CacheSpace::Stem> StemStore::Use(const std::string& key) {
  const auto it = by_key_.find(key);
  if (it == by_key_.end()) return nullptr;
  slots_.splice(slots_.begin(), slots_, it->second);
  return slots_.front().stem;
}

bool StemStore::Evict() {
  if (slots_.empty()) return false;
  pages_ -= slots_.back().pages();
  by_key_.erase(slots_.back().key);
  slots_.pop_back();
  return true;
}

void StemStore::Put(const std::string& key, std::unique_ptr<CacheSpace::Stem> stem) {
  Slot slot = {key, std::move(stem)};
  if (slot.stem == nullptr || slot.pages() > max_pages_ || Has(key)) return;
  while (pages_ + slot.pages() > max_pages_) Evict();
  pages_ += slot.pages();
  slots_.push_front(std::move(slot));
  by_key_[key] = slots_.begin();
}

}  // namespace plumbline
