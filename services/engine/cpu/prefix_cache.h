// Unquantized prompt states of recent prompts: the input of every block, and the keys and values
// that the blocks below it wrote. A sequence with the same prompt whose first quantized layer is L
// starts at L. Since a row's result depends on its sequence alone, starting there gives the same
// bits as computing all.
//
// Bounded; the least recently used prompt goes first. Not thread safe.
#pragma once

#include <cstdint>
#include <list>
#include <map>
#include <string>
#include <vector>

namespace plumbline {

template <typename T>
class PrefixCache {
 public:
  // States of one prompt. hidden[l] is the input of block l (hidden[layers()] the output of the
  // last); keys[l], values[l] what block l wrote, keys rotated.
  struct Entry {
    std::vector<std::vector<T>> hidden;  // each [tokens, hidden_size]
    std::vector<std::vector<T>> keys;    // each [tokens, kv_dim]
    std::vector<std::vector<T>> values;
    int layers() const { return static_cast<int>(keys.size()); }
    int64_t bytes() const;
  };

  // 0 = keep nothing.
  explicit PrefixCache(int64_t max_bytes) : max_bytes_(max_bytes) {}

  bool enabled() const { return max_bytes_ > 0; }
  int Layers(const std::string& key) const;
  // The entry, marked as used now; null when there is none.
  const Entry* Use(const std::string& key);
  // Keeps the entry if it reaches further than what is held, dropping others as needed.
  void Put(const std::string& key, Entry entry);

  int64_t bytes() const { return bytes_; }

 private:
  struct Slot {
    std::string key;
    Entry entry;
    int64_t bytes;
  };
  void Drop(typename std::list<Slot>::iterator slot);

  int64_t max_bytes_;
  int64_t bytes_ = 0;
  std::list<Slot> slots_;  // most recently used first
  std::map<std::string, typename std::list<Slot>::iterator> by_key_;
};

}  // namespace plumbline
