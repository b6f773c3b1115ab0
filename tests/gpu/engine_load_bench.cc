// How fast weights come onto the GPU: writes a bundle of the shape of Llama-3.1-8B in bf16 (16 GB,
// four shards) below the given folder, which should be in memory, and times the engine's start.
//
//   gpu_engine_load_bench FOLDER [LAYERS]
//
// Prints one JSON object; removes the bundle.
#include <fcntl.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <random>
#include <string>
#include <thread>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "services/common/digest.h"
#include "services/engine/cuda/cuda_parts.h"

namespace plumbline {
namespace {

using Clock = std::chrono::steady_clock;

constexpr int kShards = 4;

double Seconds(Clock::time_point since) {
  return std::chrono::duration<double>(Clock::now() - since).count();
}

std::string ConfigJson(int layers) {
  return absl::StrCat(
      R"({"model_type": "llama", "architectures": ["LlamaForCausalLM"], "hidden_act": "silu",
      "vocab_size": 128256, "hidden_size": 4096, "intermediate_size": 14336,
      "num_hidden_layers": )",
      layers, R"(, "num_attention_heads": 32, "num_key_value_heads": 8, "head_dim": 128,
      "max_position_embeddings": 8192, "rms_norm_eps": 1e-5, "rope_theta": 500000.0,
      "bos_token_id": 1, "eos_token_id": 2, "tie_word_embeddings": false})");
}

// Writes one shard of bf16 tensors whose values are a random block over and over.
int64_t WriteShard(const std::string& path, const std::vector<WeightLayout::Piece>& pieces,
                   const std::vector<uint16_t>& block) {
  std::vector<std::string> entries;
  int64_t bytes = 0;
  for (const WeightLayout::Piece& piece : pieces) {
    entries.push_back(absl::StrCat("\"", piece.name, "\":{\"dtype\":\"BF16\",\"shape\":[",
                                   absl::StrJoin(piece.shape, ","), "],\"data_offsets\":[", bytes,
                                   ",", bytes + piece.count * 2, "]}"));
    bytes += piece.count * 2;
  }
  std::string header = absl::StrCat("{", absl::StrJoin(entries, ","), "}");
  header.resize((header.size() + 7) / 8 * 8, ' ');
  const uint64_t length = header.size();
  const int file = open(path.c_str(), O_CREAT | O_WRONLY | O_TRUNC, 0600);
  bool written = file >= 0 && write(file, &length, 8) == 8 &&
                 write(file, header.data(), header.size()) == static_cast<ssize_t>(header.size());
  const int64_t block_bytes = static_cast<int64_t>(block.size()) * 2;
  for (int64_t done = 0; written && done < bytes; done += block_bytes) {
    const int64_t part = std::min(block_bytes, bytes - done);
    written = write(file, block.data(), static_cast<size_t>(part)) == part;
  }
  if (file < 0 || close(file) != 0 || !written) {
    std::fprintf(stderr, "cannot write %s\n", path.c_str());
    std::exit(1);
  }
  return 8 + static_cast<int64_t>(length) + bytes;
}

int64_t WriteBundle(const std::string& dir, int layers) {
  const auto config = ParseModelConfig(ConfigJson(layers));
  if (!config.ok()) {
    std::fprintf(stderr, "%s\n", config.status().ToString().c_str());
    std::exit(1);
  }
  const WeightLayout layout = LayOutWeights(*config, cuda::Dtype::kBf16);
  std::vector<std::vector<WeightLayout::Piece>> shards(kShards);
  for (size_t i = 0; i < layout.pieces.size(); ++i) {
    shards[i * kShards / layout.pieces.size()].push_back(layout.pieces[i]);
  }
  std::vector<uint16_t> block(size_t{1} << 22);
  std::mt19937 random(1);
  for (uint16_t& value : block) {  // about 0.01 in magnitude, either sign
    value = static_cast<uint16_t>((random() & 0x807f) | 0x3c00);
  }
  std::vector<int64_t> sizes(kShards);
  std::vector<std::thread> writers;
  for (int i = 0; i < kShards; ++i) {
    writers.emplace_back([&, i] {
      sizes[i] = WriteShard(absl::StrCat(dir, "/model-", i, ".safetensors"), shards[i], block);
    });
  }
  for (std::thread& writer : writers) writer.join();
  const std::string config_json = ConfigJson(layers);
  std::ofstream(dir + "/config.json") << config_json;
  const std::string zeros(64, '0');  // digests are not looked at here
  std::vector<std::string> files;
  std::string digests;
  int64_t bytes = 0;
  const auto list = [&](const std::string& name, int64_t size) {
    files.push_back(
        absl::StrCat("\"", name, "\":{\"sha256\":\"", zeros, "\",\"bytes\":", size, "}"));
    absl::StrAppend(&digests, name, "\n", zeros, "\n");
    bytes += size;
  };
  // In the order of their names, as the model's digest has them.
  std::ofstream(dir + "/chat_format.json") << "{}";
  std::ofstream(dir + "/tokenizer.json") << "{}";
  list("chat_format.json", 2);
  list("config.json", static_cast<int64_t>(config_json.size()));
  for (int i = 0; i < kShards; ++i) list(absl::StrCat("model-", i, ".safetensors"), sizes[i]);
  list("tokenizer.json", 2);
  std::ofstream(dir + "/manifest.json")
      << absl::StrCat(R"({"format":"plumbline-bundle/1","name":"bench","source":"random",)",
                      R"("license":"none","files":{)", absl::StrJoin(files, ","),
                      R"(},"model_digest":")", Sha256Hex(digests), "\"}");
  return bytes;
}

int Main(const std::string& root, int layers) {
  std::string dir = root + "/bundle-XXXXXX";
  if (mkdtemp(dir.data()) == nullptr) {
    std::fprintf(stderr, "cannot make a folder like %s\n", dir.c_str());
    return 1;
  }
  const int64_t bytes = WriteBundle(dir, layers);
  EngineOptions options;
  options.bundle_dir = dir;
  options.dtype = ComputeDtype::kBf16;
  options.verify_digests = false;
  int status = 0;
  for (int turn = 0; turn < 2; ++turn) {
    const auto start = Clock::now();
    const auto engine = CreateCudaEngine(options, {});
    if (!engine.ok()) {
      std::fprintf(stderr, "%s\n", engine.status().ToString().c_str());
      status = 1;
      break;
    }
    std::printf("{\"load\": \"bf16 weights from memory\", \"bytes\": %lld, \"seconds\": %.2f}\n",
                static_cast<long long>(bytes), Seconds(start));
  }
  std::filesystem::remove_all(dir);
  return status;
}

}  // namespace
}  // namespace plumbline

int main(int argc, char** argv) {
  if (plumbline::CountGpus() == 0) {
    std::puts("SKIPPED: no GPU");
    return 0;
  }
  return plumbline::Main(argc > 1 ? argv[1] : "/dev/shm", argc > 2 ? std::atoi(argv[2]) : 32);
}
