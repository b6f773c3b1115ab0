// The text that names everything on this machine which decides the bits of a result.
#pragma once

#include <string>

#include "services/engine/engine.h"

namespace plumbline {

std::string CpuNumericsClass(ComputeDtype dtype, int threads);

}  // namespace plumbline
