#include "services/judge/judge_service.h"
#include "services/rpc/real_main.h"

int main(int argc, char** argv) {
  plumbline::v1::JudgeConfig config;
  return plumbline::RealMain(
      argc, argv,
      {.name = "plumb-judge",
       .service = "judge",
       .summary = "Says of each answer whether it refuses, complies or is degenerate.",
       .examples = {"plumb-judge --set server.listen=127.0.0.1:7074",
                    "plumb-judge --config judge.txtpb --set cache_file=/var/lib/plumb/verdicts.db",
                    "plumb-judge --config judge.json --print-config"}},
      &config,
      [&config](plumbline::Process& process) { return plumbline::RunJudge(config, process); });
}
