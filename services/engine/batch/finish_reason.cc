#include "services/engine/engine.h"

namespace plumbline {

const char* FinishReasonName(FinishReason reason) {
  switch (reason) {
    case FinishReason::kEos:
      return "eos";
    case FinishReason::kLength:
      return "length";
    case FinishReason::kVerdict:
      return "verdict";
    case FinishReason::kNonFinite:
      return "nonfinite";
  }
  return "unknown";
}

}  // namespace plumbline
