// The paged KV cache of one GPU: pages of kPageTokens positions, slots of sequences, and the page
// tables on the device. Sequences whose prompts begin alike may hold the same pages (stems).
//
// Not thread safe. A slot or page that is given back may be handed out at once: whatever still
// reads it on the stream comes before what the new owner launches.
#pragma once

#include <cstdint>
#include <memory>
#include <vector>

#include "absl/status/statusor.h"
#include "kernels/cuda/step.h"
#include "services/engine/cuda/device_memory.h"

namespace plumbline {

struct CacheSpaceOptions {
  cuda::ModelDims dims;
  cuda::Dtype dtype = cuda::Dtype::kBf16;
  int slots = 0;
  int64_t max_positions = 0;  // of one sequence
  // Bytes of pages; 0 = what is free but `spare_bytes`. Less is taken, and said in the log, where
  // that much cannot be had.
  int64_t pool_bytes = 0;
  int64_t spare_bytes = int64_t{1} << 30;
};

class CacheSpace {
 public:
  // ResourceExhausted: not even one page for each slot fits.
  static absl::StatusOr<std::unique_ptr<CacheSpace>> Create(const CacheSpaceOptions& options,
                                                            cudaStream_t stream);

  int64_t page_bytes() const { return page_bytes_; }
  int64_t pool_bytes() const { return page_bytes_ * pages_total_; }
  static int64_t PagesFor(int64_t positions) {
    return (positions + cuda::kPageTokens - 1) / cuda::kPageTokens;
  }

  int64_t free_pages() const { return static_cast<int64_t>(free_pages_.size()); }

  // The first positions of a prompt, held so that sequences that begin alike start from them. A
  // page is free again when nobody holds it any more.
  class Stem {
   public:
    explicit Stem(CacheSpace* space) : space_(space) {}
    ~Stem() { space_->Release(pages_); }
    Stem(const Stem&) = delete;
    Stem& operator=(const Stem&) = delete;
    int64_t tokens() const { return tokens_; }
    // Those that its positions fill, which others read where they are, and at most one that they
    // begin, which is copied.
    const std::vector<int32_t>& pages() const { return pages_; }
    int64_t whole_pages() const { return tokens_ / cuda::kPageTokens; }

   private:
    friend class CacheSpace;
    CacheSpace* space_;
    int64_t tokens_ = 0;
    std::vector<int32_t> pages_;
  };

  // A sequence's slot and pages; gives them back when it goes.
  class Place {
   public:
    Place(CacheSpace* space, int slot) : space_(space), slot_(slot) {}
    ~Place();
    Place(const Place&) = delete;
    Place& operator=(const Place&) = delete;
    int slot() const { return slot_; }
    // In the order of positions; then those of keys before rotation.
    const std::vector<int32_t>& pages() const { return pages_; }

   private:
    friend class CacheSpace;
    CacheSpace* space_;
    int slot_;
    std::vector<int32_t> pages_;
  };
  // Room for `positions` positions, twice where keys before rotation are kept too; its page table
  // is on its way to the device when this returns. The first positions hold those of `stem`, if not
  // null, which has fewer than `positions`; its whole pages must not be written by the sequence.
  // ResourceExhausted: no slot or too few pages.
  absl::StatusOr<std::unique_ptr<Place>> Take(int64_t positions, bool raw_keys,
                                              const Stem* stem = nullptr);
  // Holds the place's first `tokens` positions, which the stream has written and nothing writes
  // again. Without a free page for a copy of the last, only whole pages; null when there is none.
  absl::StatusOr<std::unique_ptr<Stem>> HoldFirst(const Place& place, int64_t tokens);

  cuda::KvPool pool() const;
  const int32_t* page_table() const { return tables_.as<int32_t>(); }
  const int32_t* raw_page_table() const { return page_table() + table_entries(); }
  float* frozen() const { return frozen_.as<float>(); }
  int max_pages() const { return static_cast<int>(max_pages_); }
  int max_groups() const { return options_.dims.kv_dim(); }

 private:
  CacheSpace(const CacheSpaceOptions& options, cudaStream_t stream);
  int64_t table_entries() const { return options_.slots * max_pages_; }
  absl::Status TakePool();
  absl::Status SendTable(int64_t first_entry, const std::vector<int32_t>& pages, size_t begin,
                         size_t count);
  absl::Status CopyPage(int32_t from, int32_t to);
  int32_t TakePage();
  int32_t HoldPage(int32_t page);
  void Release(const std::vector<int32_t>& pages);

  const CacheSpaceOptions options_;
  const cudaStream_t stream_;
  int64_t max_pages_ = 0;
  int64_t page_bytes_ = 0;
  int64_t pages_total_ = 0;
  DeviceBuffer pool_, tables_, frozen_;
  PinnedBuffer staged_tables_;
  std::vector<int32_t> free_pages_, free_slots_;
  std::vector<int32_t> holders_;  // of each page
};

}  // namespace plumbline
