// Whether a slow tool is watching, such as a sanitizer: a small part of the cases is enough.
#pragma once

#include <cstdlib>

namespace plumbline {

inline bool SmallRun() { return std::getenv("PLUMB_GPU_SMALL") != nullptr; }

}  // namespace plumbline
