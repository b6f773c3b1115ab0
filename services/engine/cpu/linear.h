// A linear map y = x W^T + b on tiles of exactly kTileRows rows.
//
// One number of rows means one kernel and one order of sums, so a row of y depends on the same row
// of x alone: measured bit-equal under permuting the rows and replacing all others, fp32 and bf16,
// and checked again on this machine by the engine's tests. fp32 products run in fp32 throughout;
// bf16 products sum in fp32 and round once.
#pragma once

#include <cstdint>
#include <memory>

#include "kernels/bf16.h"
#include "services/engine/cpu/aligned_buffer.h"

namespace plumbline {

constexpr int kTileRows = 64;

// The number of rows that `rows` rows occupy in whole tiles.
inline int64_t PaddedRows(int64_t rows) { return (rows + kTileRows - 1) / kTileRows * kTileRows; }

// Turns off every reduced-precision mode that products of fp32 could take. Call once before use.
void RequireExactProducts();

template <typename T>
class Linear {
 public:
  Linear();
  // weight: [out, in]; bias: [out] or empty.
  Linear(AlignedBuffer<T> weight, int64_t out, int64_t in, AlignedBuffer<T> bias);
  Linear(Linear&&) noexcept;
  Linear& operator=(Linear&&) noexcept;
  ~Linear();

  // x: [kTileRows, in], y: [kTileRows, out], dense. Not inside a parallel region.
  void ApplyTile(const T* x, T* y) const;

  int64_t in() const { return in_; }
  int64_t out() const { return out_; }

 private:
  struct Tensors;
  std::unique_ptr<Tensors> tensors_;
  AlignedBuffer<T> weight_;
  AlignedBuffer<T> bias_;
  int64_t out_ = 0;
  int64_t in_ = 0;
};

}  // namespace plumbline
