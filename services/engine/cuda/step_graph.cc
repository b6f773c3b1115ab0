#include "services/engine/cuda/step_graph.h"

#include <algorithm>
#include <map>
#include <utility>
#include <vector>

#include "services/common/status_macros.h"
#include "services/engine/cuda/device_memory.h"

namespace plumbline {
namespace {

constexpr const char* kWhat = "rearranging a step's graph";

struct Edges {
  std::vector<cudaGraphNode_t> from, to;
  std::vector<cudaGraphEdgeData> data;
};

absl::StatusOr<Edges> EdgesOf(cudaGraph_t graph) {
  size_t count = 0;
  PLUMB_RETURN_IF_ERROR(
      CudaStatus(cudaGraphGetEdges(graph, nullptr, nullptr, nullptr, &count), kWhat));
  Edges edges;
  edges.from.resize(count);
  edges.to.resize(count);
  edges.data.resize(count);
  PLUMB_RETURN_IF_ERROR(CudaStatus(
      cudaGraphGetEdges(graph, edges.from.data(), edges.to.data(), edges.data.data(), &count),
      kWhat));
  return edges;
}

// A memset with one node before and one after it.
struct Clear {
  cudaGraphNode_t node = nullptr, before = nullptr, after = nullptr;
  int64_t begin = 0, end = 0;  // bytes of the counters
};

// Whether the node clears bytes of the counters alone; they go to *clear.
absl::StatusOr<bool> ClearsCounters(cudaGraphNode_t node, const char* counters, int64_t bytes,
                                    Clear* clear) {
  cudaGraphNodeType type;
  PLUMB_RETURN_IF_ERROR(CudaStatus(cudaGraphNodeGetType(node, &type), kWhat));
  if (type != cudaGraphNodeTypeMemset) return false;
  cudaMemsetParams params = {};
  PLUMB_RETURN_IF_ERROR(CudaStatus(cudaGraphMemsetNodeGetParams(node, &params), kWhat));
  clear->node = node;
  clear->begin = static_cast<const char*>(params.dst) - counters;
  clear->end = clear->begin + static_cast<int64_t>(params.width * params.elementSize);
  return params.value == 0 && params.height == 1 && clear->begin >= 0 && clear->end <= bytes;
}

bool Overlap(std::vector<Clear> clears) {
  std::sort(clears.begin(), clears.end(),
            [](const Clear& a, const Clear& b) { return a.begin < b.begin; });
  for (size_t i = 1; i < clears.size(); ++i) {
    if (clears[i].begin < clears[i - 1].end) return true;
  }
  return false;
}

absl::StatusOr<std::vector<Clear>> FindClears(const Edges& edges, const char* counters,
                                              int64_t bytes) {
  std::map<cudaGraphNode_t, std::pair<std::vector<size_t>, std::vector<size_t>>> touching;
  for (size_t i = 0; i < edges.from.size(); ++i) {
    touching[edges.to[i]].first.push_back(i);
    touching[edges.from[i]].second.push_back(i);
  }
  std::vector<Clear> clears;
  for (const auto& [node, in_out] : touching) {
    const auto& [in, out] = in_out;
    if (in.size() != 1 || out.size() != 1) continue;
    Clear clear;
    PLUMB_ASSIGN_OR_RETURN(const bool clears_counters,
                           ClearsCounters(node, counters, bytes, &clear));
    if (!clears_counters) continue;
    clear.before = edges.from[in[0]];
    clear.after = edges.to[out[0]];
    clears.push_back(clear);
  }
  return clears;
}

absl::Status ClearAtStart(cudaGraph_t graph, char* begin, int64_t bytes) {
  size_t count = 0;
  PLUMB_RETURN_IF_ERROR(CudaStatus(cudaGraphGetRootNodes(graph, nullptr, &count), kWhat));
  std::vector<cudaGraphNode_t> roots(count);
  PLUMB_RETURN_IF_ERROR(CudaStatus(cudaGraphGetRootNodes(graph, roots.data(), &count), kWhat));
  cudaMemsetParams params = {};
  params.dst = begin;
  params.elementSize = 1;
  params.width = static_cast<size_t>(bytes);
  params.height = 1;
  cudaGraphNode_t first;
  PLUMB_RETURN_IF_ERROR(
      CudaStatus(cudaGraphAddMemsetNode(&first, graph, nullptr, 0, &params), kWhat));
  for (const cudaGraphNode_t root : roots) {
    PLUMB_RETURN_IF_ERROR(
        CudaStatus(cudaGraphAddDependencies(graph, &first, &root, nullptr, 1), kWhat));
  }
  return absl::OkStatus();
}

}  // namespace

absl::Status ClearCountersFirst(cudaGraph_t graph, void* counters, int64_t bytes) {
  PLUMB_ASSIGN_OR_RETURN(const Edges edges, EdgesOf(graph));
  PLUMB_ASSIGN_OR_RETURN(const std::vector<Clear> clears,
                         FindClears(edges, static_cast<const char*>(counters), bytes));
  if (clears.empty() || Overlap(clears)) return absl::OkStatus();
  for (const Clear& clear : clears) {
    PLUMB_RETURN_IF_ERROR(CudaStatus(cudaGraphDestroyNode(clear.node), kWhat));
    PLUMB_RETURN_IF_ERROR(CudaStatus(
        cudaGraphAddDependencies(graph, &clear.before, &clear.after, nullptr, 1), kWhat));
  }
  int64_t begin = bytes, end = 0;
  for (const Clear& clear : clears) {
    begin = std::min(begin, clear.begin);
    end = std::max(end, clear.end);
  }
  return ClearAtStart(graph, static_cast<char*>(counters) + begin, end - begin);
}

}  // namespace plumbline
