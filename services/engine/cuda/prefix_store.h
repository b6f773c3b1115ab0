// Unquantized prompt states of recent prompts on the GPU, as PrefixCache on the CPU: the input of
// every block, and the pages of keys and values that the blocks below the first quantized one
// wrote. A sequence with the same prompt whose first quantized layer is L starts at L.
//
// Bounded; the least recently used prompt goes first. Copies are ordered by the stream, so an entry
// counts as held once it is on its way. Not thread safe.
#pragma once

#include <cstdint>
#include <list>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "kernels/cuda/step.h"
#include "services/engine/cuda/device_memory.h"

namespace plumbline {

class PrefixStore {
 public:
  // max_bytes 0 = keep nothing. Takes the memory now; less where the GPU has less, with a warning.
  static absl::StatusOr<std::unique_ptr<PrefixStore>> Create(int64_t max_bytes,
                                                             const cuda::ModelDims& dims,
                                                             cuda::Dtype dtype,
                                                             cudaStream_t stream);
  ~PrefixStore();

  bool enabled() const { return max_bytes_ > 0; }
  // Blocks of that prompt's states that are held.
  int Layers(const std::string& key) const;

  // States of one prompt, on their way in or held.
  class Entry {
   public:
    int64_t rows() const { return rows_; }
    int layers() const { return layers_; }

   private:
    friend class PrefixStore;
    int64_t rows_ = 0;
    int layers_ = 0;
    int64_t bytes_ = 0;
    char* memory_ = nullptr;  // hidden states [layers + 1, rows, hidden], then pages
  };
  // Room for a prompt's states, which count as held after Put; null when they do not fit. What is
  // held of the same prompt stays until then.
  std::unique_ptr<Entry> Reserve(int64_t rows, int layers);
  void Put(const std::string& key, std::unique_ptr<Entry> entry);
  // Gives a reserved entry's room back.
  void Drop(std::unique_ptr<Entry> entry);
  // The entry, marked as used now; null when there is none.
  const Entry* Use(const std::string& key);

  // Inputs of block `layer` (of layers(): the outputs of the last): rows [first, rows()) of the
  // entry, [rows() - first, hidden] at `hidden`.
  absl::Status SaveHidden(const Entry& entry, int layer, int64_t first, const void* hidden);
  absl::Status LoadHidden(const Entry& entry, int layer, int64_t first, void* hidden);
  // The first `rows` rows of these inputs, of another prompt that begins alike.
  absl::Status CopyHidden(const Entry& from, int layer, int64_t rows, const Entry& to);
  // Keys and values of blocks [0, layers), between the entry and a sequence's pages; those before
  // the page `first` are left alone.
  absl::Status SavePages(const Entry& entry, const cuda::KvPool& pool,
                         const std::vector<int32_t>& pages);
  absl::Status LoadPages(const Entry& entry, int layers, int64_t first, const cuda::KvPool& pool,
                         const std::vector<int32_t>& pages);

 private:
  struct Slot {
    std::string key;
    std::unique_ptr<Entry> entry;
  };
  PrefixStore(int64_t max_bytes, const cuda::ModelDims& dims, cuda::Dtype dtype,
              cudaStream_t stream);
  int64_t hidden_bytes(int64_t rows) const;  // of one layer
  int64_t page_bytes(int layers) const;      // of one page's first layers
  char* hidden_at(const Entry& entry, int layer, int64_t row = 0) const;
  char* page_at(const Entry& entry, int64_t page) const;
  absl::Status Copy(void* to, const void* from, int64_t bytes) const;
  void Evict();

  int64_t max_bytes_;
  const cuda::ModelDims dims_;
  const cuda::Dtype dtype_;
  const cudaStream_t stream_;
  cudaMemPool_t pool_ = nullptr;
  int64_t bytes_ = 0;
  std::list<Slot> slots_;  // most recently used first
  std::map<std::string, std::list<Slot>::iterator> by_key_;
};

}  // namespace plumbline
