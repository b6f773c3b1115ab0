#include "services/engine/cpu/linear.h"

#include <ATen/ATen.h>

#include <utility>

namespace plumbline {
namespace {

template <typename T>
constexpr at::ScalarType kScalarType = at::kFloat;
template <>
constexpr at::ScalarType kScalarType<Bf16> = at::kBFloat16;

template <typename T>
at::Tensor Wrap(const T* data, at::IntArrayRef shape) {
  return at::from_blob(const_cast<T*>(data), shape, at::TensorOptions().dtype(kScalarType<T>));
}

}  // namespace

void RequireExactProducts() {
  at::globalContext().setFloat32MatmulPrecision("highest");
  at::globalContext().setAllowBF16ReductionCuBLAS(false);
}

template <typename T>
struct Linear<T>::Tensors {
  at::Tensor transposed;  // [in, out], a view of the weight
  at::Tensor bias;        // undefined when there is none
};

template <typename T>
Linear<T>::Linear() = default;
template <typename T>
Linear<T>::Linear(Linear&&) noexcept = default;
template <typename T>
Linear<T>& Linear<T>::operator=(Linear&&) noexcept = default;
template <typename T>
Linear<T>::~Linear() = default;

template <typename T>
Linear<T>::Linear(AlignedBuffer<T> weight, int64_t out, int64_t in, AlignedBuffer<T> bias)
    : tensors_(std::make_unique<Tensors>()),
      weight_(std::move(weight)),
      bias_(std::move(bias)),
      out_(out),
      in_(in) {
  tensors_->transposed = Wrap(weight_.data(), {out, in}).t();
  if (bias_.size() > 0) tensors_->bias = Wrap(bias_.data(), {out});
}

template <typename T>
void Linear<T>::ApplyTile(const T* x, T* y) const {
  const at::InferenceMode guard;
  const at::Tensor input = Wrap(x, {kTileRows, in_});
  at::Tensor output = Wrap(y, {kTileRows, out_});
  if (tensors_->bias.defined()) {
    at::addmm_out(output, tensors_->bias, input, tensors_->transposed);
  } else {
    at::mm_out(output, input, tensors_->transposed);
  }
}

template class Linear<float>;
template class Linear<Bf16>;

}  // namespace plumbline
