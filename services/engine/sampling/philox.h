// Philox4x32-10, a counter-based generator (Salmon et al., "Parallel random numbers: as easy as 1,
// 2, 3", 2011): 128 bits of output are a pure function of a 128-bit counter and a 64-bit key, so
// noise needs no state and any element of the stream can be had alone, on any device.
#pragma once

#include <array>
#include <cstdint>

namespace plumbline {

std::array<uint32_t, 4> Philox4x32(const std::array<uint32_t, 4>& counter, uint64_t key);

}  // namespace plumbline
