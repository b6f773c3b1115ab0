#include "services/engine/cpu/linear.h"

#include <algorithm>
#include <utility>
#include <vector>

#include "kernels/matmul.h"
#include "services/common/parallel.h"

namespace plumbline {
namespace {

using kernels::kPanelColumns;
using kernels::PanelCount;

// Calls body(panel, first column, columns) for every panel, spread over the threads.
template <typename Body>
void ForPanels(int64_t out, const Body& body) {
  ParallelFor(PanelCount(out), 1, [&](int64_t begin, int64_t end) {
    for (int64_t panel = begin; panel < end; ++panel) {
      const int64_t column = panel * kPanelColumns;
      body(panel, column, static_cast<int>(std::min<int64_t>(kPanelColumns, out - column)));
    }
  });
}

std::vector<float> Widened(const Bf16* values, int64_t count) {
  std::vector<float> wide(count);
  std::transform(values, values + count, wide.begin(), [](Bf16 x) { return kernels::ToFloat(x); });
  return wide;
}

}  // namespace

template <>
Linear<float>::Linear(const AlignedBuffer<float>& weight, int64_t out, int64_t in,
                      AlignedBuffer<float> bias)
    : panels_(PanelCount(out) * kPanelColumns * in), bias_(std::move(bias)), out_(out), in_(in) {
  kernels::PackPanels(weight.data(), out, in, panels_.data());
}

template <>
Linear<Bf16>::Linear(const AlignedBuffer<Bf16>& weight, int64_t out, int64_t in,
                     AlignedBuffer<Bf16> bias)
    : bias_(std::move(bias)), out_(out), in_(in) {
  const int64_t packed = PanelCount(out) * kPanelColumns * in;
  if (kernels::HasBf16Products() && in % 2 == 0) {
    panels_ = AlignedBuffer<Bf16>(packed);
    kernels::PackPanelsBf16(weight.data(), out, in, panels_.data());
  } else {
    float_panels_ = AlignedBuffer<float>(packed);
    kernels::PackPanels(Widened(weight.data(), out * in).data(), out, in, float_panels_.data());
  }
}

template <>
void Linear<float>::Apply(const float* x, int64_t rows, float* y) const {
  ForPanels(out_, [&](int64_t panel, int64_t column, int columns) {
    kernels::MultiplyPanel(x, rows, in_, panels_.data() + panel * kPanelColumns * in_,
                           bias_.size() > 0 ? bias_.data() + column : nullptr, columns, y + column,
                           out_);
  });
}

template <>
void Linear<Bf16>::Apply(const Bf16* x, int64_t rows, Bf16* y) const {
  if (panels_.size() > 0) {
    ForPanels(out_, [&](int64_t panel, int64_t column, int columns) {
      kernels::MultiplyPanelBf16(x, rows, in_, panels_.data() + panel * kPanelColumns * in_,
                                 bias_.size() > 0 ? bias_.data() + column : nullptr, columns,
                                 y + column, out_);
    });
    return;
  }
  const std::vector<float> wide = Widened(x, rows * in_);
  ForPanels(out_, [&](int64_t panel, int64_t column, int columns) {
    std::vector<float> sums(rows * columns);
    kernels::MultiplyPanel(wide.data(), rows, in_,
                           float_panels_.data() + panel * kPanelColumns * in_, nullptr, columns,
                           sums.data(), columns);
    for (int64_t i = 0; i < rows * columns; ++i) {
      const int64_t c = column + i % columns;
      const float bias = bias_.size() > 0 ? kernels::ToFloat(bias_.data()[c]) : 0.0f;
      y[i / columns * out_ + c] = kernels::ToBf16(sums[i] + bias);
    }
  });
}

template <>
const char* ProductName<float>() {
  return "fma";
}
template <>
const char* ProductName<Bf16>() {
  return kernels::HasBf16Products() ? "avx512_bf16" : "fma";
}

}  // namespace plumbline
