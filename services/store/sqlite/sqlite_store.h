// The embedded store: one SQLite file in WAL mode, one coordinator (a lock file beside it).
#pragma once

#include <memory>

#include "absl/status/statusor.h"
#include "services/store/sqlite/database.h"
#include "services/store/store.h"

namespace plumbline {

// FailedPrecondition: another coordinator uses the file. DataLoss: damaged. NotFound: no such
// folder.
absl::StatusOr<std::unique_ptr<Store>> OpenSqliteStore(const SqliteOptions& options);

}  // namespace plumbline
