// What a measured layer must hold, from the same request's captured rows.
#pragma once

#include "services/engine/batch/measured_layer.h"

namespace plumbline::testing {

inline MeasuredLayer MeasuredOf(const CapturedLayer& captured, const ModelShape& shape) {
  const int64_t width = int64_t{shape.num_kv_heads} * shape.head_dim;
  MeasuredLayer measured;
  measured.layer = captured.layer;
  measured.tokens = captured.tokens;
  measured.keys = MeasureTensor(captured.keys.data(), captured.tokens, width, shape);
  measured.values = MeasureTensor(captured.values.data(), captured.tokens, width, shape);
  return measured;
}

}  // namespace plumbline::testing
