// Products of doubles with floats, summed in double: what measures an error is not to add one of
// its own. Each element's products are added one by one, k ascending, without fused multiply-add,
// so the bits do not depend on the tiles, the other rows or the instruction set.
#pragma once

#include <cstdint>

namespace plumbline::kernels {

// sums[r][c] += a[r][0] * b[0][c] + ... + a[r][depth-1] * b[depth-1][c], for r < rows, c < columns.
// Rows of a, b and sums lie a_stride, b_stride and sums_stride elements apart. sums overlaps
// neither.
void AccumulateDouble(const double* a, int64_t a_stride, int64_t rows, const float* b,
                      int64_t b_stride, int64_t depth, int64_t columns, double* sums,
                      int64_t sums_stride);

}  // namespace plumbline::kernels
