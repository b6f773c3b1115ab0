#include "services/pcr/pcr_service.h"
#include "services/rpc/real_main.h"

int main(int argc, char** argv) {
  plumbline::v1::PcrConfig config;
  return plumbline::RealMain(
      argc, argv,
      {.name = "plumb-pcr",
       .service = "pcr",
       .summary = "Names the failure mode behind the evidence and the plans that should compete.",
       .examples = {"plumb-pcr --set server.listen=127.0.0.1:7075",
                    "plumb-pcr --config pcr.txtpb --print-config"}},
      &config,
      [&config](plumbline::Process& process) { return plumbline::RunPcr(config, process); });
}
