// Where this program's own parts lie: sibling binaries, built-in prompts, the import script.
//
//   <prefix>/bin/plumb, plumb-coordinator, ...
//   <prefix>/share/plumbline/{data,scripts}     when installed
//   <project>/{data,scripts}                    when run from a build tree
//   (<project>/<build>/bin/plumb)
//
// PLUMB_SHARE overrides the shared folder.
#pragma once

#include <string>
#include <vector>

#include "absl/status/statusor.h"

namespace plumbline {

// Path of a sibling binary. NotFound names where it was looked for.
absl::StatusOr<std::string> FindBinary(const std::string& name);

// A file or folder below the shared folder, e.g. "data/prompts". NotFound lists the places tried.
absl::StatusOr<std::string> FindShared(const std::string& relative);

// A Python with the import script's libraries: PLUMB_PYTHON, the project's .venv, else python3.
std::string FindPython();

}  // namespace plumbline
