#include "services/worker/sync_loop.h"

#include <deque>

#include "gtest/gtest.h"
#include "tests/support/status_matchers.h"

namespace plumbline {
namespace {

// Answers what the test has queued; records what was sent.
class FakeLink final : public CoordinatorLink {
 public:
  absl::StatusOr<v1::SyncResponse> Sync(const v1::SyncRequest& request) override {
    syncs.push_back(request);
    if (during_sync) during_sync();
    absl::SleepFor(pause);
    if (sync_answers.empty()) return v1::SyncResponse();
    auto answer = sync_answers.front();
    sync_answers.pop_front();
    return answer;
  }
  absl::StatusOr<v1::ReportResponse> Report(const v1::ReportRequest& request) override {
    if (!report_status.ok()) return report_status;
    reports.push_back(request);
    return v1::ReportResponse();
  }
  std::deque<absl::StatusOr<v1::SyncResponse>> sync_answers;
  std::function<void()> during_sync;
  absl::Duration pause;
  absl::Status report_status;
  std::vector<v1::SyncRequest> syncs;
  std::vector<v1::ReportRequest> reports;
};

class FakeExecutor final : public CellExecutor {
 public:
  void Start(const std::string& key, const v1::CellSpec&, Done done) override {
    started.push_back(key);
    running[key] = std::move(done);
  }
  void Drop(const std::string& key) override { dropped.push_back(key); }
  void Finish(const std::string& key) {
    v1::CellResult result;
    result.set_cell_key(key);
    running.at(key)(std::move(result));
  }
  std::vector<std::string> started, dropped;
  std::map<std::string, Done> running;
};

class FakeCaptures final : public CaptureSender {
 public:
  void Start(const v1::CaptureTask& task, Done done) override {
    v1::CaptureResult result;
    result.set_capture_id(task.capture_id());
    done(std::move(result));
  }
};

class SyncLoopTest : public ::testing::Test {
 protected:
  SyncLoopTest() {
    auto link = std::make_unique<FakeLink>();
    link_ = link.get();
    SyncLoopOptions options;
    options.worker_id = "w";
    options.incarnation_id = "first";
    options.max_cells = 8;
    loop_ = std::make_unique<SyncLoop>(options, std::move(link), &executor_, &captures_,
                                       metrics_.get(), &clock_, [] { return int64_t{0}; });
  }
  static v1::SyncResponse Grant(const std::string& lease_id, const std::vector<std::string>& keys) {
    v1::SyncResponse response;
    v1::Lease* lease = response.add_start();
    lease->set_lease_id(lease_id);
    for (const std::string& key : keys) {
      v1::LeasedCell* cell = lease->add_cells();
      cell->set_cell_key(key);
      cell->set_attempt(2);
    }
    return response;
  }

  FakeClock clock_;
  std::unique_ptr<Metrics> metrics_ = Metrics::Create("worker");
  FakeExecutor executor_;
  FakeCaptures captures_;
  FakeLink* link_ = nullptr;
  std::unique_ptr<SyncLoop> loop_;
};

TEST_F(SyncLoopTest, LeaseSentTwiceRunsOnce) {
  link_->sync_answers = {Grant("l1", {"a", "b"}), Grant("l1", {"a", "b"})};
  loop_->SyncOnce();
  loop_->SyncOnce();
  EXPECT_EQ(executor_.started, (std::vector<std::string>{"a", "b"}));
  EXPECT_EQ(link_->syncs[1].running(0).cell_keys_size(), 2);
  EXPECT_EQ(link_->syncs[1].free_cells(), 6u);
  EXPECT_GT(link_->syncs[1].sequence(), link_->syncs[0].sequence());
}

TEST_F(SyncLoopTest, ResultStaysUntilTheCoordinatorHasTakenIt) {
  link_->sync_answers = {Grant("l1", {"a"})};
  loop_->SyncOnce();
  executor_.Finish("a");
  link_->report_status = absl::UnavailableError("away");
  EXPECT_FALSE(loop_->ReportOnce());
  loop_->SyncOnce();
  EXPECT_EQ(link_->syncs.back().running_size(), 1) << "an unreported lease is still held";
  link_->report_status = absl::OkStatus();
  EXPECT_TRUE(loop_->ReportOnce());
  ASSERT_EQ(link_->reports.size(), 1u);
  EXPECT_EQ(link_->reports[0].results(0).cell_key(), "a");
  EXPECT_EQ(link_->reports[0].results(0).attempt(), 2u);
  EXPECT_EQ(link_->reports[0].results(0).worker_id(), "w");
  EXPECT_FALSE(loop_->ReportOnce()) << "nothing is left";
  EXPECT_EQ(loop_->cells_held(), 0);
}

TEST_F(SyncLoopTest, MalformedReportDoesNotHoldUpTheNext) {
  link_->sync_answers = {Grant("l1", {"a"})};
  loop_->SyncOnce();
  executor_.Finish("a");
  link_->report_status = absl::InvalidArgumentError("malformed");
  EXPECT_FALSE(loop_->ReportOnce());
  link_->report_status = absl::OkStatus();
  EXPECT_FALSE(loop_->ReportOnce());
}

TEST_F(SyncLoopTest, DroppedLeaseCancelsCellsThatNoOtherLeaseHolds) {
  link_->sync_answers = {Grant("l1", {"a", "b"}), Grant("l2", {"b"})};
  loop_->SyncOnce();
  loop_->SyncOnce();
  v1::SyncResponse drop;
  drop.add_drop_lease_ids("l1");
  link_->sync_answers = {drop};
  loop_->SyncOnce();
  EXPECT_EQ(executor_.dropped, (std::vector<std::string>{"a"}));
}

TEST_F(SyncLoopTest, AbortedStartsANewIncarnationWithNothingRunning) {
  link_->sync_answers = {Grant("l1", {"a"}), absl::AbortedError("newer incarnation")};
  loop_->SyncOnce();
  loop_->SyncOnce();
  loop_->SyncOnce();
  EXPECT_EQ(executor_.dropped, (std::vector<std::string>{"a"}));
  EXPECT_NE(link_->syncs[2].incarnation_id(), "first");
  EXPECT_EQ(link_->syncs[2].sequence(), 1u);
  EXPECT_EQ(link_->syncs[2].running_size(), 0);
}

TEST_F(SyncLoopTest, RetriesGrowAndFallBackAfterSuccess) {
  link_->sync_answers = {absl::UnavailableError("x"), absl::UnavailableError("x"),
                         v1::SyncResponse(), absl::UnavailableError("x")};
  const absl::Duration first = loop_->SyncOnce();
  EXPECT_GT(loop_->SyncOnce(), first);
  loop_->SyncOnce();
  EXPECT_EQ(loop_->SyncOnce(), first);
}

TEST_F(SyncLoopTest, CaptureIsReportedUnderItsLease) {
  v1::SyncResponse response;
  v1::Lease* lease = response.add_start();
  lease->set_lease_id("c1");
  lease->mutable_capture()->set_capture_id("cap");
  link_->sync_answers = {response};
  loop_->SyncOnce();
  EXPECT_TRUE(loop_->ReportOnce());
  EXPECT_EQ(link_->reports[0].capture().capture_id(), "cap");
  EXPECT_EQ(loop_->cells_held(), 0);
}

TEST_F(SyncLoopTest, WorkThatArrivesOnceItDrainsIsNotBegun) {
  link_->sync_answers = {Grant("l1", {"a"})};
  link_->during_sync = [this] { loop_->Drain(absl::ZeroDuration()); };
  loop_->SyncOnce();
  EXPECT_FALSE(link_->syncs[0].draining());
  EXPECT_TRUE(executor_.started.empty());
  loop_->SyncOnce();
  EXPECT_TRUE(link_->syncs[1].draining());
  EXPECT_EQ(link_->syncs[1].running_size(), 0) << "so that the coordinator takes the lease back";
}

TEST_F(SyncLoopTest, DrainingEndsNotBeforeItWasSaid) {
  link_->pause = absl::Milliseconds(100);
  loop_->Start();
  loop_->Drain(absl::Seconds(60));
  loop_->Stop();
  EXPECT_TRUE(link_->syncs.back().draining());
}

TEST_F(SyncLoopTest, DrainingAsksForNothing) {
  loop_->Drain(absl::ZeroDuration());
  loop_->SyncOnce();
  EXPECT_TRUE(link_->syncs[0].draining());
  EXPECT_EQ(link_->syncs[0].free_cells(), 0u);
}

}  // namespace
}  // namespace plumbline
