// SIGTERM and SIGINT as a flag. The handler only writes to a pipe; nothing else happens in it.
//
//   ShutdownSignal shutdown;                 // at most one a process
//   while (!shutdown.WaitFor(absl::Seconds(1))) { ... }
#pragma once

#include <memory>

#include "absl/time/time.h"

namespace plumbline {

// Thread safe.
class ShutdownSignal {
 public:
  ShutdownSignal();   // installs the handlers
  ~ShutdownSignal();  // restores the former ones
  ShutdownSignal(const ShutdownSignal&) = delete;
  ShutdownSignal& operator=(const ShutdownSignal&) = delete;

  bool requested() const;
  int count() const;  // how often it was asked for; a second Ctrl-C means: now
  // True once requested; false when the time is over.
  bool WaitFor(absl::Duration timeout) const;
  void Wait() const;
  // As if the signal had come.
  void Request();

 private:
  struct State;
  std::unique_ptr<State> state_;
};

}  // namespace plumbline
