#include "services/engine/cuda/prefix_store.h"

#include <iterator>
#include <utility>

#include "absl/strings/str_cat.h"
#include "services/common/logging.h"
#include "services/common/status_macros.h"

namespace plumbline {

PrefixStore::PrefixStore(int64_t max_bytes, const cuda::ModelDims& dims, cuda::Dtype dtype,
                         cudaStream_t stream)
    : max_bytes_(max_bytes), dims_(dims), dtype_(dtype), stream_(stream) {}

absl::StatusOr<std::unique_ptr<PrefixStore>> PrefixStore::Create(int64_t max_bytes,
                                                                 const cuda::ModelDims& dims,
                                                                 cuda::Dtype dtype,
                                                                 cudaStream_t stream) {
  std::unique_ptr<PrefixStore> store(new PrefixStore(max_bytes, dims, dtype, stream));
  if (max_bytes == 0) return store;
  int device = 0;
  PLUMB_RETURN_IF_ERROR(CudaStatus(cudaGetDevice(&device), "the GPU in use"));
  cudaMemPoolProps properties = {};
  properties.allocType = cudaMemAllocationTypePinned;
  properties.location.type = cudaMemLocationTypeDevice;
  properties.location.id = device;
  PLUMB_RETURN_IF_ERROR(
      CudaStatus(cudaMemPoolCreate(&store->pool_, &properties), "memory of prompt states"));
  uint64_t keep = UINT64_MAX;
  PLUMB_RETURN_IF_ERROR(
      CudaStatus(cudaMemPoolSetAttribute(store->pool_, cudaMemPoolAttrReleaseThreshold, &keep),
                 "memory of prompt states"));
  // Taken once, so that later no step waits for the driver.
  void* whole = nullptr;
  const absl::Status taken = CudaStatus(
      cudaMallocFromPoolAsync(&whole, static_cast<size_t>(max_bytes), store->pool_, stream),
      "memory of prompt states");
  if (!taken.ok()) {
    spdlog::warn("no memory for shared prompt states: {}", std::string(taken.message()));
    store->max_bytes_ = 0;
    return store;
  }
  PLUMB_RETURN_IF_ERROR(CudaStatus(cudaFreeAsync(whole, stream), "memory of prompt states"));
  return store;
}

PrefixStore::~PrefixStore() {
  for (Slot& slot : slots_) Drop(std::move(slot.entry));
  if (pool_ == nullptr) return;
  cudaStreamSynchronize(stream_);
  cudaMemPoolDestroy(pool_);
}

int64_t PrefixStore::hidden_bytes(int64_t rows) const {
  return rows * dims_.hidden * DtypeBytes(dtype_);
}

int64_t PrefixStore::page_bytes(int layers) const {
  return int64_t{2} * layers * dims_.kv_dim() * cuda::kPageTokens * DtypeBytes(dtype_);
}

char* PrefixStore::hidden_at(const Entry& entry, int layer, int64_t row) const {
  return entry.memory_ + hidden_bytes(layer * entry.rows_ + row);
}

char* PrefixStore::page_at(const Entry& entry, int64_t page) const {
  return hidden_at(entry, entry.layers_ + 1) + page * page_bytes(entry.layers_);
}

int PrefixStore::Layers(const std::string& key) const {
  const auto it = by_key_.find(key);
  return it == by_key_.end() ? 0 : it->second->entry->layers_;
}

const PrefixStore::Entry* PrefixStore::Use(const std::string& key) {
  const auto it = by_key_.find(key);
  if (it == by_key_.end()) return nullptr;
  slots_.splice(slots_.begin(), slots_, it->second);
  return slots_.front().entry.get();
}

void PrefixStore::Evict() {
  by_key_.erase(slots_.back().key);
  Drop(std::move(slots_.back().entry));
  slots_.pop_back();
}

std::unique_ptr<PrefixStore::Entry> PrefixStore::Reserve(int64_t rows, int layers) {
  auto entry = std::make_unique<Entry>();
  entry->rows_ = rows;
  entry->layers_ = layers;
  const int64_t pages = (rows + cuda::kPageTokens - 1) / cuda::kPageTokens;
  entry->bytes_ = (layers + 1) * hidden_bytes(rows) + pages * page_bytes(layers);
  if (entry->bytes_ > max_bytes_) return nullptr;
  while (bytes_ + entry->bytes_ > max_bytes_ && !slots_.empty()) Evict();
  if (bytes_ + entry->bytes_ > max_bytes_) return nullptr;
  void* memory = nullptr;
  if (cudaMallocFromPoolAsync(&memory, static_cast<size_t>(entry->bytes_), pool_, stream_) !=
      cudaSuccess) {
    cudaGetLastError();  // nothing is lost but the time of computing these states again
    return nullptr;
  }
  entry->memory_ = static_cast<char*>(memory);
  bytes_ += entry->bytes_;
  return entry;
}

void PrefixStore::Drop(std::unique_ptr<Entry> entry) {
  bytes_ -= entry->bytes_;
  cudaFreeAsync(entry->memory_, stream_);
}

void PrefixStore::Put(const std::string& key, std::unique_ptr<Entry> entry) {
  if (Layers(key) >= entry->layers_) return Drop(std::move(entry));
  if (const auto held = by_key_.find(key); held != by_key_.end()) {
    Drop(std::move(held->second->entry));
    slots_.erase(held->second);
  }
  slots_.push_front({key, std::move(entry)});
  by_key_[key] = slots_.begin();
}

absl::Status PrefixStore::Copy(void* to, const void* from, int64_t bytes) const {
  return CudaStatus(
      cudaMemcpyAsync(to, from, static_cast<size_t>(bytes), cudaMemcpyDeviceToDevice, stream_),
      "copying prompt states");
}

absl::Status PrefixStore::SaveHidden(const Entry& entry, int layer, int64_t first,
                                     const void* hidden) {
  return Copy(hidden_at(entry, layer, first), hidden, hidden_bytes(entry.rows_ - first));
}

absl::Status PrefixStore::LoadHidden(const Entry& entry, int layer, int64_t first, void* hidden) {
  return Copy(hidden, hidden_at(entry, layer, first), hidden_bytes(entry.rows_ - first));
}

absl::Status PrefixStore::CopyHidden(const Entry& from, int layer, int64_t rows, const Entry& to) {
  return Copy(hidden_at(to, layer), hidden_at(from, layer), hidden_bytes(rows));
}

// A page holds its layers one behind the other, so the first ones are its beginning.
absl::Status PrefixStore::SavePages(const Entry& entry, const cuda::KvPool& pool,
                                    const std::vector<int32_t>& pages) {
  const int64_t stride = pool.page_elements * DtypeBytes(dtype_);
  for (int64_t i = 0; i * cuda::kPageTokens < entry.rows_; ++i) {
    PLUMB_RETURN_IF_ERROR(Copy(page_at(entry, i),
                               static_cast<const char*>(pool.base) + pages[i] * stride,
                               page_bytes(entry.layers_)));
  }
  return absl::OkStatus();
}

absl::Status PrefixStore::LoadPages(const Entry& entry, int layers, int64_t first,
                                    const cuda::KvPool& pool, const std::vector<int32_t>& pages) {
  const int64_t stride = pool.page_elements * DtypeBytes(dtype_);
  for (int64_t i = first; i * cuda::kPageTokens < entry.rows_; ++i) {
    PLUMB_RETURN_IF_ERROR(Copy(static_cast<char*>(pool.base) + pages[i] * stride, page_at(entry, i),
                               page_bytes(layers)));
  }
  return absl::OkStatus();
}

}  // namespace plumbline
