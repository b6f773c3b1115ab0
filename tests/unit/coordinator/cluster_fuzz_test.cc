// Workers, messages and coordinators fail at random; the promises of the protocol must hold.
#include <functional>
#include <map>
#include <random>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/support/status_matchers.h"
#include "tests/unit/coordinator/fakes.h"

namespace plumbline {
namespace {

using testing::FakeCluster;
using testing::FakeWorker;

constexpr int kSeeds = 40;
constexpr int kActions = 220;
constexpr int kCells = 24;

class Chaos {
 public:
  explicit Chaos(uint32_t seed) : random_(seed) {
    for (const char* id : {"w1", "w2", "w3"}) workers_.push_back({id, cluster_.manager.get()});
    id_ = cluster_.CreateStudy("a", kCells);
    EXPECT_OK(cluster_.store->BindExperiment(id_, testing::TestModel(), testing::TestNumerics(),
                                             "v1", v1::Report(), cluster_.clock.Now()));
    cluster_.Drive(id_);
  }

  void Run() {
    for (int i = 0; i < kActions; ++i) {
      Act();
      if (::testing::Test::HasFailure()) return;
    }
    while (!late_.empty()) DeliverLate();
    CalmDown();
    CheckEnd();
  }

 private:
  bool Chance(double p) { return std::uniform_real_distribution<double>(0, 1)(random_) < p; }
  size_t Pick(size_t n) { return std::uniform_int_distribution<size_t>(0, n - 1)(random_); }

  void Act() {
    FakeWorker& worker = workers_[Pick(workers_.size())];
    const size_t draw = Pick(100);
    if (draw < 40) {
      SendSync(worker);
    } else if (draw < 75) {
      SendReport(worker);
    } else if (draw < 85) {
      if (!late_.empty()) DeliverLate();
    } else if (draw < 95) {
      cluster_.clock.Advance(absl::Seconds(static_cast<int64_t>(Pick(18))));
    } else if (draw < 98) {
      worker.Restart(cluster_.manager.get());
    } else {
      RestartCoordinator();
    }
  }

  // Workers live on: same incarnation, sequence and leases, another coordinator at the address.
  void RestartCoordinator() {
    cluster_.Restart();
    for (FakeWorker& worker : workers_) worker.SetManager(cluster_.manager.get());
  }

  void SendSync(FakeWorker& worker) {
    const v1::SyncRequest request = worker.MakeSync(static_cast<uint32_t>(Pick(10)));
    if (Chance(0.1)) return;  // lost on its way
    if (Chance(0.1)) {
      late_.push_back([this, request] { (void)DeliverSync(request); });
      return;
    }
    auto response = DeliverSync(request);
    if (Chance(0.1)) response = DeliverSync(request);  // the network repeats it
    if (Chance(0.1)) return;                           // the answer is lost
    if (response.ok()) {
      worker.Apply(*response);
    } else if (absl::IsAborted(response.status())) {
      worker.Restart(cluster_.manager.get());
    }
  }

  absl::StatusOr<v1::SyncResponse> DeliverSync(const v1::SyncRequest& request) {
    auto response = cluster_.manager->Sync(request);
    if (!response.ok()) {
      EXPECT_TRUE(absl::IsAborted(response.status())) << response.status();
      return response;
    }
    for (const v1::Lease& lease : response->start()) {
      for (const v1::LeasedCell& cell : lease.cells()) {
        EXPECT_FALSE(stored_.contains(cell.cell_key()))
            << "cell " << cell.cell_key() << " was handed out after its result was stored";
        EXPECT_LE(cell.attempt(), 3u);
      }
    }
    return response;
  }

  void SendReport(FakeWorker& worker) {
    v1::ReportRequest request = worker.Run(1 + Pick(4));
    if (request.lease_id().empty()) return;
    for (v1::CellResult& result : *request.mutable_results()) {
      if (!Chance(0.08)) continue;
      result.mutable_status()->set_code(Chance(0.2) ? 3 : 8);
    }
    if (Chance(0.1)) return;
    if (Chance(0.1)) {
      late_.push_back([this, request] { DeliverReport(request); });
      return;
    }
    DeliverReport(request);
    if (Chance(0.1)) DeliverReport(request);
    if (!Chance(0.1)) worker.ReportTaken(request);
  }

  void DeliverReport(const v1::ReportRequest& request) {
    const auto response = cluster_.manager->Report(request);
    ASSERT_THAT(response, testing::IsOk());
    for (int i = 0; i < request.results_size(); ++i) {
      const std::string& key = request.results(i).cell_key();
      EXPECT_NE(response->outcomes(i), v1::REPORT_OUTCOME_CONFLICT);
      EXPECT_NE(response->outcomes(i), v1::REPORT_OUTCOME_UNKNOWN_CELL);
      if (response->outcomes(i) == v1::REPORT_OUTCOME_STORED) {
        EXPECT_TRUE(stored_.insert(key).second) << key << " was stored twice";
      }
    }
  }

  void DeliverLate() {
    const size_t index = Pick(late_.size());
    const std::function<void()> deliver = std::move(late_[index]);
    late_.erase(late_.begin() + static_cast<int64_t>(index));
    deliver();
  }

  // The faults end: everything must come to its end within bounded time.
  void CalmDown() {
    for (int i = 0; i < 200 && !AllEnded(); ++i) {
      for (FakeWorker& worker : workers_) {
        const v1::SyncRequest request = worker.MakeSync(64);
        auto response = DeliverSync(request);
        if (response.ok()) {
          worker.Apply(*response);
        } else {
          worker.Restart(cluster_.manager.get());
        }
        const v1::ReportRequest report = worker.Run();
        if (report.lease_id().empty()) continue;
        DeliverReport(report);
        worker.ReportTaken(report);
      }
      cluster_.clock.Advance(absl::Seconds(2));
    }
  }

  bool AllEnded() {
    const auto counts = cluster_.store->CountStages(id_);
    return counts.ok() && counts->at(0).stored + counts->at(0).poisoned == counts->at(0).total;
  }

  void CheckEnd() {
    ASSERT_OK_AND_ASSIGN(const auto rows, cluster_.store->ListResults(id_, "", "", 1000, false));
    ASSERT_EQ(rows.size(), static_cast<size_t>(kCells));
    for (const ResultRow& row : rows) {
      EXPECT_TRUE(row.state == WorkState::kStored || row.state == WorkState::kPoisoned)
          << row.cell_key << " is in state " << static_cast<int>(row.state);
      EXPECT_EQ(row.state == WorkState::kStored, stored_.contains(row.cell_key));
    }
    ASSERT_OK_AND_ASSIGN(const auto quarantined, cluster_.store->Quarantined());
    EXPECT_TRUE(quarantined.empty());
  }

  std::mt19937 random_;
  FakeCluster cluster_;
  std::vector<FakeWorker> workers_;
  std::string id_;
  std::set<std::string> stored_;
  std::vector<std::function<void()>> late_;
};

TEST(ClusterFuzzTest, EveryCellEndsStoredOnceOrPoisonedAndNoneIsHandedOutAfterItsResult) {
  for (uint32_t seed = 1; seed <= kSeeds; ++seed) {
    SCOPED_TRACE(absl::StrCat("seed ", seed));
    Chaos(seed).Run();
    if (HasFailure()) return;
  }
}

}  // namespace
}  // namespace plumbline
