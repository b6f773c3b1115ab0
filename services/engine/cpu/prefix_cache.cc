#include "services/engine/cpu/prefix_cache.h"

#include <iterator>
#include <utility>

#include "kernels/bf16.h"

namespace plumbline {

template <typename T>
int64_t PrefixCache<T>::Entry::bytes() const {
  int64_t values_held = 0;
  for (const auto* states : {&hidden, &keys, &values}) {
    for (const std::vector<T>& state : *states) values_held += static_cast<int64_t>(state.size());
  }
  return values_held * static_cast<int64_t>(sizeof(T));
}

template <typename T>
int PrefixCache<T>::Layers(const std::string& key) const {
  const auto it = by_key_.find(key);
  return it == by_key_.end() ? 0 : it->second->entry.layers();
}

template <typename T>
const typename PrefixCache<T>::Entry* PrefixCache<T>::Use(const std::string& key) {
  const auto it = by_key_.find(key);
  if (it == by_key_.end()) return nullptr;
  slots_.splice(slots_.begin(), slots_, it->second);
  return &slots_.front().entry;
}

template <typename T>
void PrefixCache<T>::Drop(typename std::list<Slot>::iterator slot) {
  bytes_ -= slot->bytes;
  by_key_.erase(slot->key);
  slots_.erase(slot);
}

template <typename T>
void PrefixCache<T>::Put(const std::string& key, Entry entry) {
  const int64_t bytes = entry.bytes();
  if (bytes > max_bytes_ || Layers(key) >= entry.layers()) return;
  const auto held = by_key_.find(key);
  if (held != by_key_.end()) Drop(held->second);
  while (bytes_ + bytes > max_bytes_) Drop(std::prev(slots_.end()));
  slots_.push_front({key, std::move(entry), bytes});
  by_key_[key] = slots_.begin();
  bytes_ += bytes;
}

template class PrefixCache<float>;
template class PrefixCache<Bf16>;

}  // namespace plumbline
