// What happens without being asked: leases expire, texts past their time are purged, gauges are
// set.
#pragma once

#include "absl/time/time.h"
#include "services/common/clock.h"
#include "services/coordinator/grpc_peers.h"
#include "services/coordinator/lease_manager.h"
#include "services/rpc/metrics.h"
#include "services/store/store.h"

namespace plumbline {

// One thread calls it.
class Housekeeper {
 public:
  // retain_texts: zero = until purged by hand. `metrics` may be null.
  Housekeeper(Store* store, LeaseManager* leases, CoordinatorPeers* peers, Clock* clock,
              Metrics* metrics, absl::Duration retain_texts)
      : store_(store),
        leases_(leases),
        peers_(peers),
        clock_(clock),
        metrics_(metrics),
        retain_texts_(retain_texts) {}

  // Cheap when called more often than needed.
  void Round();

 private:
  void PurgeOld();
  void SetGauges();

  Store* const store_;
  LeaseManager* const leases_;
  CoordinatorPeers* const peers_;
  Clock* const clock_;
  Metrics* const metrics_;
  const absl::Duration retain_texts_;
  absl::Time next_round_ = absl::InfinitePast();
};

}  // namespace plumbline
