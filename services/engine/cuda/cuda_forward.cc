#include "services/engine/cuda/cuda_forward.h"

#include <algorithm>
#include <exception>
#include <new>
#include <utility>

#include "absl/strings/str_cat.h"
#include "kernels/bf16.h"
#include "kernels/cuda/feed.h"
#include "services/common/digest.h"
#include "services/common/status_macros.h"
#include "services/engine/cpu/stopwatch.h"

namespace plumbline {
namespace {

cuda::SampleTask DeviceTask(const LogitTask& task, int slot) {
  cuda::SampleTask on_device;
  on_device.active = 1;
  on_device.choose = task.choose && DeviceChooses(task);
  on_device.forced = task.choose ? task.forced : -1;
  on_device.target = task.target;
  on_device.temperature = task.sampling.temperature;
  on_device.position = static_cast<int32_t>(task.position);
  on_device.seed = task.sampling.seed;
  on_device.stream = task.sampling.stream;
  on_device.feed_slot = on_device.choose != 0 ? slot : -1;
  return on_device;
}

LogitOutcome OutcomeOf(const LogitTask& task, const cuda::SampleOutcome& read) {
  LogitOutcome outcome;
  outcome.finite = read.finite != 0;
  if (!outcome.finite) return outcome;
  outcome.trace.top1 = read.top1;
  outcome.trace.top2 = read.top2;
  outcome.trace.top1_logit = read.top1_logit;
  outcome.trace.top2_logit = read.top2_logit;
  if (task.target >= 0) outcome.nll = read.nll;
  if (task.choose) {
    outcome.token = read.token;
    outcome.trace.regret = read.top1_logit - read.fed_logit;
  }
  return outcome;
}

}  // namespace

absl::StatusOr<std::unique_ptr<CudaForward>> CudaForward::Create(std::unique_ptr<Parts> parts) {
  std::unique_ptr<CudaForward> forward(new CudaForward(std::move(parts)));
  const ModelStepOptions& options = forward->parts_->step_options;
  const StepLayout layout(options.limits, options.limits.max_chunks);
  for (Block& block : forward->blocks_) {
    PLUMB_ASSIGN_OR_RETURN(block.blob, PinnedBuffer::Create(layout.bytes, "a step"));
    PLUMB_ASSIGN_OR_RETURN(
        block.outcomes,
        PinnedBuffer::Create(layout.rows * int64_t{sizeof(cuda::SampleOutcome)}, "a step"));
    PLUMB_ASSIGN_OR_RETURN(block.done, Event::Create());
  }
  PLUMB_ASSIGN_OR_RETURN(forward->placed_, Event::Create());
  // A run chooses one token, so it has one list at most.
  PLUMB_ASSIGN_OR_RETURN(forward->logit_rows_,
                         LogitRows::Create(options.dtype, options.dims.vocab,
                                           options.limits.max_runs, forward->stream()));
  for (Block& block : forward->blocks_) {
    PLUMB_ASSIGN_OR_RETURN(
        block.lists, PinnedBuffer::Create(forward->logit_rows_->lists_bytes(), "lists of tokens"));
  }
  const Parts& p = *forward->parts_;
  forward->reuse_ =
      std::make_unique<PromptReuse>(p.space.get(), p.prefixes.get(), p.stems.get(),
                                    int64_t{options.dims.hidden} * DtypeBytes(options.dtype));
  forward->measures_ = std::make_unique<MeasureSpace>(options.dims, p.options.measure_bytes,
                                                      options.limits.max_runs, p.stream.get());
  StepSources sources;
  sources.pool = p.space->pool();
  sources.pages = p.space->page_table();
  sources.raw_pages = p.space->raw_page_table();
  sources.max_pages = p.space->max_pages();
  sources.plan_rules = p.plans->plan_rules();
  sources.rules = p.plans->rules();
  sources.frozen = p.space->frozen();
  sources.max_groups = p.space->max_groups();
  const int64_t half_table = options.max_positions * (options.dims.head_dim / 2);
  sources.rope = {p.rope.as<float>(), p.rope.as<float>() + half_table};
  p.step->set_sources(sources);
  return forward;
}

CudaForward::~CudaForward() {
  cudaSetDevice(parts_->options.device);
  cudaStreamSynchronize(stream());
}

absl::StatusOr<std::unique_ptr<SequenceState>> CudaForward::Open(const SequenceRequest& request) {
  const int64_t positions =
      static_cast<int64_t>(request.prompt_tokens.size()) + request.max_new_tokens;
  if (positions > parts_->step_options.max_positions) {
    return absl::InvalidArgumentError(absl::StrCat(
        "a prompt of ", request.prompt_tokens.size(), " tokens and ", request.max_new_tokens,
        " new ones exceed the ", parts_->step_options.max_positions,
        " positions of this engine: give the worker a larger max_positions"));
  }
  PLUMB_RETURN_IF_ERROR(CudaStatus(cudaSetDevice(parts_->options.device), "selecting the GPU"));
  if (!request.measure_layers.empty()) PLUMB_RETURN_IF_ERROR(measures_->Open());
  PLUMB_ASSIGN_OR_RETURN(auto plan, parts_->plans->Get(request.layers, request.calibrations));
  return std::make_unique<CudaSequence>(request, std::move(plan), parts_->space.get(),
                                        parts_->prefixes->enabled());
}

absl::StatusOr<std::vector<std::vector<LogitOutcome>>> CudaForward::Run(
    const std::vector<ForwardRun>& runs, EngineStats* stats) {
  PLUMB_RETURN_IF_ERROR(Start(runs, stats));
  return Finish(stats);
}

absl::Status CudaForward::CheckRoom(int64_t rows, size_t runs) const {
  const StepLimits& limits = parts_->step_options.limits;
  if (rows <= limits.max_rows() && static_cast<int64_t>(runs) <= limits.max_runs) {
    return absl::OkStatus();
  }
  return absl::InternalError(absl::StrCat("a step of ", rows, " rows in ", runs,
                                          " runs; the engine has room for ", limits.max_rows(),
                                          " rows in ", limits.max_runs, " runs"));
}

// Reads nothing back and waits for nothing.
void CudaForward::Fill(const std::vector<Placed>& placed, int chunks, Block* block,
                       Flight* flight) const {
  StepBlob blob(StepLayout(parts_->step_options.limits, chunks), block->blob.data());
  flight->outcomes.resize(placed.size());
  for (size_t i = 0; i < placed.size(); ++i) {
    const Placed& p = placed[i];
    const ForwardRun& run = *p.run;
    cuda::Run& on_device = blob.runs()[i];
    on_device.first_row = static_cast<int32_t>(p.row);
    on_device.rows = static_cast<int32_t>(p.rows());
    const int64_t first = run.first + p.skipped;
    on_device.first_position = static_cast<int32_t>(first);
    on_device.prompt = run.prompt ? 1 : 0;
    on_device.sequence = p.sequence->slot();
    on_device.plan = p.sequence->plan_row();
    on_device.jitter_seed = p.sequence->jitter_seed();
    on_device.start_layer = p.start_layer;
    for (int64_t j = 0; j < p.rows(); ++j) {
      const int32_t token = run.tokens[p.skipped + j];
      blob.source()[p.row + j] = token == kFedToken ? cuda::FedSlot(p.sequence->slot()) : token;
      blob.row_run()[p.row + j] = static_cast<int32_t>(i);
      blob.row_position()[p.row + j] = static_cast<int32_t>(first + j);
    }
    Wanted wanted = {p.index, {}};
    for (const RowTask& task : run.tasks) {
      blob.task_row()[flight->tasks] = static_cast<int32_t>(p.row + task.row - p.skipped);
      blob.tasks()[flight->tasks++] = DeviceTask(task.task, p.sequence->slot());
      wanted.tasks.push_back(task.task);
    }
    flight->outcomes[p.index].resize(run.tasks.size());
    flight->wanted.push_back(std::move(wanted));
  }
  if (flight->measured.empty()) return;
  blob.measured()->count = static_cast<int32_t>(flight->measured.size());
  blob.measured()->first_slot = measures_->FirstSlot(flight->half);
  auto* list = reinterpret_cast<int32_t*>(blob.measured() + 1);
  for (const Measured& measured : flight->measured) *list++ = measured.run;
}

BodyHooks CudaForward::HooksOf(const std::vector<Placed>& placed, const Flight& flight) {
  BodyHooks hooks;
  hooks.on_part = on_part_;
  bool captures = false, saves = false;
  for (const Placed& p : placed) {
    captures |= p.measured_on_host || (p.run->prompt && !p.sequence->captures().empty());
    saves |= p.saved != nullptr;
  }
  if (!flight.measured.empty()) hooks.measure_out = measures_->out();
  if (captures) {
    hooks.on_written = [&](int layer, const void* qkv) { return Capture(layer, qkv, placed); };
  }
  const bool joins = placed.back().start_layer > 0;
  if (saves || joins) {
    hooks.on_inputs = [&](int layer, void* hidden) {
      return reuse_->TakeInputs(layer, static_cast<char*>(hidden), placed);
    };
  }
  if (joins) {
    for (int layer = 0; layer <= parts_->step_options.dims.layers; ++layer) {
      int64_t rows = 0;
      for (const Placed& p : placed) rows += p.start_layer <= layer ? p.rows() : 0;
      hooks.rows_of_layer.push_back(rows);
    }
  }
  return hooks;
}

absl::Status CudaForward::Start(const std::vector<ForwardRun>& runs, EngineStats* stats) {
  try {
    Stopwatch whole;
    PLUMB_RETURN_IF_ERROR(CudaStatus(cudaSetDevice(parts_->options.device), "selecting the GPU"));
    // A slot of a sequence that was cancelled may be taken again at once, while the page table of
    // before still waits to be copied behind prompt states. No step is waited for here.
    PLUMB_RETURN_IF_ERROR(CudaStatus(cudaEventSynchronize(placed_.get()), "page tables"));
    PLUMB_ASSIGN_OR_RETURN(std::vector<Placed> placed, reuse_->Place(runs));
    PLUMB_RETURN_IF_ERROR(CudaStatus(cudaEventRecord(placed_.get(), stream()), "page tables"));
    int64_t rows = 0, longest = 0;
    for (const Placed& p : placed) {
      rows += p.rows();
      longest = std::max(longest, p.run->first + static_cast<int64_t>(p.run->tokens.size()));
      stats->reused_rows += p.skipped;
    }
    PLUMB_RETURN_IF_ERROR(CheckRoom(rows, runs.size()));
    const int chunk = parts_->step_options.limits.chunk_rows;
    const int chunks = static_cast<int>((rows + chunk - 1) / chunk);
    Flight flight;
    flight.block = next_block_;
    next_block_ = (next_block_ + 1) % kBlocks;
    Block& block = blocks_[flight.block];
    PLUMB_RETURN_IF_ERROR(TakeMeasured(&placed, &flight));
    Fill(placed, chunks, &block, &flight);
    const BodyHooks hooks = HooksOf(placed, flight);
    PLUMB_RETURN_IF_ERROR(parts_->step->StartBody(block.blob.data(), chunks, longest, hooks));
    if (!flight.measured.empty()) {
      PLUMB_RETURN_IF_ERROR(
          measures_->StartCopy(flight.half, static_cast<int>(flight.measured.size())));
    }
    PLUMB_RETURN_IF_ERROR(reuse_->Keep(&placed));
    PLUMB_RETURN_IF_ERROR(RunHead(chunks, hooks, &flight));
    PLUMB_RETURN_IF_ERROR(
        logit_rows_->CopyLists(flight.lists, block.lists.as<cuda::ProbableToken>(), stream()));
    PLUMB_RETURN_IF_ERROR(
        CudaStatus(cudaMemcpyAsync(block.outcomes.data(), parts_->step->outcomes(),
                                   flight.tasks * sizeof(cuda::SampleOutcome),
                                   cudaMemcpyDeviceToHost, stream()),
                   "reading tokens"));
    PLUMB_RETURN_IF_ERROR(
        CudaStatus(cudaEventRecord(block.done.get(), stream()), "reading tokens"));
    flights_.push_back(std::move(flight));
    stats->padded_slots += int64_t{chunks} * chunk - rows;
    stats->other_seconds += whole.Lap();
    return absl::OkStatus();
  } catch (const std::bad_alloc&) {
    return absl::ResourceExhaustedError("not enough memory of the host for an engine step");
  } catch (const std::exception& error) {
    return absl::InternalError(absl::StrCat("engine step failed: ", error.what()));
  }
}

absl::Status CudaForward::RunHead(int chunks, const BodyHooks& hooks, Flight* flight) {
  const int chunk = parts_->step_options.limits.chunk_rows;
  for (int first = 0; first < flight->tasks; first += chunk) {
    PLUMB_RETURN_IF_ERROR(parts_->step->StartHead(chunks, first, hooks));
    std::vector<LogitRows::Wanted> wanted;
    std::vector<LogitRows::Listed> listed;
    int task = 0;
    for (const Wanted& run : flight->wanted) {
      for (size_t j = 0; j < run.tasks.size(); ++j, ++task) {
        if (task < first || task >= first + chunk) continue;
        const LogitTask& asked = run.tasks[j];
        if (DeviceLists(asked)) listed.push_back({task - first, asked.top});
        if (!NeedsHost(asked)) continue;
        wanted.push_back({task - first, &asked, &flight->outcomes[run.index][j]});
      }
    }
    PLUMB_RETURN_IF_ERROR(
        logit_rows_->StartLists(parts_->step->logits(), listed, flight->lists, stream()));
    flight->lists += static_cast<int>(listed.size());
    PLUMB_RETURN_IF_ERROR(logit_rows_->Read(parts_->step->logits(), wanted, stream()));
  }
  return absl::OkStatus();
}

absl::StatusOr<std::vector<std::vector<LogitOutcome>>> CudaForward::Finish(EngineStats* stats) {
  Stopwatch whole;
  Flight flight = std::move(flights_.front());
  flights_.pop_front();
  Block& block = blocks_[flight.block];
  PLUMB_RETURN_IF_ERROR(CudaStatus(cudaEventSynchronize(block.done.get()), "an engine step"));
  PLUMB_RETURN_IF_ERROR(ReadMeasured(flight));
  const auto* read = block.outcomes.as<cuda::SampleOutcome>();
  const auto* list = block.lists.as<cuda::ProbableToken>();
  for (const Wanted& run : flight.wanted) {
    for (size_t j = 0; j < run.tasks.size(); ++j, ++read) {
      const LogitTask& task = run.tasks[j];
      LogitOutcome& held = flight.outcomes[run.index][j];
      // What the device chose has been fed, so that is the answer; the host adds digest and list.
      if (DeviceChooses(task)) {
        LogitOutcome outcome = OutcomeOf(task, *read);
        outcome.digest = std::move(held.digest);
        outcome.top = std::move(held.top);
        held = std::move(outcome);
      }
      // A row's list is the device's, whatever else of the row the host reads.
      if (!DeviceLists(task)) continue;
      if (held.finite) held.top = logit_rows_->ListOf(task, list);
      list += cuda::kMaxTop;
    }
  }
  stats->other_seconds += whole.Lap();
  return std::move(flight.outcomes);
}

// Keys and values with a replica's noise, before quantization and rotation, as the CPU engine has
// them; queries before rotation.
absl::Status CudaForward::Capture(int layer, const void* qkv, const std::vector<Placed>& placed) {
  const cuda::ModelDims& dims = parts_->step_options.dims;
  const int64_t row_bytes = int64_t{dims.qkv_dim()} * DtypeBytes(parts_->step_options.dtype);
  for (const Placed& p : placed) {
    if (!p.run->prompt) continue;
    const auto it = p.sequence->captures().find(layer);
    const bool captured = it != p.sequence->captures().end();
    const bool measured = p.measured_on_host && p.sequence->measures()->count(layer) > 0;
    if (!captured && !measured) continue;
    const int64_t bytes = static_cast<int64_t>(p.run->tokens.size()) * row_bytes;
    if (captured_rows_.bytes() < bytes) {
      PLUMB_ASSIGN_OR_RETURN(captured_rows_, PinnedBuffer::Create(bytes, "captured rows"));
    }
    PLUMB_RETURN_IF_ERROR(CudaStatus(
        cudaMemcpyAsync(captured_rows_.data(), static_cast<const char*>(qkv) + p.row * row_bytes,
                        static_cast<size_t>(bytes), cudaMemcpyDeviceToHost, stream()),
        "capturing a layer"));
    PLUMB_RETURN_IF_ERROR(CudaStatus(cudaStreamSynchronize(stream()), "capturing a layer"));
    if (captured) KeepCapture(p, captured_rows_.data(), &it->second);
    if (measured) MeasureOnHost(p, captured_rows_.data(), &p.sequence->measures()->at(layer));
  }
  return absl::OkStatus();
}

void CudaForward::KeepCapture(const Placed& placed, const char* rows,
                              CapturedLayer* captured) const {
  const cuda::ModelDims& dims = parts_->step_options.dims;
  const auto append = [&](int64_t first, int64_t count, std::vector<float>* to) {
    for (int64_t i = first; i < first + count; ++i) {
      to->push_back(parts_->step_options.dtype == cuda::Dtype::kF32
                        ? reinterpret_cast<const float*>(rows)[i]
                        : kernels::ToFloat(reinterpret_cast<const Bf16*>(rows)[i]));
    }
  };
  captured->tokens += static_cast<int64_t>(placed.run->tokens.size());
  for (int64_t i = 0; i < static_cast<int64_t>(placed.run->tokens.size()); ++i) {
    const int64_t row = i * dims.qkv_dim();
    append(row, dims.q_dim(), &captured->queries);
    append(row + dims.q_dim(), dims.kv_dim(), &captured->keys);
    append(row + dims.q_dim() + dims.kv_dim(), dims.kv_dim(), &captured->values);
  }
}

}  // namespace plumbline
