#include "services/rpc/state_word.h"

namespace plumbline {

const char* ExperimentStateWord(v1::ExperimentState state) {
  switch (state) {
    case v1::EXPERIMENT_STATE_PENDING:
      return "pending";
    case v1::EXPERIMENT_STATE_RUNNING:
      return "running";
    case v1::EXPERIMENT_STATE_WAITING:
      return "waiting";
    case v1::EXPERIMENT_STATE_SUCCEEDED:
      return "succeeded";
    case v1::EXPERIMENT_STATE_FAILED:
      return "failed";
    case v1::EXPERIMENT_STATE_CANCELLED:
      return "cancelled";
    default:
      return "unknown";
  }
}

}  // namespace plumbline
