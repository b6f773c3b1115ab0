#include "services/coordinator/coordinator.h"
#include "services/rpc/real_main.h"

int main(int argc, char** argv) {
  plumbline::v1::CoordinatorConfig config;
  return plumbline::RealMain(
      argc, argv,
      {.name = "plumb-coordinator",
       .service = "coordinator",
       .summary = "Plans studies, leases their cells to workers and keeps the results.",
       .examples = {"plumb-coordinator --set store.sqlite_file=plumb.sqlite "
                    "--set prompts_root=data/prompts",
                    "plumb-coordinator --config coordinator.txtpb --print-config"}},
      &config, [&config](plumbline::Process& process) {
        return plumbline::RunCoordinator(config, process);
      });
}
