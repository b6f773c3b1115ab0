// Decode calls run once per sequence, layer and token: they must not allocate.
#include <cstdlib>
#include <new>
#include <vector>

#include "tests/unit/quant/quantizer_fixture.h"

namespace {
thread_local long allocations = 0;
}

void* operator new(std::size_t size) {
  ++allocations;
  if (void* memory = std::malloc(size == 0 ? 1 : size)) return memory;
  throw std::bad_alloc();
}
void operator delete(void* memory) noexcept { std::free(memory); }
void operator delete(void* memory, std::size_t) noexcept { std::free(memory); }

namespace plumbline {
namespace {

TEST(AllocationTest, DecodeCallsAllocateNothing) {
  constexpr int kHeads = 3, kHeadDim = 64, kTokens = 100;
  for (const char* format :
       {"fp", "int4.asym.token", "int3.sym.tensor", "int3.sym.group64.perhead", "fp8_e4m3",
        "int4.sym.channel.prompt", "int4.affine.channel.window32x16",
        "int4.affine.group32.window32", "int4.asym.token.hadamard.heads(1).sink2"}) {
    auto quantizer = TensorQuantizer::Create(*ParseFormat(format),
                                             {.kv_heads = kHeads, .head_dim = kHeadDim}, nullptr);
    ASSERT_OK(quantizer);
    std::vector<float> rows(kTokens * kHeads * kHeadDim);
    for (size_t i = 0; i < rows.size(); ++i) rows[i] = static_cast<float>(i % 97) - 40.0f;
    (*quantizer)->Append(rows.data(), 0, 40, Phase::kPromptLast);
    (*quantizer)->Append(rows.data(), 40, 1, Phase::kDecode);
    const long before = allocations;
    for (int64_t t = 41; t < kTokens; ++t) {
      (*quantizer)->Append(rows.data(), t, 1, Phase::kDecode);
    }
    EXPECT_EQ(allocations, before) << format;
  }
}

}  // namespace
}  // namespace plumbline
