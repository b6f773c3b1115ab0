#include "plumbline/v1/config.pb.h"
#include "services/rpc/real_main.h"
#include "services/worker/worker.h"

int main(int argc, char** argv) {
  plumbline::v1::WorkerConfig config;
  return plumbline::RealMain(
      argc, argv,
      {.name = "plumb-worker",
       .service = "worker",
       .summary = "Runs cells: a model under quantized KV caches, in one batch-invariant batch.",
       .examples =
           {"plumb-worker --set model_roots.0=models --set coordinator.address=127.0.0.1:7070",
            "plumb-worker --config worker.txtpb --set dtype=bf16 --set threads=8"}},
      &config, [&](plumbline::Process& process) { return plumbline::RunWorker(config, process); });
}
