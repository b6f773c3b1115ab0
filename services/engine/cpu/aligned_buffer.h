// Uninitialized memory on a cache line boundary. Pages that are never touched cost nothing.
#pragma once

#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <new>

namespace plumbline {

template <typename T>
class AlignedBuffer {
 public:
  AlignedBuffer() = default;
  explicit AlignedBuffer(int64_t count) : size_(count) {
    const size_t bytes = (static_cast<size_t>(count) * sizeof(T) + 63) & ~size_t{63};
    data_.reset(static_cast<T*>(std::aligned_alloc(64, bytes == 0 ? 64 : bytes)));
    if (data_ == nullptr) throw std::bad_alloc();
  }
  T* data() const { return data_.get(); }
  int64_t size() const { return size_; }

  // Grows to `count` zeros, losing the contents; does nothing when it is that large.
  void ReserveZeroed(int64_t count) {
    if (count <= size_) return;
    *this = AlignedBuffer(count);
    std::memset(static_cast<void*>(data()), 0, sizeof(T) * static_cast<size_t>(count));
  }

 private:
  struct Free {
    void operator()(T* p) const { std::free(p); }
  };
  std::unique_ptr<T, Free> data_;
  int64_t size_ = 0;
};

}  // namespace plumbline
