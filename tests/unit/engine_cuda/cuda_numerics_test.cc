#include "services/engine/cuda/cuda_numerics.h"

#include <gnu/libc-version.h>

#include "absl/strings/str_cat.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "services/engine/cpu/numerics_class.h"

namespace plumbline {
namespace {

using ::testing::HasSubstr;
using ::testing::Not;

CudaNumerics Hopper() {
  CudaNumerics numerics;
  numerics.device = "H100";
  numerics.multiprocessors = 132;
  numerics.compute_major = 9;
  numerics.runtime = 13000;
  numerics.driver = 13010;
  numerics.cublaslt = 130002;
  numerics.chunk_rows = 512;
  numerics.algorithms = "qkv=[id66] head=[id71]";
  return numerics;
}

// Rotary angles, Gumbel noise and nuclei of a GPU's sequences are the host's.
TEST(CudaNumericsTest, NamesTheHostsCLibraryAsTheCpusDoes) {
  const std::string libc = absl::StrCat("libc=", gnu_get_libc_version());
  EXPECT_THAT(CudaNumericsClass(Hopper()), HasSubstr(libc));
  EXPECT_THAT(CpuNumericsClass(ComputeDtype::kF32), HasSubstr(libc));
}

TEST(CudaNumericsTest, NamesDeviceLibrariesChunkAndAlgorithms) {
  const std::string text = CudaNumericsClass(Hopper());
  for (const char* part : {"dtype=bf16", "device='H100' sms=132", "runtime=13000",
                           "cublaslt=130002", "chunk=512", "qkv=[id66] head=[id71]"}) {
    EXPECT_THAT(text, HasSubstr(part));
  }
}

TEST(CudaNumericsTest, NamesTheDriverWhereItCompilesTheKernels) {
  CudaNumerics numerics = Hopper();
  EXPECT_THAT(CudaNumericsClass(numerics), Not(HasSubstr("driver=")));
  numerics.compute_major = 10;
  EXPECT_THAT(CudaNumericsClass(numerics), HasSubstr("driver=13010"));
  numerics.compute_major = 9;
  numerics.compute_minor = 1;
  EXPECT_THAT(CudaNumericsClass(numerics), HasSubstr("driver=13010"));
}

}  // namespace
}  // namespace plumbline
