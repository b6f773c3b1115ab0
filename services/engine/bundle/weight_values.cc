#include "services/engine/bundle/weight_values.h"

#include <cmath>
#include <cstring>

namespace plumbline {
namespace {

float HalfToFloat(uint16_t half) {
  const int exponent = (half >> 10) & 0x1f;
  const int mantissa = half & 0x3ff;
  float magnitude;
  if (exponent == 31) {
    magnitude = mantissa == 0 ? INFINITY : NAN;
  } else if (exponent == 0) {
    magnitude = std::ldexp(static_cast<float>(mantissa), -24);
  } else {
    magnitude = std::ldexp(static_cast<float>(mantissa | 0x400), exponent - 25);
  }
  return (half & 0x8000) != 0 ? -magnitude : magnitude;
}

void Assign(float value, float* out) { *out = value; }
void Assign(float value, Bf16* out) { *out = kernels::ToBf16(value); }

template <typename T>
void Convert(const TensorView& view, int64_t first, int64_t count, T* out) {
  switch (view.dtype) {
    case WeightDtype::kF32: {
      const float* values = static_cast<const float*>(view.data) + first;
      for (int64_t i = 0; i < count; ++i) Assign(values[i], out + i);
      return;
    }
    case WeightDtype::kF16: {
      const uint16_t* values = static_cast<const uint16_t*>(view.data) + first;
      for (int64_t i = 0; i < count; ++i) Assign(HalfToFloat(values[i]), out + i);
      return;
    }
    case WeightDtype::kBf16: {
      const Bf16* values = static_cast<const Bf16*>(view.data) + first;
      for (int64_t i = 0; i < count; ++i) Assign(kernels::ToFloat(values[i]), out + i);
      return;
    }
  }
}

template <typename T>
void CopyBytes(const TensorView& view, int64_t first, int64_t count, T* out) {
  std::memcpy(static_cast<void*>(out), static_cast<const T*>(view.data) + first,
              sizeof(T) * static_cast<size_t>(count));
}

}  // namespace

void CopyWeights(const TensorView& view, int64_t first, int64_t count, float* out) {
  view.dtype == WeightDtype::kF32 ? CopyBytes(view, first, count, out)
                                  : Convert(view, first, count, out);
}

void CopyWeights(const TensorView& view, int64_t first, int64_t count, Bf16* out) {
  view.dtype == WeightDtype::kBf16 ? CopyBytes(view, first, count, out)
                                   : Convert(view, first, count, out);
}

}  // namespace plumbline
