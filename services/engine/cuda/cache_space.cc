#include "services/engine/cuda/cache_space.h"

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "services/common/logging.h"
#include "services/common/status_macros.h"

namespace plumbline {

CacheSpace::CacheSpace(const CacheSpaceOptions& options, cudaStream_t stream)
    : options_(options), stream_(stream), max_pages_(PagesFor(options.max_positions)) {
  page_bytes_ = int64_t{2} * options.dims.layers * options.dims.kv_dim() * cuda::kPageTokens *
                DtypeBytes(options.dtype);
}

absl::StatusOr<std::unique_ptr<CacheSpace>> CacheSpace::Create(const CacheSpaceOptions& options,
                                                               cudaStream_t stream) {
  std::unique_ptr<CacheSpace> space(new CacheSpace(options, stream));
  const int64_t table_bytes = 2 * space->table_entries() * int64_t{sizeof(int32_t)};
  PLUMB_ASSIGN_OR_RETURN(space->tables_, DeviceBuffer::Create(table_bytes, "page tables"));
  PLUMB_ASSIGN_OR_RETURN(space->staged_tables_, PinnedBuffer::Create(table_bytes, "page tables"));
  std::fill_n(space->staged_tables_.as<int32_t>(), 2 * space->table_entries(), -1);
  PLUMB_RETURN_IF_ERROR(CudaStatus(
      cudaMemsetAsync(space->tables_.data(), 0xff, static_cast<size_t>(table_bytes), stream),
      "page tables"));
  // Parameters that a prompt freezes: slots x layers x (key, value) x (scale, zero) x groups.
  PLUMB_ASSIGN_OR_RETURN(
      space->frozen_,
      DeviceBuffer::Create(int64_t{16} * options.slots * options.dims.layers * space->max_groups(),
                           "frozen parameters"));
  PLUMB_RETURN_IF_ERROR(space->TakePool());
  space->holders_.resize(static_cast<size_t>(space->pages_total_));
  for (int64_t page = space->pages_total_ - 1; page >= 0; --page) {
    space->free_pages_.push_back(static_cast<int32_t>(page));
  }
  for (int slot = options.slots - 1; slot >= 0; --slot) space->free_slots_.push_back(slot);
  return space;
}

absl::Status CacheSpace::TakePool() {
  size_t free_bytes = 0, all_bytes = 0;
  PLUMB_RETURN_IF_ERROR(CudaStatus(cudaMemGetInfo(&free_bytes, &all_bytes), "free GPU memory"));
  const int64_t can = std::max<int64_t>(0, static_cast<int64_t>(free_bytes) - options_.spare_bytes);
  const int64_t asked = options_.pool_bytes > 0 ? options_.pool_bytes : can;
  int64_t bytes = std::min(asked, std::max(can, page_bytes_ * options_.slots));
  const int64_t least = page_bytes_ * std::min(options_.slots, 16);
  absl::StatusOr<DeviceBuffer> pool = absl::UnknownError("not tried");
  for (;; bytes -= bytes / 8) {
    pages_total_ = std::max<int64_t>(bytes, least) / page_bytes_;
    pool = DeviceBuffer::Create(pool_bytes(), "the KV cache");
    if (pool.ok() || bytes <= least) break;
    if (pool.status().code() != absl::StatusCode::kResourceExhausted) break;
  }
  if (!pool.ok()) {
    return Annotate(pool.status(),
                    absl::StrCat("a KV cache of ", pages_total_, " pages of ", page_bytes_,
                                 " bytes; ", free_bytes, " of ", all_bytes, " bytes are free"));
  }
  pool_ = std::move(pool).value();
  if (options_.pool_bytes > 0 && pool_bytes() < options_.pool_bytes - page_bytes_) {
    spdlog::warn("KV cache: {} bytes instead of the {} asked for; {} of the GPU's {} were free",
                 pool_bytes(), options_.pool_bytes, free_bytes, all_bytes);
  }
  // Positions that no row has written are never used, but what is read beside them is finite.
  return CudaStatus(cudaMemsetAsync(pool_.data(), 0, static_cast<size_t>(pool_bytes()), stream_),
                    "the KV cache");
}

cuda::KvPool CacheSpace::pool() const {
  return {pool_.data(), page_bytes_ / DtypeBytes(options_.dtype)};
}

absl::Status CacheSpace::SendTable(int64_t first_entry, const std::vector<int32_t>& pages,
                                   size_t begin, size_t count) {
  int32_t* staged = staged_tables_.as<int32_t>() + first_entry;
  std::copy_n(pages.begin() + static_cast<int64_t>(begin), count, staged);
  return CudaStatus(cudaMemcpyAsync(tables_.as<int32_t>() + first_entry, staged,
                                    count * sizeof(int32_t), cudaMemcpyHostToDevice, stream_),
                    "a page table");
}

absl::Status CacheSpace::CopyPage(int32_t from, int32_t to) {
  return CudaStatus(
      cudaMemcpyAsync(pool_.at(to * page_bytes_), pool_.at(from * page_bytes_),
                      static_cast<size_t>(page_bytes_), cudaMemcpyDeviceToDevice, stream_),
      "copying a page");
}

int32_t CacheSpace::HoldPage(int32_t page) {
  ++holders_[page];
  return page;
}

int32_t CacheSpace::TakePage() {
  const int32_t page = free_pages_.back();
  free_pages_.pop_back();
  return HoldPage(page);
}

void CacheSpace::Release(const std::vector<int32_t>& pages) {
  for (const int32_t page : pages) {
    if (--holders_[page] == 0) free_pages_.push_back(page);
  }
}

absl::StatusOr<std::unique_ptr<CacheSpace::Stem>> CacheSpace::HoldFirst(const Place& place,
                                                                        int64_t tokens) {
  auto stem = std::make_unique<Stem>(this);
  stem->tokens_ = tokens / cuda::kPageTokens * cuda::kPageTokens;
  for (int64_t i = 0; i < stem->whole_pages(); ++i) {
    stem->pages_.push_back(HoldPage(place.pages_[i]));
  }
  if (stem->tokens_ < tokens && !free_pages_.empty()) {
    stem->pages_.push_back(TakePage());
    PLUMB_RETURN_IF_ERROR(CopyPage(place.pages_[stem->whole_pages()], stem->pages_.back()));
    stem->tokens_ = tokens;
  }
  if (stem->tokens_ == 0) stem.reset();
  return stem;
}

absl::StatusOr<std::unique_ptr<CacheSpace::Place>> CacheSpace::Take(int64_t positions,
                                                                    bool raw_keys,
                                                                    const Stem* stem) {
  const size_t count = static_cast<size_t>(PagesFor(positions));
  const size_t shared = stem != nullptr ? static_cast<size_t>(stem->whole_pages()) : 0;
  const size_t wanted = (raw_keys ? 2 * count : count) - shared;
  if (free_slots_.empty() || free_pages_.size() < wanted) {
    return absl::ResourceExhaustedError(
        absl::StrCat("a sequence needs ", wanted, " pages of cache, ", free_pages_.size(),
                     " are free; free slots: ", free_slots_.size()));
  }
  auto place = std::make_unique<Place>(this, free_slots_.back());
  free_slots_.pop_back();
  for (size_t i = 0; i < shared; ++i) place->pages_.push_back(HoldPage(stem->pages_[i]));
  for (size_t i = 0; i < wanted; ++i) place->pages_.push_back(TakePage());
  if (stem != nullptr && stem->pages_.size() > shared) {
    PLUMB_RETURN_IF_ERROR(CopyPage(stem->pages_[shared], place->pages_[shared]));
  }
  const int64_t entry = place->slot_ * max_pages_;
  PLUMB_RETURN_IF_ERROR(SendTable(entry, place->pages_, 0, count));
  if (raw_keys) {
    PLUMB_RETURN_IF_ERROR(SendTable(table_entries() + entry, place->pages_, count, count));
  }
  return place;
}

CacheSpace::Place::~Place() {
  space_->free_slots_.push_back(slot_);
  space_->Release(pages_);
}

}  // namespace plumbline
