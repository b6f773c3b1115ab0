#include "services/worker/engine_runner.h"

#include <algorithm>
#include <chrono>
#include <future>
#include <utility>

#include "absl/strings/str_cat.h"
#include "services/common/logging.h"
#include "services/common/status_macros.h"

namespace plumbline {
namespace {

void AddStats(const EngineStats& from, EngineStats* to) {
  to->steps += from.steps;
  to->prompt_tokens += from.prompt_tokens;
  to->decoded_tokens += from.decoded_tokens;
  to->reused_rows += from.reused_rows;
  to->padded_slots += from.padded_slots;
  to->matmul_seconds += from.matmul_seconds;
  to->attention_seconds += from.attention_seconds;
  to->quantize_seconds += from.quantize_seconds;
  to->other_seconds += from.other_seconds;
}

EngineStats Difference(const EngineStats& after, const EngineStats& before) {
  EngineStats added;
  added.steps = after.steps - before.steps;
  added.prompt_tokens = after.prompt_tokens - before.prompt_tokens;
  added.decoded_tokens = after.decoded_tokens - before.decoded_tokens;
  added.reused_rows = after.reused_rows - before.reused_rows;
  added.padded_slots = after.padded_slots - before.padded_slots;
  added.matmul_seconds = after.matmul_seconds - before.matmul_seconds;
  added.attention_seconds = after.attention_seconds - before.attention_seconds;
  added.quantize_seconds = after.quantize_seconds - before.quantize_seconds;
  added.other_seconds = after.other_seconds - before.other_seconds;
  return added;
}

constexpr int kProbeSequences = 64;
constexpr int kProbePromptTokens = 24;
constexpr int kProbeAnswerTokens = 16;
constexpr int kProbeWarmUp = 2;  // steps in which buffers and graphs are made
constexpr std::chrono::duration<double> kProbeSeconds{1};

int64_t TokensOf(const Engine& engine) {
  return engine.stats().prompt_tokens + engine.stats().decoded_tokens;
}

absl::Status SubmitProbe(Engine& engine, int sequences) {
  const ModelShape& shape = engine.shape();
  for (int i = 0; i < sequences; ++i) {
    SequenceRequest request;
    request.id = static_cast<uint64_t>(i);
    for (int t = 0; t < kProbePromptTokens; ++t) {
      request.prompt_tokens.push_back((i * 31 + t * 7 + 1) % std::max(shape.vocab_size, 1));
    }
    request.layers.resize(static_cast<size_t>(shape.num_layers));
    request.max_new_tokens = kProbeAnswerTokens;
    PLUMB_RETURN_IF_ERROR(engine.Submit(std::move(request)));
  }
  return absl::OkStatus();
}

// Of an idle engine, which is idle again afterwards.
absl::StatusOr<double> TokensPerSecond(Engine& engine, int max_running) {
  const int sequences = std::min(max_running, kProbeSequences);
  absl::Status status = SubmitProbe(engine, sequences);
  auto started = std::chrono::steady_clock::now();
  std::chrono::duration<double> took{0};
  int64_t before = TokensOf(engine);
  for (int step = 0; status.ok() && engine.active() > 0 && took < kProbeSeconds; ++step) {
    if (step == kProbeWarmUp) {
      before = TokensOf(engine);
      started = std::chrono::steady_clock::now();
    }
    status = engine.Step().status();
    took = std::chrono::steady_clock::now() - started;
  }
  const int64_t tokens = TokensOf(engine) - before;
  for (int i = 0; i < sequences; ++i) (void)engine.Cancel(static_cast<uint64_t>(i));
  PLUMB_RETURN_IF_ERROR(status);
  return took.count() > 0 ? static_cast<double>(tokens) / took.count() : 0;
}

absl::Status ShutsDown() { return absl::CancelledError("the worker shuts down"); }

}  // namespace

EngineRunner::EngineRunner(EngineFactory factory, EngineOptions options, size_t max_loaded,
                           StepObserver on_step, ActiveObserver on_active)
    : factory_(std::move(factory)),
      options_(std::move(options)),
      max_loaded_(max_loaded),
      on_step_(std::move(on_step)),
      on_active_(std::move(on_active)) {
  thread_ = std::thread([this] { Run(); });
}

EngineRunner::~EngineRunner() {
  {
    std::lock_guard<std::mutex> lock(mutex_);
    stopping_ = true;
  }
  wake_.notify_all();
  thread_.join();
}

void EngineRunner::Stop() {
  std::unique_lock<std::mutex> lock(mutex_);
  refusing_ = true;
  wake_.notify_all();
  idle_.wait(lock, [this] { return active_ == 0; });
}

uint64_t EngineRunner::Submit(const CatalogEntry& entry, SequenceRequest request, Done done) {
  uint64_t id = 0;
  {
    std::lock_guard<std::mutex> lock(mutex_);
    id = next_id_++;
    ++active_;
    request.id = id;
    queue_.push_back({id, entry, std::move(request), std::move(done)});
  }
  wake_.notify_all();
  return id;
}

void EngineRunner::Cancel(uint64_t id) {
  {
    std::lock_guard<std::mutex> lock(mutex_);
    cancelled_.push_back(id);
  }
  wake_.notify_all();
}

template <typename Answer>
absl::StatusOr<Answer> EngineRunner::OnEngine(const CatalogEntry& entry,
                                              const std::function<Answer(Loaded& loaded)>& ask) {
  auto answer = std::make_shared<std::promise<absl::StatusOr<Answer>>>();
  std::future<absl::StatusOr<Answer>> future = answer->get_future();
  {
    std::lock_guard<std::mutex> lock(mutex_);
    if (stopping_) return absl::UnavailableError("the engine is shutting down");
    tasks_.push_back([this, entry, answer, &ask] {
      absl::StatusOr<Loaded*> loaded = Load(entry);
      if (!loaded.ok()) {
        answer->set_value(loaded.status());
      } else {
        Answer said = ask(**loaded);
        RefreshStats();
        answer->set_value(std::move(said));
      }
    });
  }
  wake_.notify_all();
  return future.get();
}

absl::StatusOr<std::string> EngineRunner::NumericsClassOf(const CatalogEntry& entry) {
  return OnEngine<std::string>(entry,
                               [](Loaded& loaded) { return loaded.engine->numerics_class(); });
}

double EngineRunner::ProbeRate(const CatalogEntry& entry) {
  const std::function<double(Loaded&)> probe = [&](Loaded& loaded) {
    if (!loaded.running.empty()) return 0.0;
    const absl::StatusOr<double> rate = TokensPerSecond(*loaded.engine, options_.max_running);
    if (rate.ok()) return *rate;
    spdlog::warn("model {}: its speed is not known: {}", entry.info.name(),
                 std::string(rate.status().message()));
    // Its state is not known either: it is loaded anew when needed.
    loaded_.erase(entry.info.model_digest());
    return 0.0;
  };
  return OnEngine<double>(entry, probe).value_or(0);
}

int EngineRunner::active() const {
  std::lock_guard<std::mutex> lock(mutex_);
  return active_;
}

int64_t EngineRunner::tokens_computed() const {
  std::lock_guard<std::mutex> lock(mutex_);
  return stats_.prompt_tokens + stats_.decoded_tokens;
}

EngineStats EngineRunner::stats() const {
  std::lock_guard<std::mutex> lock(mutex_);
  return stats_;
}

void EngineRunner::Run() {
  while (true) {
    std::vector<Job> jobs;
    std::vector<uint64_t> cancelled;
    std::vector<std::function<void()>> tasks;
    bool refusing = false;
    {
      std::unique_lock<std::mutex> lock(mutex_);
      wake_.wait(lock, [this] {
        return stopping_ || active_ > 0 || !cancelled_.empty() || !tasks_.empty();
      });
      if (stopping_) break;
      jobs.swap(queue_);
      cancelled.swap(cancelled_);
      tasks.swap(tasks_);
      refusing = refusing_;
    }
    for (auto& task : tasks) task();
    for (Job& job : jobs) StartJob(std::move(job), refusing);
    DropCancelled(cancelled);
    if (on_active_ != nullptr) on_active_(active());
    refusing ? CancelAll() : StepAll();
    RefreshStats();
    if (on_active_ != nullptr) on_active_(active());
    idle_.notify_all();
  }
  std::lock_guard<std::mutex> lock(mutex_);
  for (auto& task : tasks_) task();  // their callers wait
  tasks_.clear();
}

void EngineRunner::StartJob(Job job, bool refuse) {
  absl::StatusOr<Loaded*> loaded = refuse ? ShutsDown() : Load(job.entry);
  absl::Status status = loaded.status();
  if (status.ok()) status = (*loaded)->engine->Submit(std::move(job.request));
  if (status.ok()) {
    (*loaded)->running.emplace(job.id, std::move(job.done));
    return;
  }
  job.done(status);
  std::lock_guard<std::mutex> lock(mutex_);
  --active_;
}

void EngineRunner::StepAll() {
  for (auto& [digest, loaded] : loaded_) {
    if (loaded.running.empty()) continue;
    loaded.last_used = ++clock_;
    absl::StatusOr<std::vector<SequenceResult>> results = Step(*loaded.engine);
    if (results.ok()) {
      Deliver(loaded, *std::move(results));
    } else {
      spdlog::error("engine step failed, the engine is loaded anew: {}",
                    std::string(results.status().message()));
      FailAll(loaded, Annotate(results.status(), "engine step"));
    }
  }
  // An engine whose step failed is in no known state: it is loaded anew when needed.
  std::erase_if(loaded_, [](const auto& entry) { return entry.second.engine == nullptr; });
}

absl::StatusOr<std::vector<SequenceResult>> EngineRunner::Step(Engine& engine) const {
  if (on_step_ == nullptr) return engine.Step();
  const EngineStats before = engine.stats();
  const auto started = std::chrono::steady_clock::now();
  absl::StatusOr<std::vector<SequenceResult>> results = engine.Step();
  const std::chrono::duration<double> took = std::chrono::steady_clock::now() - started;
  on_step_(Difference(engine.stats(), before), took.count());
  return results;
}

void EngineRunner::Deliver(Loaded& loaded, std::vector<SequenceResult> results) {
  for (SequenceResult& result : results) {
    auto node = loaded.running.extract(result.id);
    if (node.empty()) continue;
    node.mapped()(std::move(result));
    std::lock_guard<std::mutex> lock(mutex_);
    --active_;
  }
}

void EngineRunner::CancelAll() {
  for (auto& [digest, loaded] : loaded_) {
    if (!loaded.running.empty()) FailAll(loaded, ShutsDown());
  }
  std::erase_if(loaded_, [](const auto& entry) { return entry.second.engine == nullptr; });
}

void EngineRunner::FailAll(Loaded& loaded, const absl::Status& status) {
  for (auto& [id, done] : loaded.running) done(status);
  std::lock_guard<std::mutex> lock(mutex_);
  active_ -= static_cast<int>(loaded.running.size());
  loaded.running.clear();
  AddStats(loaded.engine->stats(), &evicted_stats_);
  loaded.engine.reset();
}

void EngineRunner::DropCancelled(const std::vector<uint64_t>& ids) {
  for (uint64_t id : ids) {
    for (auto& [digest, loaded] : loaded_) {
      if (loaded.running.erase(id) == 0) continue;
      if (absl::Status status = loaded.engine->Cancel(id); !status.ok()) {
        spdlog::warn("cancel of sequence {}: {}", id, std::string(status.message()));
      }
      std::lock_guard<std::mutex> lock(mutex_);
      --active_;
    }
  }
}

absl::StatusOr<EngineRunner::Loaded*> EngineRunner::Load(const CatalogEntry& entry) {
  const std::string& digest = entry.info.model_digest();
  if (auto it = loaded_.find(digest); it != loaded_.end()) return &it->second;
  EvictIdle();
  EngineOptions options = options_;
  options.bundle_dir = entry.dir;
  spdlog::info("loading model {} ({})", entry.info.name(), digest.substr(0, 12));
  absl::StatusOr<std::unique_ptr<Engine>> engine = factory_(options);
  if (!engine.ok()) return Annotate(engine.status(), absl::StrCat("model ", entry.info.name()));
  Loaded& loaded = loaded_[digest];
  loaded.engine = *std::move(engine);
  loaded.last_used = ++clock_;
  return &loaded;
}

void EngineRunner::EvictIdle() {
  while (loaded_.size() >= max_loaded_) {
    auto oldest = loaded_.end();
    for (auto it = loaded_.begin(); it != loaded_.end(); ++it) {
      if (!it->second.running.empty()) continue;
      if (oldest == loaded_.end() || it->second.last_used < oldest->second.last_used) oldest = it;
    }
    if (oldest == loaded_.end()) return;  // all are busy: memory is the caller's limit, not ours
    AddStats(oldest->second.engine->stats(), &evicted_stats_);
    loaded_.erase(oldest);
  }
}

void EngineRunner::RefreshStats() {
  EngineStats total = evicted_stats_;
  for (const auto& [digest, loaded] : loaded_) AddStats(loaded.engine->stats(), &total);
  std::lock_guard<std::mutex> lock(mutex_);
  stats_ = total;
}

}  // namespace plumbline
