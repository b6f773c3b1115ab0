// Matrix products in fp32 whose every element is a sum of chains of fused multiply-adds. A chain
// takes kChainLength inner indices, ascending, and begins at 0; chains are added in order:
//
//   chain(k) = fma(x[k+63], w[k+63], ... fma(x[k+1], w[k+1], fma(x[k], w[k], 0)) ...)
//   y = ((0 + chain(0)) + chain(64)) + chain(128) ...
//
// Short chains keep rounding errors below those of one long chain by about the root of their number
// (a third at K = 576, a quarter at 1536), so that fewer codes of a quantized cache land on the
// other side of a rounding boundary. The order is part of the contract. A row's result depends on
// that row and the weights alone: not on the number of rows, their places, the threads or the
// instruction set (AVX-512, AVX2 and plain code give the same bits).
//
// Weights are packed once into panels of kPanelColumns columns, [in][kPanelColumns] each, the last
// one padded with zeros. Panels are independent, so a caller spreads them over threads.
#pragma once

#include <cstdint>

#include "kernels/bf16.h"

namespace plumbline::kernels {

constexpr int kPanelColumns = 48;
constexpr int64_t kChainLength = 64;

inline int64_t PanelCount(int64_t out) { return (out + kPanelColumns - 1) / kPanelColumns; }

// weight: [out, in] row-major; panels: [PanelCount(out), in, kPanelColumns].
void PackPanels(const float* weight, int64_t out, int64_t in, float* panels);

// Columns of one panel. x: [rows, in], dense. y: first row's first column of the panel, rows
// y_stride apart; columns = kPanelColumns or fewer in the last panel. bias: of those columns, or
// null; added once at the end.
void MultiplyPanel(const float* x, int64_t rows, int64_t in, const float* panel, const float* bias,
                   int columns, float* y, int64_t y_stride);

// The same by plain code, for tests and for processors without vector fused multiply-add.
void MultiplyPanelPlain(const float* x, int64_t rows, int64_t in, const float* panel,
                        const float* bias, int columns, float* y, int64_t y_stride);

// --- bf16
// ------------------------------------------------------------------------------------------- On
// processors with AVX512-BF16: sums in fp32 by that instruction (two products a step, ascending
// pairs), plus the bias in fp32, rounded to bf16 once. A row depends on itself and the weights
// alone, as above; the bits are the instruction's own. `in` must be even.
bool HasBf16Products();

// panels: [PanelCount(out), in / 2, kPanelColumns, 2].
void PackPanelsBf16(const Bf16* weight, int64_t out, int64_t in, Bf16* panels);
void MultiplyPanelBf16(const Bf16* x, int64_t rows, int64_t in, const Bf16* panel, const Bf16* bias,
                       int columns, Bf16* y, int64_t y_stride);

}  // namespace plumbline::kernels
