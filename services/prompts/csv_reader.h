// RFC 4180 records with their places in the file. Internal to services/prompts.
#pragma once

#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "services/prompts/bytes_check.h"

namespace plumbline::prompts_internal {

struct CsvField {
  std::string text;
  Location location;  // of the field's first byte
};
using CsvRecord = std::vector<CsvField>;

// Comma-separated, LF or CRLF, quotes doubled inside quotes, newlines inside quotes kept. A last
// line end may be missing. InvalidArgument: a quote inside an unquoted field, text after a closing
// quote, a quoted field that never ends, an empty line, a bare CR, a record whose field count
// differs from the first's.
absl::StatusOr<std::vector<CsvRecord>> ReadCsv(absl::string_view bytes, const std::string& where);

}  // namespace plumbline::prompts_internal
