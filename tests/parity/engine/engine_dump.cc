// Serves the Python oracles: runs the engine on requests and prints what it did.
//
//   engine_dump --model DIR [--dtype fp32|bf16] [--threads N] [--max-running N] [--pool-bytes N]
//               [--prefix-bytes N] [--no-digests] [--replay] < requests.jsonl > results.jsonl
//
// Generation: one request a line, all in one continuous batch, results in the order of finishing.
//   {"id": 7, "prompt": [ids], "kv": "*:int4.asym.token", "max_new": 64,          required
//    "stop": [ids], "forced": [ids], "steps": true, "digest": true, "score_from": 1,
//    "temperature": 0.7, "top_p": 0.9, "seed": 1, "stream": 2, "jitter": 3,
//    "capture": [layers], "capture_out": "PREFIX",
//    "rows": [answer indices], "rows_out": "PREFIX"}                              optional
// Result: {"id", "tokens", "finish": eos|length|verdict|nonfinite, "steps": [[top1, top2,
// top1_logit,
//   top2_logit, regret], ...], "digest", "nll_sum", "nll_tokens", "elements",
//   "elements_quantized"}. A capture writes PREFIX.L<layer>.{q,k,v}: [tokens, heads, head_dim]
//   before RoPE, unquantized. Watched rows go to PREFIX.S<index>: [vocab] logits. The last line has
//   the engine's statistics: {"stats": {...}, "numerics_class", "wall_seconds"}.
//
// Replay (--replay): one transformer block on given inputs, each request alone:
//   {"layer": 3, "kv": PLAN, "rows": n, "prompt_rows": p, "hidden": FILE, "out": PREFIX,
//    "force_k": FILE, "force_v": FILE}                                            force_*: optional
//   hidden: [n, hidden_size], the block's input; rows [0, p) are the prompt, the others come one a
//   step. Writes PREFIX.y [n, hidden_size], the block's output, and PREFIX.k, PREFIX.v: what
//   attention read, for each run (the prompt, then each generated row) all positions up to its last
//   row, one run after the other: [p + (p+1) + ... + n, kv_heads, head_dim], keys rotated. With
//   prefill "exact" the prompt's block holds the unquantized values. force_k, force_v have that
//   same layout and replace what attention reads. Raw keys and values of every row are those of a
//   replay under "*:fp". Result: {"layer", "ok": true}.
//
// Every float file is raw little-endian float32, whatever the compute dtype. A bad request ends the
// program with exit code 1 and the reason on stderr.
#include <fstream>
#include <iostream>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "services/common/status_macros.h"
#include "services/quant/plan_parser.h"
#include "tests/parity/engine/dump_modes.h"

namespace plumbline::parity {

absl::StatusOr<std::vector<LayerFormat>> ParseLayers(const std::string& plan,
                                                     const ModelShape& shape) {
  PlanParseOptions options;
  options.paper_quirks = true;
  PLUMB_ASSIGN_OR_RETURN(const Plan parsed, ParsePlan(plan, options));
  return parsed.Resolve(shape.num_layers, shape.num_kv_heads, shape.head_dim);
}

absl::StatusOr<std::vector<float>> ReadFloats(const std::string& path, int64_t count) {
  std::ifstream file(path, std::ios::binary);
  std::vector<float> values(count);
  const std::streamsize bytes = static_cast<std::streamsize>(count * sizeof(float));
  if (!file.read(reinterpret_cast<char*>(values.data()), bytes)) {
    return absl::DataLossError(absl::StrCat(path, ": cannot read ", bytes, " bytes"));
  }
  return values;
}

absl::Status WriteFloats(const std::string& path, const std::vector<float>& values) {
  std::ofstream file(path, std::ios::binary);
  file.write(reinterpret_cast<const char*>(values.data()),
             static_cast<std::streamsize>(values.size() * sizeof(float)));
  return file ? absl::OkStatus() : absl::DataLossError(absl::StrCat(path, ": cannot write"));
}

namespace {

struct Arguments {
  EngineOptions options;
  bool replay = false;
};

absl::Status SetOption(const std::string& name, const std::string& value, EngineOptions* options) {
  bool ok = true;
  if (name == "--model") {
    options->bundle_dir = value;
  } else if (name == "--dtype") {
    ok = value == "fp32" || value == "bf16";
    options->dtype = value == "bf16" ? ComputeDtype::kBf16 : ComputeDtype::kF32;
  } else if (name == "--threads") {
    ok = absl::SimpleAtoi(value, &options->threads);
  } else if (name == "--max-running") {
    ok = absl::SimpleAtoi(value, &options->max_running);
  } else if (name == "--pool-bytes") {
    ok = absl::SimpleAtoi(value, &options->kv_pool_bytes);
  } else if (name == "--prefix-bytes") {
    ok = absl::SimpleAtoi(value, &options->prefix_cache_bytes);
  } else {
    return absl::InvalidArgumentError(absl::StrCat("unknown option ", name));
  }
  return ok ? absl::OkStatus()
            : absl::InvalidArgumentError(absl::StrCat("bad value '", value, "' of ", name));
}

absl::StatusOr<Arguments> ParseArguments(int argc, char** argv) {
  Arguments arguments;
  for (int i = 1; i < argc; ++i) {
    const std::string name = argv[i];
    if (name == "--replay") {
      arguments.replay = true;
    } else if (name == "--no-digests") {
      arguments.options.verify_digests = false;
    } else if (i + 1 < argc) {
      PLUMB_RETURN_IF_ERROR(SetOption(name, argv[++i], &arguments.options));
    } else {
      return absl::InvalidArgumentError(absl::StrCat("option ", name, " needs a value"));
    }
  }
  return arguments;
}

absl::Status RealMain(int argc, char** argv) {
  PLUMB_ASSIGN_OR_RETURN(const Arguments arguments, ParseArguments(argc, argv));
  return arguments.replay ? Replay(arguments.options, std::cin, std::cout)
                          : Generate(arguments.options, std::cin, std::cout);
}

}  // namespace
}  // namespace plumbline::parity

int main(int argc, char** argv) {
  const absl::Status status = plumbline::parity::RealMain(argc, argv);
  if (status.ok()) return 0;
  std::cerr << "engine_dump: " << status.ToString() << "\n";
  return 1;
}
