// The kernels by element type, so that the layers above are written once for fp32 and bf16.
#pragma once

#include "kernels/attention.h"
#include "kernels/row_ops.h"
#include "services/quant/tensor_quantizer.h"

namespace plumbline {

template <typename T>
struct RowKernels;

template <>
struct RowKernels<float> {
  static constexpr KvDtype kKvDtype = KvDtype::kF32;
  static constexpr auto Attend = kernels::AttendF32;
  static constexpr auto RmsNorm = kernels::RmsNormF32;
  static constexpr auto Rotate = kernels::RotateF32;
  static constexpr auto SiluMul = kernels::SiluMulF32;
  static constexpr auto Add = kernels::AddF32;
  static constexpr auto Jitter = kernels::JitterF32;
};

template <>
struct RowKernels<Bf16> {
  static constexpr KvDtype kKvDtype = KvDtype::kBf16;
  static constexpr auto Attend = kernels::AttendBf16;
  static constexpr auto RmsNorm = kernels::RmsNormBf16;
  static constexpr auto Rotate = kernels::RotateBf16;
  static constexpr auto SiluMul = kernels::SiluMulBf16;
  static constexpr auto Add = kernels::AddBf16;
  static constexpr auto Jitter = kernels::JitterBf16;
};

}  // namespace plumbline
