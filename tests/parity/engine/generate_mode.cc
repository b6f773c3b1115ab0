#include <chrono>
#include <exception>
#include <map>
#include <nlohmann/json.hpp>
#include <string>
#include <utility>

#include "absl/strings/str_cat.h"
#include "services/common/status_macros.h"
#include "services/engine/batch/batch_engine.h"
#include "services/engine/cpu/cpu_model.h"
#include "tests/parity/engine/dump_modes.h"
#include "tests/parity/engine/row_watcher.h"

namespace plumbline::parity {
namespace {

using nlohmann::json;

absl::StatusOr<SequenceRequest> ToRequest(const json& line, const ModelShape& shape) {
  SequenceRequest request;
  request.id = line.at("id");
  request.prompt_tokens = line.at("prompt").get<std::vector<int32_t>>();
  PLUMB_ASSIGN_OR_RETURN(request.layers, ParseLayers(line.at("kv"), shape));
  request.max_new_tokens = line.at("max_new");
  request.stop_tokens = line.value("stop", std::vector<int32_t>{});
  request.forced_tokens = line.value("forced", std::vector<int32_t>{});
  request.want_steps = line.value("steps", false);
  request.want_logit_digest = line.value("digest", false);
  request.score_from = line.value("score_from", -1);
  request.sampling.temperature = line.value("temperature", 0.0);
  request.sampling.top_p = line.value("top_p", 1.0);
  request.sampling.seed = line.value("seed", uint64_t{0});
  request.sampling.stream = line.value("stream", uint64_t{0});
  request.jitter_seed = line.value("jitter", uint64_t{0});
  for (int layer : line.value("capture", std::vector<int>{})) {
    request.capture_layers.push_back(LayerIndex(layer));
  }
  return request;
}

absl::Status WriteCaptures(const SequenceResult& result, const std::string& prefix) {
  for (const CapturedLayer& captured : result.captured) {
    const std::string base = absl::StrCat(prefix, ".L", captured.layer.value());
    PLUMB_RETURN_IF_ERROR(WriteFloats(base + ".q", captured.queries));
    PLUMB_RETURN_IF_ERROR(WriteFloats(base + ".k", captured.keys));
    PLUMB_RETURN_IF_ERROR(WriteFloats(base + ".v", captured.values));
  }
  return absl::OkStatus();
}

json ToJson(const SequenceResult& result) {
  json line = {{"id", result.id},
               {"tokens", result.tokens},
               {"finish", FinishReasonName(result.finish_reason)},
               {"elements", result.kv_elements},
               {"elements_quantized", result.kv_elements_quantized}};
  if (!result.logit_digest.empty()) line["digest"] = result.logit_digest;
  if (result.nll_tokens > 0) {
    line["nll_sum"] = result.nll_sum;
    line["nll_tokens"] = result.nll_tokens;
  }
  for (const StepTrace& step : result.steps) {
    line["steps"].push_back({step.top1, step.top2, step.top1_logit, step.top2_logit, step.regret});
  }
  return line;
}

json ToJson(const EngineStats& stats) {
  return {{"steps", stats.steps},
          {"prompt_tokens", stats.prompt_tokens},
          {"decoded_tokens", stats.decoded_tokens},
          {"padded_slots", stats.padded_slots},
          {"matmul_seconds", stats.matmul_seconds},
          {"attention_seconds", stats.attention_seconds},
          {"quantize_seconds", stats.quantize_seconds},
          {"other_seconds", stats.other_seconds}};
}

// CreateCpuEngine's engine with the watcher round its forward pass.
struct WatchedEngine {
  std::unique_ptr<Engine> engine;
  RowWatcher* watcher;  // owned by the engine
};

template <typename T>
absl::StatusOr<WatchedEngine> CreateWatched(const EngineOptions& options) {
  PLUMB_ASSIGN_OR_RETURN(auto forward, CreateCpuForward<T>(options));
  auto watcher = std::make_unique<RowWatcher>(std::move(forward));
  RowWatcher* watching = watcher.get();
  SchedulerOptions scheduler;
  scheduler.max_running = options.max_running;
  scheduler.kv_pool_bytes = options.kv_pool_bytes;
  return WatchedEngine{CreateBatchEngine(std::move(watcher), scheduler), watching};
}

// Where a request's float files go; empty = nowhere.
struct Outputs {
  std::string captures, rows;
};

absl::Status WriteRows(const LogitRows& rows, const std::string& prefix) {
  for (const auto& [step, row] : rows) {
    PLUMB_RETURN_IF_ERROR(WriteFloats(absl::StrCat(prefix, ".S", step), row));
  }
  return absl::OkStatus();
}

absl::Status SubmitAll(std::istream& in, const WatchedEngine& watched,
                       std::map<uint64_t, Outputs>* outputs) {
  for (std::string text; std::getline(in, text);) {
    if (text.empty()) continue;
    const json line = json::parse(text);
    PLUMB_ASSIGN_OR_RETURN(SequenceRequest request, ToRequest(line, watched.engine->shape()));
    (*outputs)[request.id] = {line.value("capture_out", std::string()),
                              line.value("rows_out", std::string())};
    watched.watcher->Watch(request.id, line.value("rows", std::set<int64_t>{}));
    PLUMB_RETURN_IF_ERROR(watched.engine->Submit(std::move(request)));
  }
  return absl::OkStatus();
}

}  // namespace

absl::Status Generate(const EngineOptions& options, std::istream& in, std::ostream& out) try {
  PLUMB_ASSIGN_OR_RETURN(const WatchedEngine watched, options.dtype == ComputeDtype::kF32
                                                          ? CreateWatched<float>(options)
                                                          : CreateWatched<Bf16>(options));
  Engine* engine = watched.engine.get();
  std::map<uint64_t, Outputs> outputs;
  PLUMB_RETURN_IF_ERROR(SubmitAll(in, watched, &outputs));
  const auto start = std::chrono::steady_clock::now();
  while (engine->active() > 0) {
    PLUMB_ASSIGN_OR_RETURN(const std::vector<SequenceResult> finished, engine->Step());
    for (const SequenceResult& result : finished) {
      PLUMB_RETURN_IF_ERROR(WriteCaptures(result, outputs.at(result.id).captures));
      PLUMB_RETURN_IF_ERROR(
          WriteRows(watched.watcher->Take(result.id), outputs.at(result.id).rows));
      out << ToJson(result).dump() << "\n";
    }
  }
  const std::chrono::duration<double> wall = std::chrono::steady_clock::now() - start;
  out << json{{"stats", ToJson(engine->stats())},
              {"numerics_class", engine->numerics_class()},
              {"wall_seconds", wall.count()}}
             .dump()
      << "\n";
  return absl::OkStatus();
} catch (const json::exception& error) {
  return absl::InvalidArgumentError(error.what());
}

}  // namespace plumbline::parity
