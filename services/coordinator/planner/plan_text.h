// Texts of the plans that a diagnosis tries: edits of the target, single-layer ablations,
// selections of channels. Texts are not canonical; CellFactory makes them so.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "plumbline/v1/model.pb.h"
#include "plumbline/v1/study.pb.h"

namespace plumbline {

inline constexpr char kFullPrecision[] = "*:fp";
inline constexpr char kDeploymentSymmetryAndGranularity[] = "asym.token";  // the paper's section 4
inline constexpr char kMechanismFormat[] = "int3.sym.tensor";              // the paper's section 5

// Memory is given at this length of context and in 16-bit full precision, whatever the compute
// dtype.
inline constexpr int64_t kMemoryTokens = 1024;
inline constexpr int kServedFpBytes = 2;

// {0, 1, 2, 5} -> "0-2+5". Precondition: ascending, unique, not empty.
std::string LayerList(const std::vector<uint32_t>& layers);

// The layers first, first + 1, ... (count of them).
std::vector<uint32_t> LayerRange(uint32_t first, uint32_t count);

// Full precision but for `layers`, which get `format`.
std::string OnlyLayers(const std::vector<uint32_t>& layers, const std::string& format);

// `plan` with `layers` overridden by `format`. No layers: the plan itself.
std::string WithLayers(const std::string& plan, const std::vector<uint32_t>& layers,
                       const std::string& format);

// "int3.sym.tensor" on the given flat channels: "int3.sym.tensor.ch(1+4)".
std::string OnChannels(const std::string& format, const std::vector<uint32_t>& channels);

// The target of a study as a plan: a bare format goes on every layer. Not of a custom study, which
// has none unless it names one.
std::string TargetPlan(const v1::Study& study);

// The format of most layers ("int4.asym.token", "KEYS|VALUES"): what a plan is an edit of.
absl::StatusOr<std::string> BaseFormat(const std::string& plan, const v1::ModelInfo& model,
                                       bool quirks);

// Mean bytes a token at about kMemoryTokens tokens of context. A window holds between none and all
// of its tokens in full precision as the context grows: the mean over one such cycle.
absl::StatusOr<double> KvBytesPerToken(const std::string& plan, const v1::ModelInfo& model,
                                       bool quirks);

// The share of K and V elements that the plan quantizes once no window or sink keeps them: 1/30 for
// one layer of 30, 0 for full precision.
absl::StatusOr<double> PlannedShare(const std::string& plan, const v1::ModelInfo& model,
                                    bool quirks);

// The plan with every prompt reading keys and values as they are stored: `exact` becomes `seen`.
// Canonical.
absl::StatusOr<std::string> ReadAsStored(const std::string& plan, const v1::ModelInfo& model,
                                         bool quirks);

// True when no layer of the plan is quantized.
absl::StatusOr<bool> IsFullPrecision(const std::string& plan, const v1::ModelInfo& model,
                                     bool quirks);

}  // namespace plumbline
