// What every Store must do. One body, run on each implementation; a file for each kind of table.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "gtest/gtest.h"
#include "services/store/store.h"

namespace plumbline::testing {

// Makes stores of one implementation; Open again finds what the last one kept.
class Backend {
 public:
  virtual ~Backend() = default;
  virtual absl::StatusOr<std::unique_ptr<Store>> Open() = 0;
};

struct Implementation {
  std::string name;
  std::unique_ptr<Backend> (*make)();
};

class StoreContract : public ::testing::TestWithParam<Implementation> {
 protected:
  void SetUp() override;
  void Reopen();

  static absl::Time At(int seconds) { return absl::FromUnixSeconds(1000000 + seconds); }

  static NewExperiment Study(const std::string& name, int prompts = 2);
  // A running experiment, or with `bind` off one that waits for its model; its id.
  std::string Create(const std::string& name, bool bind = true);

  static CellMember Member(const std::string& key, const std::string& condition = "baseline");
  void AddCells(const std::string& id, const std::vector<std::string>& keys);
  std::vector<std::string> OpenKeys(const std::string& id, int limit = 100, int at = 1000);

  static LeaseRecord Lease(const std::string& lease_id, const std::vector<std::string>& keys,
                           const std::string& worker = "w1");
  static NewResult Result(const std::string& key, const std::string& digest = "d");
  PutOutcome Put(const std::string& worker, const std::string& key, const std::string& digest = "d",
                 const std::string& lease = "");
  static NewVerdict Verdict(const std::string& key,
                            v1::VerdictLabel label = v1::VERDICT_LABEL_REFUSE);
  static v1::CaptureTask Capture(const std::string& capture_id);

  std::unique_ptr<Backend> backend_;
  std::unique_ptr<Store> store_;
};

}  // namespace plumbline::testing
