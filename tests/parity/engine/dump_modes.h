// The two modes of engine_dump; the protocol is told in engine_dump.cc.
#pragma once

#include <istream>
#include <ostream>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "services/engine/engine.h"

namespace plumbline::parity {

absl::Status Generate(const EngineOptions& options, std::istream& in, std::ostream& out);
absl::Status Replay(const EngineOptions& options, std::istream& in, std::ostream& out);

// Text -> one format a layer, published quirks allowed.
absl::StatusOr<std::vector<LayerFormat>> ParseLayers(const std::string& plan,
                                                     const ModelShape& shape);

// Raw little-endian float32.
absl::StatusOr<std::vector<float>> ReadFloats(const std::string& path, int64_t count);
absl::Status WriteFloats(const std::string& path, const std::vector<float>& values);

}  // namespace plumbline::parity
