// From protos to what the engine takes: tokens, resolved plan, decoding, early stop.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "plumbline/v1/cell.pb.h"
#include "services/engine/engine.h"
#include "services/worker/calibration_source.h"
#include "services/worker/model_catalog.h"

namespace plumbline {

struct SequenceInput {
  std::vector<v1::ChatTurn> turns;
  std::string plan;  // any spelling
  v1::DecodingSettings decoding;
  std::string prompt_stream;  // what keys the sampled randomness: the prompt, never the plan
  uint64_t jitter_seed = 0;
  bool paper_quirks = true;  // a planned cell was admitted by the planner; direct calls decide
};

// Token ids of the prompt. Raw: the text's own, after BOS where the model's tokenizer begins with
// it. InvalidArgument: unknown role, raw with other than one user turn, not raw and no chat format,
// empty.
absl::StatusOr<std::vector<int32_t>> EncodePrompt(const TextModel& text,
                                                  const std::vector<v1::ChatTurn>& turns,
                                                  const v1::DecodingSettings& decoding);

// How many tokens of an encoded conversation come before its last turn's own text: what requests of
// one system prompt have in common. 0 for raw prompts.
int StemTokens(const TextModel& text, const std::vector<v1::ChatTurn>& turns,
               const v1::DecodingSettings& decoding, const std::vector<int32_t>& tokens);

// The plan resolved for the model. InvalidArgument with the caret line.
absl::StatusOr<std::vector<LayerFormat>> ResolvePlan(const std::string& plan,
                                                     const v1::ModelInfo& model, bool paper_quirks);

// Everything but id, steps, digests and captures. The request keeps the calibrations alive through
// `verdict_decided`'s and its own shared state. Unavailable when a calibration cannot be fetched.
struct BuiltRequest {
  SequenceRequest request;
  std::vector<std::shared_ptr<const LayerCalibration>>
      calibrations;  // keep until the sequence ended
};
absl::StatusOr<BuiltRequest> BuildRequest(const CatalogEntry& entry, const SequenceInput& input,
                                          CalibrationSource* calibrations);

// Splits a text's tokens into perplexity windows: window w covers [begin, end) and scores the
// tokens at index >= score_from of the window. Every token but the text's first is scored exactly
// once.
struct ScoreWindow {
  std::vector<int32_t> tokens;
  int score_from = 1;
};
std::vector<ScoreWindow> ScoreWindows(const std::vector<int32_t>& tokens, int window, int stride);

// SHA-256 of the ids as little-endian int32.
std::string TokenDigest(const std::vector<int32_t>& tokens);

}  // namespace plumbline
