#include "services/capture/capture_service.h"
#include "services/rpc/real_main.h"

int main(int argc, char** argv) {
  plumbline::v1::CaptureConfig config;
  return plumbline::RealMain(
      argc, argv,
      {.name = "plumb-capture",
       .service = "capture",
       .summary = "Keeps captured keys and values and answers with their statistics.",
       .examples = {"plumb-capture --set data_dir=/var/lib/plumb/captures",
                    "plumb-capture --config capture.txtpb --set max_capture_mib=512"}},
      &config,
      [&config](plumbline::Process& process) { return plumbline::RunCapture(config, process); });
}
