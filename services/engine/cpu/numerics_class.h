// The text that names everything on this machine which decides the bits of a result.
#pragma once

#include <string>

#include "services/engine/engine.h"

namespace plumbline {

// Neither threads nor tiles are in it: no sum depends on them. fp32 sums are the same on every
// x86-64 processor; bf16 products name their instruction. The C library is named for its cos, sin,
// pow and log.
std::string CpuNumericsClass(ComputeDtype dtype);

}  // namespace plumbline
