// Throughput of the GPU engine on the shape of Llama-3.1-8B with random bf16 weights made on the
// device: tokens a second, what a step's time goes to, and its floor (the same products alone, and
// the bytes of keys and values over the measured copy bandwidth).
//
//   gpu_engine_bench [--shape llama-3.1-8b|llama-3.2-1b|qwen2.5-7b] [--layers N] [--running N,N]
//                    [--chunk N] [--new N] [--prompt N] [--plans PLAN;PLAN/PLAN] [--stem N]
//                    [--first-top N] [--ablation PROMPTS] [--sweep PROMPTS,PROMPTS] [--widths N,N]
//   gpu_engine_bench --measure ROUNDS ...     what statistics of prompts cost (measure_layers)
//   gpu_engine_bench --verdict TOKENIZER.json ...    what stopping at a verdict costs
//
// Prints one JSON object a line.
#include <cuda_profiler_api.h>

#include <algorithm>
#include <array>
#include <cstdio>
#include <functional>
#include <random>
#include <string>
#include <vector>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "services/engine/batch/batch_engine.h"
#include "services/engine/cuda/cuda_parts.h"
#include "tests/gpu/engine_floor.h"
#include "tests/gpu/engine_verdict.h"
#include "tests/gpu/engine_work.h"

namespace plumbline {
namespace {

// Every layer of every prompt in turn, at full length and with answers of 24 tokens; the second
// time with the prompts' states held.
void Ablation(const Settings& settings, int running, Engine* engine) {
  for (const int answer : {settings.answer, 24}) {
    for (const char* held : {"first", "again"}) {
      std::mt19937 random(11);
      uint64_t id = 0;
      const int layers = engine->shape().num_layers;
      for (int prompt = 0; prompt < settings.ablation; ++prompt) {
        std::vector<int32_t> tokens(settings.prompt);
        for (int32_t& token : tokens) token = static_cast<int32_t>(random() % 128000);
        for (int layer = 0; layer < layers; ++layer) {
          SequenceRequest request;
          request.id = ++id;
          request.prompt_tokens = tokens;
          request.layers =
              LayersOf(absl::StrCat("*:fp,", layer, ":int3.sym.tensor"), engine->shape());
          request.max_new_tokens = answer;
          Check(engine->Submit(std::move(request)));
        }
      }
      const EngineStats before = engine->stats();
      const auto start = Clock::now();
      const int64_t tokens = StepAll(engine);
      const double seconds = Seconds(start);
      const EngineStats& after = engine->stats();
      std::printf(
          "{\"ablation\": \"%s\", \"running\": %d, \"cells\": %llu, \"answer\": %d, "
          "\"seconds\": %.3f, \"tokens_per_s\": %.0f, \"steps\": %lld, \"padded_share\": %.3f}\n",
          held, running, static_cast<unsigned long long>(id), answer, seconds,
          static_cast<double>(tokens) / seconds, static_cast<long long>(after.steps - before.steps),
          static_cast<double>(after.padded_slots - before.padded_slots) /
              static_cast<double>(after.padded_slots - before.padded_slots + after.prompt_tokens -
                                  before.prompt_tokens + after.decoded_tokens -
                                  before.decoded_tokens));
      std::fflush(stdout);
    }
  }
}

// The same work with and without statistics of every prompt at every layer, by turns; no prompt
// starts from states that are held. Then the parts of one step of prompts.
void Measure(Settings settings, int running, CudaForward* forward, Engine* engine) {
  struct Work {
    int prompt, answer, sequences;
  };
  // Results of a last step are read with no step beside them: enough steps that this does not
  // count.
  const Work works[] = {
      {64, 64, running}, {64, 1, running}, {64, 1, 8 * running}, {512, 1, running}};
  const std::function<void(SequenceRequest*)> all_layers = [&](SequenceRequest* request) {
    for (int layer = 0; layer < engine->shape().num_layers; ++layer) {
      request->measure_layers.push_back(LayerIndex(layer));
    }
  };
  for (const auto& [prompt, answer, sequences] : works) {
    settings.prompt = prompt;
    settings.answer = answer;
    std::array<std::vector<double>, 2> seconds;
    for (int round = -1; round < settings.measure; ++round) {
      for (const bool measured : {false, true}) {
        Submit(settings, {"*:fp"}, sequences, engine, measured ? all_layers : nullptr);
        const auto start = Clock::now();
        StepAll(engine);
        if (round >= 0) seconds[measured].push_back(Seconds(start));  // the first records graphs
      }
    }
    for (auto& times : seconds) std::sort(times.begin(), times.end());
    const auto middle = [&](bool measured) { return seconds[measured][settings.measure / 2]; };
    Submit(settings, {"*:fp"}, sequences, engine, all_layers);
    Check(cudaDeviceSynchronize());
    PartTimes times(forward->stream());
    forward->set_on_part([&](StepPart part) { times.Mark(part); });
    Check(engine->Step().status());
    forward->set_on_part(nullptr);
    const auto sums = times.Sum();
    double all = 0;
    for (const double sum : sums) all += sum;
    StepAll(engine);
    const double measure_ms = sums[static_cast<int>(StepPart::kMeasure)];
    if (measure_ms == 0) Check(absl::InternalError("no prompt was measured: nothing to compare"));
    std::printf(
        "{\"measure\": %d, \"sequences\": %d, \"prompt\": %d, \"answer\": %d, \"seconds_without\": "
        "%.4f, "
        "\"seconds_with\": %.4f, \"slowdown\": %.4f, \"best_slowdown\": %.4f, "
        "\"prompt_step_ms\": %.3f, \"measure_kernels_ms\": %.3f}\n",
        running, sequences, prompt, answer, middle(false), middle(true),
        middle(true) / middle(false) - 1, seconds[1][0] / seconds[0][0] - 1, all, measure_ms);
    std::fflush(stdout);
  }
}

// Every prompt under every one of the first `widths` formats of a sweep, to full length.
void Sweep(const Settings& settings, int running, Engine* engine) {
  constexpr const char* kFormats[] = {"fp",
                                      "int8.asym.token",
                                      "int6.asym.token",
                                      "int5.asym.token",
                                      "int4.asym.token",
                                      "int3.asym.token",
                                      "int2.asym.token"};
  for (const int prompts : settings.sweeps) {
    for (const int widths : settings.widths) {
      std::mt19937 random(13);
      uint64_t id = 0;
      for (int prompt = 0; prompt < prompts; ++prompt) {
        std::vector<int32_t> tokens(settings.prompt);
        for (int32_t& token : tokens) token = static_cast<int32_t>(random() % 128000);
        for (int width = 0; width < std::min<int>(widths, std::size(kFormats)); ++width) {
          SequenceRequest request;
          request.id = ++id;
          request.prompt_tokens = tokens;
          request.layers = LayersOf(absl::StrCat("*:", kFormats[width]), engine->shape());
          request.max_new_tokens = settings.answer;
          Check(engine->Submit(std::move(request)));
        }
      }
      const auto start = Clock::now();
      const int64_t tokens = StepAll(engine);
      const double seconds = Seconds(start);
      std::printf(
          "{\"sweep\": %d, \"widths\": %d, \"running\": %d, \"cells\": %llu, \"answer\": %d, "
          "\"seconds\": %.3f, \"tokens_per_s\": %.0f, \"seconds_per_cell\": %.6f}\n",
          prompts, widths, running, static_cast<unsigned long long>(id), settings.answer, seconds,
          static_cast<double>(tokens) / seconds, seconds / static_cast<double>(id));
      std::fflush(stdout);
    }
  }
}

void Bench(const Settings& settings, int running, int chunk, double bandwidth) {
  EngineOptions options;
  options.dtype = ComputeDtype::kBf16;
  options.max_running = running;
  // Work that is done twice, to be compared, starts from nothing both times.
  const bool compares = settings.measure > 0 || !settings.verdict.empty();
  options.prefix_cache_bytes = compares ? 0 : int64_t{3} << 30;
  const ModelConfig config = ConfigOf(settings);
  const int64_t token_bytes =
      int64_t{4} * config.num_kv_heads * config.head_dim * config.num_layers;
  options.kv_pool_bytes = running * (settings.prompt + settings.answer + 32) * token_bytes;
  CudaOptions cuda;
  cuda.chunk_rows = chunk != 0 ? chunk : running <= 256 ? 256 : 512;
  cuda.max_positions = 1024;
  const auto load_start = Clock::now();
  auto created = CreateCudaForward(config, options, cuda, FillRandom);
  Check(created.status());
  CudaForward* forward = created->get();
  const double load_seconds = Seconds(load_start);
  auto engine = CreateBatchEngine(*std::move(created), SchedulerOptionsOf(*forward, options, cuda));
  const int rows = cuda.chunk_rows;
  const int chunks = (running + rows - 1) / rows;
  const double middle_context = settings.prompt + settings.answer / 2.0;
  const ProductTimes alone = ProductsAlone(
      *forward, rows, chunks, static_cast<int64_t>(running * middle_context) * token_bytes);
  std::printf(
      "{\"shape\": \"%s\", \"running\": %d, \"chunk\": %d, \"products_ms\": %.3f, "
      "\"steady_floor_ms\": %.3f, "
      "\"kv_ms_per_position\": %.6f, \"numerics\": \"%s\"}\n",
      settings.shape.c_str(), running, rows, alone.best, alone.steady_step,
      running * static_cast<double>(token_bytes) / bandwidth * 1e3,
      engine->numerics_class().c_str());
  if (!settings.sweeps.empty()) Sweep(settings, running, engine.get());
  if (settings.ablation > 0) Ablation(settings, running, engine.get());
  if (settings.measure > 0) Measure(settings, running, forward, engine.get());
  if (!settings.verdict.empty()) CompareVerdicts(settings, running, engine.get());
  if (!settings.sweeps.empty() || settings.ablation > 0 || compares) return;
  std::vector<std::vector<std::string>> mixes;
  for (const std::string& plan : settings.plans) mixes.push_back(absl::StrSplit(plan, ';'));
  Submit(settings, {"*:fp"}, 8, engine.get());  // records graphs, wakes the clocks
  StepAll(engine.get());
  for (const auto& mix : mixes) {
    Submit(settings, mix, running, engine.get());
    const auto start = Clock::now();
    const int64_t steps_before = engine->stats().steps;
    const int64_t reused_before = engine->stats().reused_rows;
    const int64_t tokens = StepAll(engine.get());
    const double all = Seconds(start);
    const int64_t steps = engine->stats().steps - steps_before;
    const double kv_ms =
        running * middle_context * static_cast<double>(token_bytes) / bandwidth * 1e3;
    std::printf(
        "{\"running\": %d, \"chunk\": %d, \"mix\": \"%s\", \"prompt\": %d, \"answer\": %d, "
        "\"tokens_per_s\": %.0f, \"seconds\": %.3f, \"steps\": %lld, \"ms_per_step\": %.3f, "
        "\"stem\": %d, \"first_top\": %d, \"reused_rows\": %lld, \"products_ms\": %.3f, "
        "\"products_sustained_ms\": %.3f, \"kv_ms\": %.3f, \"floor_ms\": %.3f, "
        "\"steady_floor_ms\": %.3f, \"load_s\": %.2f}\n",
        running, rows, mix.front().c_str(), settings.prompt, settings.answer, tokens / all, all,
        static_cast<long long>(steps), all * 1e3 / static_cast<double>(steps), settings.stem,
        settings.first_top, static_cast<long long>(engine->stats().reused_rows - reused_before),
        alone.best, alone.sustained, kv_ms, alone.best + kv_ms, alone.steady_step, load_seconds);
    // The same again, part by part, round the middle of the answers. No sequence has ended by then,
    // so the cache holds as many positions as tokens went in.
    const auto tokens_in = [&] {
      return engine->stats().prompt_tokens + engine->stats().decoded_tokens;
    };
    const int64_t tokens_before = tokens_in();
    Submit(settings, mix, running, engine.get());
    const auto step_to = [&](int64_t steps) {
      for (int64_t i = 0; i < steps && engine->active() > 0; ++i) Check(engine->Step().status());
    };
    constexpr int kTimedSteps = 16;
    step_to((running * settings.prompt + cuda.wave_rows - 1) / cuda.wave_rows +
            settings.answer / 2 - kTimedSteps / 2);
    const int64_t held_first = tokens_in() - tokens_before;
    Check(cudaProfilerStart());  // what kernel_profile.cc reports
    const auto graph_start = Clock::now();
    step_to(kTimedSteps);
    const double graph_ms = Seconds(graph_start) * 1e3 / kTimedSteps;
    Check(cudaStreamSynchronize(forward->stream()));
    Check(cudaProfilerStop());
    const double held = static_cast<double>(held_first + tokens_in() - tokens_before) / 2;
    const double held_ms = held * static_cast<double>(token_bytes) / bandwidth * 1e3;
    PartTimes times(forward->stream());
    forward->set_on_part([&](StepPart part) { times.Mark(part); });
    for (int i = 0; i < kTimedSteps; ++i) {
      times.Begin();
      step_to(1);
    }
    forward->set_on_part(nullptr);
    const auto sums = times.Sum();
    std::printf(
        "{\"running\": %d, \"mix\": \"%s\", \"step_ms\": %.3f, \"kv_ms\": %.3f, "
        "\"floor_ms\": %.3f, \"steady_floor_ms\": %.3f, \"parts_ms\": {\"products\": %.3f, "
        "\"attention\": %.3f, \"kv_write\": "
        "%.3f, \"row_ops\": %.3f, "
        "\"sampling\": %.3f}}\n",
        running, mix.front().c_str(), graph_ms, held_ms, alone.best + held_ms, alone.steady_step,
        sums[0] / kTimedSteps, sums[1] / kTimedSteps, sums[2] / kTimedSteps, sums[3] / kTimedSteps,
        sums[4] / kTimedSteps);
    std::fflush(stdout);
    StepAll(engine.get());
  }
}

}  // namespace
}  // namespace plumbline

int main(int argc, char** argv) {
  plumbline::Settings settings;
  const auto numbers = [](const char* text) {
    std::vector<int> values;
    for (const absl::string_view part : absl::StrSplit(text, ',')) {
      int value = 0;
      if (absl::SimpleAtoi(part, &value)) values.push_back(value);
    }
    return values;
  };
  for (int i = 1; i + 1 < argc; i += 2) {
    const std::string name = argv[i];
    const std::vector<int> values = numbers(argv[i + 1]);
    if (name == "--layers") settings.layers = values.at(0);
    if (name == "--prompt") settings.prompt = values.at(0);
    if (name == "--new") settings.answer = values.at(0);
    if (name == "--running") settings.running = values;
    if (name == "--ablation") settings.ablation = values.at(0);
    if (name == "--stem") settings.stem = values.at(0);
    if (name == "--first-top") settings.first_top = values.at(0);
    if (name == "--measure") settings.measure = values.at(0);
    if (name == "--sweep") settings.sweeps = values;
    if (name == "--widths") settings.widths = values;
    if (name == "--verdict") settings.verdict = argv[i + 1];
    if (name == "--shape") settings.shape = argv[i + 1];
    if (name == "--chunk") settings.chunks = values;
    // Mixes apart by '/', the plans of one by ';'.
    if (name == "--plans") settings.plans = absl::StrSplit(argv[i + 1], '/');
  }
  if (plumbline::CountGpus() == 0) {
    std::puts("SKIPPED: no GPU");
    return 0;
  }
  plumbline::Check(cudaSetDevice(0));
  const double bandwidth = plumbline::CopyBandwidth();
  std::printf("{\"copy_bytes_per_s\": %.4g}\n", bandwidth);
  for (const int chunk : settings.chunks) {
    for (const int running : settings.running) {
      plumbline::Bench(settings, running, chunk, bandwidth);
    }
  }
  return 0;
}
