// Early return on a status that is not OK.
//
//   PLUMB_RETURN_IF_ERROR(store->Put(row));
//   PLUMB_ASSIGN_OR_RETURN(Plan plan, ParsePlan(text, options));
//
// Annotate(status, "...") prefixes a message and keeps the code and payloads.
#pragma once

#include <utility>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/string_view.h"

namespace plumbline {

inline absl::Status Annotate(const absl::Status& status, absl::string_view context) {
  if (status.ok()) return status;
  absl::Status annotated(status.code(), absl::StrCat(context, ": ", status.message()));
  status.ForEachPayload([&annotated](absl::string_view url, const absl::Cord& payload) {
    annotated.SetPayload(url, payload);
  });
  return annotated;
}

}  // namespace plumbline

#define PLUMB_MACRO_CONCAT_INNER(a, b) a##b
#define PLUMB_MACRO_CONCAT(a, b) PLUMB_MACRO_CONCAT_INNER(a, b)

#define PLUMB_RETURN_IF_ERROR(expr)                \
  do {                                             \
    ::absl::Status plumb_status_ = (expr);         \
    if (!plumb_status_.ok()) return plumb_status_; \
  } while (false)

#define PLUMB_ASSIGN_OR_RETURN(lhs, expr) \
  PLUMB_ASSIGN_OR_RETURN_IMPL(PLUMB_MACRO_CONCAT(plumb_status_or_, __LINE__), lhs, expr)

#define PLUMB_ASSIGN_OR_RETURN_IMPL(tmp, lhs, expr) \
  auto tmp = (expr);                                \
  if (!tmp.ok()) return tmp.status();               \
  lhs = std::move(tmp).value()
