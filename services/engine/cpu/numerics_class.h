// The text that names everything on this machine which decides the bits of a result.
#pragma once

#include <string>

#include "services/engine/engine.h"

namespace plumbline {

// The C library, for its cos, sin, pow, exp and log: rotary angles and what the host samples depend
// on it, whatever device computes the rest.
std::string HostLibraryText();

// Neither threads nor tiles are in it: no sum depends on them. fp32 sums are the same on every
// x86-64 processor; bf16 products name their instruction.
std::string CpuNumericsClass(ComputeDtype dtype);

}  // namespace plumbline
