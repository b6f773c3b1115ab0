// What an error of another service means to a study.
#pragma once

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/string_view.h"

namespace plumbline {

// Codes that another attempt may mend become Unavailable; the rest keep theirs. The message starts
// with the service's name, so that a waiting study says whom it waits for.
inline absl::Status PeerStatus(absl::string_view service, const absl::Status& status) {
  const std::string message = absl::StrCat(service, " at ", status.message());
  switch (status.code()) {
    case absl::StatusCode::kOk:
      return status;
    case absl::StatusCode::kUnavailable:
    case absl::StatusCode::kDeadlineExceeded:
    case absl::StatusCode::kAborted:
    case absl::StatusCode::kCancelled:
      return absl::UnavailableError(
          absl::StrCat(message, " (", absl::StatusCodeToString(status.code()), ")"));
    default:
      return absl::Status(status.code(), message);
  }
}

}  // namespace plumbline
