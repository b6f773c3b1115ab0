// A bounded map: the value that was used longest ago makes room for a new one.
//
// Not thread safe.
#pragma once

#include <cstddef>
#include <list>
#include <map>
#include <utility>

namespace plumbline {

template <typename Key, typename Value>
class RecentMap {
 public:
  // most: at least 1.
  explicit RecentMap(size_t most) : most_(most) {}

  // Marked as used now; null when there is none. Valid until the next Put or Clear.
  const Value* Use(const Key& key) {
    const auto it = by_key_.find(key);
    if (it == by_key_.end()) return nullptr;
    slots_.splice(slots_.begin(), slots_, it->second);
    return &slots_.front().second;
  }

  // In place of what the key had.
  void Put(const Key& key, Value value) {
    if (const auto it = by_key_.find(key); it != by_key_.end()) {
      slots_.erase(it->second);
      by_key_.erase(it);
    }
    MakeRoom();
    slots_.emplace_front(key, std::move(value));
    by_key_[key] = slots_.begin();
  }

  // Lets go of as many as keep the next Put from being one too many.
  void MakeRoom() {
    while (slots_.size() >= most_) {
      by_key_.erase(slots_.back().first);
      slots_.pop_back();
    }
  }

  void Clear() {
    by_key_.clear();
    slots_.clear();
  }
  size_t size() const { return slots_.size(); }

 private:
  using Slots = std::list<std::pair<Key, Value>>;

  const size_t most_;
  Slots slots_;  // most recently used first
  std::map<Key, typename Slots::iterator> by_key_;
};

}  // namespace plumbline
