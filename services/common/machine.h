// What a program runs on, for provenance.
#pragma once

#include <string>

namespace plumbline {

// "AMD EPYC 9R14, 2 cores, 24 GiB, Debian GNU/Linux 12 (bookworm)": the processor's name, the cores
// this process may use, the machine's memory and the system. What cannot be read is left out.
std::string DescribeMachine();

}  // namespace plumbline
