// A kernel profile of any CUDA program, without the program's help or a profiler beside it:
//
//   CUDA_INJECTION64_PATH=.../libgpu_kernel_profile.so program ...
//
// CUDA loads the library and CUPTI reports every kernel, those of graphs one by one. On exit a
// table goes to standard error, or to the file PLUMB_PROFILE: kernels by name and grid with count,
// time and the idle time before them, then the idle time as a whole. Where the program calls
// cudaProfilerStart and cudaProfilerStop only what ran between them counts. PLUMB_PROFILE_TRACE
// names a file that begins with the nanoseconds since 1970 of the first kernel, then every kernel
// in order: microseconds since the first began, its time, the idle time before it, its name.
#include <cuda.h>
#include <cupti.h>
#include <cxxabi.h>

#include <algorithm>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <map>
#include <mutex>
#include <string>
#include <utility>
#include <vector>

namespace {

struct Kernel {
  uint64_t begin = 0, end = 0;  // nanoseconds
  std::string name;             // with its grid
};

struct Profile {
  std::mutex mutex;
  std::vector<Kernel> kernels;
  std::vector<std::pair<uint64_t, uint64_t>> spans;  // between start and stop
  uint64_t lost = 0;
};
Profile& Get() {
  static Profile* profile = new Profile;
  return *profile;
}

void Check(CUptiResult result, const char* what) {
  if (result == CUPTI_SUCCESS) return;
  const char* text = nullptr;
  cuptiGetResultString(result, &text);
  std::fprintf(stderr, "kernel profile: %s: %s\n", what, text == nullptr ? "unknown" : text);
}

// Templates' arguments are long and say little; the grid tells shapes apart.
std::string ShortName(const CUpti_ActivityKernel10& kernel) {
  int status = 0;
  char* plain = abi::__cxa_demangle(kernel.name, nullptr, nullptr, &status);
  std::string name = status == 0 && plain != nullptr ? plain : kernel.name;
  std::free(plain);
  if (name.rfind("void ", 0) == 0) name.erase(0, 5);
  for (const char* prefix : {"plumbline::cuda::", "(anonymous namespace)::"}) {
    for (size_t at; (at = name.find(prefix)) != std::string::npos;) {
      name.erase(at, std::string(prefix).size());
    }
  }
  name = name.substr(0, std::min<size_t>(name.find_first_of("<("), 64));
  return name + " " + std::to_string(kernel.gridX) + "x" + std::to_string(kernel.gridY) + "x" +
         std::to_string(kernel.gridZ) + " of " + std::to_string(kernel.blockX);
}

void CUPTIAPI GiveBuffer(uint8_t** buffer, size_t* size, size_t* max_records) {
  *size = size_t{8} << 20;
  *buffer = static_cast<uint8_t*>(std::aligned_alloc(8, *size));
  *max_records = 0;
}

void CUPTIAPI TakeBuffer(CUcontext context, uint32_t stream, uint8_t* buffer, size_t /*size*/,
                         size_t valid) {
  Profile& profile = Get();
  const std::lock_guard<std::mutex> lock(profile.mutex);
  CUpti_Activity* record = nullptr;
  while (cuptiActivityGetNextRecord(buffer, valid, &record) == CUPTI_SUCCESS) {
    if (record->kind != CUPTI_ACTIVITY_KIND_CONCURRENT_KERNEL) continue;
    const auto& kernel = *reinterpret_cast<const CUpti_ActivityKernel10*>(record);
    profile.kernels.push_back({kernel.start, kernel.end, ShortName(kernel)});
  }
  size_t lost = 0;
  if (cuptiActivityGetNumDroppedRecords(context, stream, &lost) == CUPTI_SUCCESS) {
    profile.lost += lost;
  }
  std::free(buffer);
}

void CUPTIAPI OnProfilerCall(void*, CUpti_CallbackDomain, CUpti_CallbackId id, const void* data) {
  if (static_cast<const CUpti_CallbackData*>(data)->callbackSite != CUPTI_API_ENTER) return;
  Profile& profile = Get();
  const std::lock_guard<std::mutex> lock(profile.mutex);
  uint64_t now = 0;
  cuptiGetTimestamp(&now);
  if (id == CUPTI_DRIVER_TRACE_CBID_cuProfilerStart) {
    profile.spans.emplace_back(now, UINT64_MAX);
  } else if (!profile.spans.empty()) {
    profile.spans.back().second = now;
  }
}

struct Sums {
  int64_t count = 0;
  double time = 0, idle_before = 0;  // microseconds
};

void Report() {
  Check(cuptiActivityFlushAll(CUPTI_ACTIVITY_FLAG_FLUSH_FORCED), "flush");
  Profile& profile = Get();
  const std::lock_guard<std::mutex> lock(profile.mutex);
  const auto& spans = profile.spans;
  const auto outside = [&](const Kernel& kernel) {
    return !spans.empty() && std::none_of(spans.begin(), spans.end(), [&](const auto& span) {
      return kernel.begin >= span.first && kernel.end <= span.second;
    });
  };
  std::erase_if(profile.kernels, outside);
  std::sort(profile.kernels.begin(), profile.kernels.end(),
            [](const Kernel& a, const Kernel& b) { return a.begin < b.begin; });
  const char* trace_path = std::getenv("PLUMB_PROFILE_TRACE");
  std::FILE* trace = trace_path == nullptr ? nullptr : std::fopen(trace_path, "w");
  if (trace != nullptr && !profile.kernels.empty()) {
    std::fprintf(trace, "# the first began at %llu ns\n",
                 static_cast<unsigned long long>(profile.kernels.front().begin));
  }
  std::map<std::string, Sums> sums;
  uint64_t busy_until = profile.kernels.empty() ? 0 : profile.kernels.front().begin;
  double busy = 0, idle = 0;
  for (const Kernel& kernel : profile.kernels) {
    Sums& sum = sums[kernel.name];
    const double time = static_cast<double>(kernel.end - kernel.begin) / 1e3;
    // Less than nothing where it began while the one before still ran.
    const double gap = (static_cast<double>(kernel.begin) - static_cast<double>(busy_until)) / 1e3;
    const uint64_t from = std::max(kernel.begin, busy_until);
    if (kernel.end > from) busy += static_cast<double>(kernel.end - from) / 1e3;
    idle += std::max(gap, 0.0);
    busy_until = std::max(busy_until, kernel.end);
    ++sum.count;
    sum.time += time;
    sum.idle_before += gap;
    if (trace != nullptr) {
      std::fprintf(trace, "%.3f\t%.3f\t%.3f\t%s\n",
                   static_cast<double>(kernel.begin - profile.kernels.front().begin) / 1e3, time,
                   gap, kernel.name.c_str());
    }
  }
  if (trace != nullptr) std::fclose(trace);
  const char* path = std::getenv("PLUMB_PROFILE");
  std::FILE* out = path == nullptr ? stderr : std::fopen(path, "w");
  if (out == nullptr) return;
  std::vector<std::pair<std::string, Sums>> rows(sums.begin(), sums.end());
  std::sort(rows.begin(), rows.end(),
            [](const auto& a, const auto& b) { return a.second.time > b.second.time; });
  std::fprintf(out, "%10s %8s %10s %12s  kernel\n", "total us", "count", "mean us", "gap before");
  for (const auto& [name, sum] : rows) {
    const double count = static_cast<double>(sum.count);
    std::fprintf(out, "%10.0f %8lld %10.2f %12.2f  %s\n", sum.time,
                 static_cast<long long>(sum.count), sum.time / count, sum.idle_before / count,
                 name.c_str());
  }
  std::fprintf(out, "%zu kernels, busy %.0f us, idle between them %.0f us, %llu records lost\n",
               profile.kernels.size(), busy, idle, static_cast<unsigned long long>(profile.lost));
  if (out != stderr) std::fclose(out);
}

}  // namespace

// What CUDA calls in a library that CUDA_INJECTION64_PATH names.
extern "C" int InitializeInjection() {
  Check(cuptiActivityRegisterCallbacks(GiveBuffer, TakeBuffer), "buffers");
  Check(cuptiActivityEnable(CUPTI_ACTIVITY_KIND_CONCURRENT_KERNEL), "kernels");
  CUpti_SubscriberHandle subscriber = nullptr;
  Check(cuptiSubscribe(&subscriber, OnProfilerCall, nullptr), "subscription");
  for (const CUpti_CallbackId id :
       {CUPTI_DRIVER_TRACE_CBID_cuProfilerStart, CUPTI_DRIVER_TRACE_CBID_cuProfilerStop}) {
    Check(cuptiEnableCallback(1, subscriber, CUPTI_CB_DOMAIN_DRIVER_API, id), "callbacks");
  }
  std::atexit(Report);
  return 1;
}
