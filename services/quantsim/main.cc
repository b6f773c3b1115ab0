#include "services/quantsim/quantsim_service.h"
#include "services/rpc/real_main.h"

int main(int argc, char** argv) {
  plumbline::v1::QuantsimConfig config;
  return plumbline::RealMain(
      argc, argv,
      {.name = "plumb-quantsim",
       .service = "quantsim",
       .summary = "Says what a KV format does to captured activations, without running the model.",
       .examples = {"plumb-quantsim --set capture.address=127.0.0.1:7072",
                    "plumb-quantsim --config quantsim.txtpb --print-config"}},
      &config,
      [&config](plumbline::Process& process) { return plumbline::RunQuantsim(config, process); });
}
