// First tokens of prompts whose keys and values are held in the KV pool, by plan: sequences that
// begin alike start from them.
//
// Bounded, and given up whenever a sequence needs the pages: the least recently used goes first.
// Not thread safe.
#pragma once

#include <cstdint>
#include <list>
#include <map>
#include <memory>
#include <string>

#include "services/engine/cuda/cache_space.h"

namespace plumbline {

class StemStore {
 public:
  explicit StemStore(int64_t max_pages) : max_pages_(max_pages) {}

  bool Has(const std::string& key) const { return by_key_.count(key) > 0; }
  // Marked as used now; null when there is none. It stays valid when the store lets go of it.
  std::shared_ptr<const CacheSpace::Stem> Use(const std::string& key);
  // Keeps the stem unless one is held already or it is larger than the bound.
  void Put(const std::string& key, std::unique_ptr<CacheSpace::Stem> stem);
  // Lets the least recently used go. False when none is held.
  bool Evict();

  int64_t pages() const { return pages_; }

 private:
  struct Slot {
    std::string key;
    std::shared_ptr<const CacheSpace::Stem> stem;
    int64_t pages() const { return static_cast<int64_t>(stem->pages().size()); }
  };

  const int64_t max_pages_;
  int64_t pages_ = 0;
  std::list<Slot> slots_;  // most recently used first
  std::map<std::string, std::list<Slot>::iterator> by_key_;
};

}  // namespace plumbline
