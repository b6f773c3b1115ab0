// Matrix products in fp32 whose every element is one chain of fused multiply-adds over the inner
// index, ascending from 0:
//
//   y[r][c] = fma(x[r][K-1], w[c][K-1], ... fma(x[r][1], w[c][1], fma(x[r][0], w[c][0], 0)) ...)
//
// The order is part of the contract. A row's result depends on that row and the weights alone: not
// on the number of rows, their places, the threads or the instruction set (AVX-512, AVX2 and plain
// code give the same bits).
//
// Weights are packed once into panels of kPanelColumns columns, [in][kPanelColumns] each, the last
// one padded with zeros. Panels are independent, so a caller spreads them over threads.
#pragma once

#include <cstdint>

#include "kernels/bf16.h"

namespace plumbline::kernels {

constexpr int kPanelColumns = 48;

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
