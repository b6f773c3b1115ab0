#include "services/cli/last_cluster.h"

#include <unistd.h>

#include <filesystem>

#include "gtest/gtest.h"
#include "services/common/files.h"
#include "tests/support/status_matchers.h"

namespace plumbline {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using testing::StatusIs;

std::string NewFolder(const std::string& name) {
  const std::string folder =
      JoinPath(::testing::TempDir(), absl::StrCat("last_cluster_test_", getpid(), "_", name));
  EXPECT_OK(MakeDirectories(folder, 0700));
  return folder;
}

TEST(LastClusterTest, GivesBackTheRootsOfAllWorkersAsAbsolutePaths) {
  v1::ClusterConfig config;
  config.set_data_dir(NewFolder("roots"));
  v1::WorkerConfig* first = config.add_workers();
  first->add_model_roots("models/../mine");
  first->set_dtype("bf16");
  first->set_device("cuda:1");
  config.add_workers()->add_model_roots("/srv/models");
  *config.add_workers() = *first;
  ASSERT_OK(RememberCluster(config));
  ASSERT_OK_AND_ASSIGN(const v1::WorkerConfig last, LastWorker(config.data_dir()));
  const std::string mine = (std::filesystem::current_path() / "mine").string();
  EXPECT_THAT(last.model_roots(), ElementsAre(mine, "/srv/models"));
  EXPECT_EQ(last.dtype(), "bf16");
  EXPECT_EQ(last.device(), "cuda:1");
}

TEST(LastClusterTest, AClusterWithoutModelsLeavesWhatIsRemembered) {
  v1::ClusterConfig config;
  config.set_data_dir(NewFolder("none"));
  ASSERT_OK_AND_ASSIGN(v1::WorkerConfig last, LastWorker(config.data_dir()));
  EXPECT_THAT(last.model_roots(), IsEmpty());
  config.add_workers()->add_model_roots("/srv/models");
  ASSERT_OK(RememberCluster(config));
  config.mutable_workers(0)->clear_model_roots();
  ASSERT_OK(RememberCluster(config));
  ASSERT_OK_AND_ASSIGN(last, LastWorker(config.data_dir()));
  EXPECT_THAT(last.model_roots(), ElementsAre("/srv/models"));
}

TEST(LastClusterTest, AFileThatIsNoConfigIsNamed) {
  const std::string folder = NewFolder("broken");
  ASSERT_OK(WriteFileAtomically(JoinPath(folder, "cluster.txtpb"), "workers {"));
  EXPECT_THAT(LastWorker(folder),
              StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr("cluster.txtpb")));
}

}  // namespace
}  // namespace plumbline
