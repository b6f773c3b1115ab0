#include "services/rpc/metrics.h"

namespace plumbline {

absl::string_view BuildVersion() { return PLUMB_VERSION; }

}  // namespace plumbline
