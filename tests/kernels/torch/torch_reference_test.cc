// The kernels against libtorch's own operations in double precision. Each check has a twin that
// bends one input and must leave the bound.
#include <ATen/ATen.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <vector>

#include "gtest/gtest.h"
#include "kernels/attention.h"
#include "kernels/matmul.h"
#include "kernels/row_ops.h"

namespace plumbline::kernels {
namespace {

at::Tensor Random(at::IntArrayRef sizes, uint64_t seed) {
  at::Generator generator = at::detail::getDefaultCPUGenerator().clone();
  generator.set_current_seed(seed);
  return at::randn(sizes, generator, at::kFloat).contiguous();
}

// Largest |a - b| in units of the fp32 rounding that a sum of `terms` products of size `scale` may
// make: gamma_n = n * 2^-24 (Higham, Accuracy and Stability, 3.1), with the root of n for random
// signs and a factor of 8 for the tail of many elements.
double ErrorInBounds(const at::Tensor& got, const at::Tensor& want, double terms, double scale) {
  const double bound = 8 * std::sqrt(terms) * std::ldexp(1.0, -24) * scale * std::sqrt(terms);
  return (got.to(at::kDouble) - want).abs().max().item<double>() / bound;
}

at::Tensor Multiply(const at::Tensor& x, const at::Tensor& weight) {
  const int64_t rows = x.size(0), in = x.size(1), out = weight.size(0);
  std::vector<float> panels(static_cast<size_t>(PanelCount(out) * in * kPanelColumns));
  PackPanels(weight.data_ptr<float>(), out, in, panels.data());
  at::Tensor y = at::full({rows, out}, NAN, at::kFloat);
  for (int64_t p = 0; p < PanelCount(out); ++p) {
    const int columns = static_cast<int>(std::min<int64_t>(kPanelColumns, out - p * kPanelColumns));
    MultiplyPanel(x.data_ptr<float>(), rows, in, panels.data() + p * in * kPanelColumns, nullptr,
                  columns, y.data_ptr<float>() + p * kPanelColumns, out);
  }
  return y;
}

TEST(TorchReferenceTest, MatrixProductsStayWithinTheRoundingBound) {
  for (const auto& [rows, in, out] : std::vector<std::array<int64_t, 3>>{
           {1, 64, 48}, {7, 576, 1536}, {33, 1536, 577}, {5, 100, 1}}) {
    const at::Tensor x = Random({rows, in}, 1), weight = Random({out, in}, 2);
    const at::Tensor want = at::mm(x.to(at::kDouble), weight.to(at::kDouble).t());
    EXPECT_LT(ErrorInBounds(Multiply(x, weight), want, static_cast<double>(in), 1), 1);
    at::Tensor bent = weight.clone();
    bent[out - 1][in - 1] += 0.01;
    EXPECT_GT(ErrorInBounds(Multiply(x, bent), want, static_cast<double>(in), 1), 1);
  }
}

at::Tensor Attend(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v) {
  AttentionShape shape;
  shape.heads = static_cast<int>(q.size(0));
  shape.kv_heads = static_cast<int>(k.size(1));
  shape.head_dim = static_cast<int>(q.size(1));
  shape.scale = 1 / std::sqrt(static_cast<float>(q.size(1)));
  std::vector<float> scratch(static_cast<size_t>(AttentionScratchFloats(k.size(0)) * shape.heads));
  at::Tensor out = at::full_like(q, NAN);
  for (int head = 0; head < shape.kv_heads; ++head) {
    AttendF32(shape, head, q.data_ptr<float>(), k.data_ptr<float>(), v.data_ptr<float>(), k.size(0),
              scratch.data(), out.data_ptr<float>());
  }
  return out;
}

at::Tensor AttendInDouble(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v) {
  const int64_t group = q.size(0) / k.size(1);
  const at::Tensor keys = k.to(at::kDouble).repeat_interleave(group, 1).permute({1, 0, 2});
  const at::Tensor values = v.to(at::kDouble).repeat_interleave(group, 1).permute({1, 0, 2});
  const at::Tensor scores =
      at::bmm(keys, q.to(at::kDouble).unsqueeze(2)).squeeze(2) / std::sqrt(q.size(1));
  return at::bmm(at::softmax(scores, 1).unsqueeze(1), values).squeeze(1);
}

TEST(TorchReferenceTest, AttentionStaysWithinTheRoundingBound) {
  for (const auto& [heads, kv_heads, dim, tokens] : std::vector<std::array<int64_t, 4>>{
           {9, 3, 64, 1}, {9, 3, 64, 300}, {4, 4, 80, 17}, {8, 1, 128, 600}}) {
    const at::Tensor q = Random({heads, dim}, 3), k = Random({tokens, kv_heads, dim}, 4),
                     v = Random({tokens, kv_heads, dim}, 5);
    const at::Tensor want = AttendInDouble(q, k, v);
    const auto terms = static_cast<double>(dim + tokens);
    EXPECT_LT(ErrorInBounds(Attend(q, k, v), want, terms, 1), 1);
    at::Tensor bent = v.clone();
    bent[tokens - 1][0][0] += 5;
    EXPECT_GT(ErrorInBounds(Attend(q, k, bent), want, terms, 1), 1);
  }
}

TEST(TorchReferenceTest, RmsNormStaysWithinTheRoundingBound) {
  const at::Tensor x = Random({576}, 6), weight = Random({576}, 7);
  const at::Tensor wide = x.to(at::kDouble);
  const at::Tensor want = weight.to(at::kDouble) * wide / at::sqrt(wide.square().mean() + 1e-5);
  at::Tensor out = at::full_like(x, NAN);
  RmsNormF32(x.data_ptr<float>(), weight.data_ptr<float>(), 576, 1e-5f, out.data_ptr<float>());
  EXPECT_LT(ErrorInBounds(out, want, 8, 1), 1);
  RmsNormF32(x.data_ptr<float>(), weight.data_ptr<float>(), 576, 1e-2f, out.data_ptr<float>());
  EXPECT_GT(ErrorInBounds(out, want, 8, 1), 1);
}

}  // namespace
}  // namespace plumbline::kernels
