#include <cuda_bf16.h>

#include "kernels/cuda/early_launch.cuh"
#include "kernels/cuda/row_ops.h"

namespace plumbline::cuda {
namespace {

// Elements that one thread moves at once: 16 bytes of them, or one where rows are not aligned.
template <typename T, int kCount>
struct alignas(kCount == 1 ? sizeof(T) : 16) Pack {
  T values[kCount];
};

__device__ float ToFloat(float x) { return x; }
__device__ float ToFloat(__nv_bfloat16 x) { return __bfloat162float(x); }
template <typename T>
__device__ T FromFloat(float x);
template <>
__device__ float FromFloat<float>(float x) {
  return x;
}
template <>
__device__ __nv_bfloat16 FromFloat<__nv_bfloat16>(float x) {
  return __float2bfloat16_rn(x);
}
template <typename T>
__device__ float Rounded(float x) {
  return ToFloat(FromFloat<T>(x));
}

template <typename T, int kCount>
__device__ Pack<T, kCount> LoadPack(const T* base, int64_t pack) {
  return reinterpret_cast<const Pack<T, kCount>*>(base)[pack];
}
template <typename T, int kCount>
__device__ void StorePack(T* base, int64_t pack, const Pack<T, kCount>& value) {
  reinterpret_cast<Pack<T, kCount>*>(base)[pack] = value;
}

// Which lines the L2 gives up first: hints that change no value. Packs of 16 bytes only.
__device__ uint64_t KeepLeast() {
  uint64_t policy;
  asm("createpolicy.fractional.L2::evict_first.b64 %0, 1.0;" : "=l"(policy));
  return policy;
}
__device__ uint64_t KeepMost() {
  uint64_t policy;
  asm("createpolicy.fractional.L2::evict_last.b64 %0, 1.0;" : "=l"(policy));
  return policy;
}
template <typename T, int kCount>
__device__ Pack<T, kCount> LoadLastUse(const T* base, int64_t pack) {
  if constexpr (kCount == 1) {
    return LoadPack<T, kCount>(base, pack);
  } else {
    uint4 words;
    asm volatile("ld.global.L2::cache_hint.v4.u32 {%0, %1, %2, %3}, [%4], %5;"
                 : "=r"(words.x), "=r"(words.y), "=r"(words.z), "=r"(words.w)
                 : "l"(base + pack * kCount), "l"(KeepLeast()));
    Pack<T, kCount> value;
    memcpy(&value, &words, sizeof value);
    return value;
  }
}
template <typename T, int kCount>
__device__ void StoreForNext(T* base, int64_t pack, const Pack<T, kCount>& value) {
  if constexpr (kCount == 1) {
    StorePack(base, pack, value);
  } else {
    uint4 words;
    memcpy(&words, &value, sizeof words);
    asm volatile(
        "st.global.L2::cache_hint.v4.u32 [%0], {%1, %2, %3, %4}, %5;" ::"l"(base + pack * kCount),
        "r"(words.x), "r"(words.y), "r"(words.z), "r"(words.w), "l"(KeepMost())
        : "memory");
  }
}

// The same on every thread of the block: lanes as a tree, then warps in order.
__device__ float BlockSum(float x) {
  __shared__ float warp_sums[32];
  for (int distance = 16; distance > 0; distance /= 2) {
    x += __shfl_xor_sync(~0u, x, distance);
  }
  if (threadIdx.x % 32 == 0) warp_sums[threadIdx.x / 32] = x;
  __syncthreads();
  float sum = 0;
  for (int w = 0; w < blockDim.x / 32; ++w) sum += warp_sums[w];
  return sum;
}

// kernels/vec.h's Exp, operation by operation, so that activations equal the CPU's bit for bit.
__device__ float Exp(float x) {
  const float clamped = x < -87.33654f ? -87.33654f : (x > 88.72283f ? 88.72283f : x);
  const float magic = 12582912.0f;
  const float n = __fsub_rn(__fadd_rn(__fmul_rn(clamped, 1.44269504f), magic), magic);
  const float r =
      __fsub_rn(__fsub_rn(clamped, __fmul_rn(n, 0.693359375f)), __fmul_rn(n, -2.12194440e-4f));
  float p = 1.9875691500e-4f;
  p = __fadd_rn(__fmul_rn(p, r), 1.3981999507e-3f);
  p = __fadd_rn(__fmul_rn(p, r), 8.3334519073e-3f);
  p = __fadd_rn(__fmul_rn(p, r), 4.1665795894e-2f);
  p = __fadd_rn(__fmul_rn(p, r), 1.6666665459e-1f);
  p = __fadd_rn(__fmul_rn(p, r), 5.0000001201e-1f);
  p = __fadd_rn(__fadd_rn(__fmul_rn(p, __fmul_rn(r, r)), r), 1.0f);
  const int exponent = __float2int_rz(n);
  const int half = exponent >> 1;
  const float scale_a = __int_as_float((half + 127) << 23);
  const float scale_b = __int_as_float((exponent - half + 127) << 23);
  float result = __fmul_rn(__fmul_rn(p, scale_a), scale_b);
  if (x < -87.33654f) result = 0;
  if (x > 88.72283f) result = INFINITY;
  return x != x ? x : result;
}

__device__ float Silu(float gate) { return __fdiv_rn(gate, __fadd_rn(1.0f, Exp(-gate))); }

__device__ float RoundedSilu(float gate, float*) { return Silu(gate); }

// Silu(gate) rounded to bf16, mostly by way of the approximations of exp2 and 1 / x. In units in
// the last place of float, of a result where they weigh most, they are off by less than 4 and 2,
// the argument of exp2 makes up to 15 at the largest gate, and roundings here and in Silu come
// to 6. So both round alike unless a number half way between two of bf16 is nearer than kNear:
// there, and for larger gates, it is Silu.
__device__ float RoundedSilu(float gate, __nv_bfloat16*) {
  constexpr float kLargest = 12.0f;
  constexpr uint32_t kNear = 32;
  float power, inverse;
  asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(power) : "f"(__fmul_rn(gate, -1.44269504f)));
  asm("rcp.approx.ftz.f32 %0, %1;" : "=f"(inverse) : "f"(__fadd_rn(1.0f, power)));
  const float silu = __fmul_rn(gate, inverse);
  const uint32_t from_half = __float_as_uint(silu) - (0x8000u - kNear);
  const bool unsure = (from_half & 0xffffu) <= 2 * kNear || !(fabsf(gate) <= kLargest);
  return unsure ? Silu(gate) : silu;
}

// out[row] = source[index[row]], or zeros.
template <typename T, int kCount>
__global__ void GatherKernel(const T* source, const int32_t* index, int packs, T* out) {
  AllowNextKernel();
  const int64_t row = blockIdx.x;
  AwaitEarlierKernels();
  const int64_t from = index[row];
  for (int i = threadIdx.x; i < packs; i += blockDim.x) {
    Pack<T, kCount> pack;
    if (from >= 0) {
      pack = LoadPack<T, kCount>(source, from * packs + i);
    } else {
      for (int k = 0; k < kCount; ++k) pack.values[k] = FromFloat<T>(0.0f);
    }
    StorePack(out, row * packs + i, pack);
  }
}

template <typename T, int kCount>
__device__ void AddTo(Pack<T, kCount>* x, const Pack<T, kCount>& y) {
#pragma unroll
  for (int k = 0; k < kCount; ++k) {
    x->values[k] = FromFloat<T>(__fadd_rn(ToFloat(x->values[k]), ToFloat(y.values[k])));
  }
}

// A block a row. The first kKept packs of a thread stay in registers between the two passes.
template <typename T, int kCount>
__global__ void AddNormKernel(const T* added, T* hidden, const T* weight, float eps, int width,
                              T* out) {
  constexpr int kKept = 4;
  AllowNextKernel();
  const int packs = width / kCount;
  const int64_t row = int64_t{blockIdx.x} * packs;
  Pack<T, kCount> kept[kKept], more[kKept], weights[kKept];
#pragma unroll
  for (int j = 0; j < kKept; ++j) {
    const int i = threadIdx.x + j * blockDim.x;
    if (i < packs) weights[j] = LoadPack<T, kCount>(weight, i);
  }
  AwaitEarlierKernels();
#pragma unroll
  for (int j = 0; j < kKept; ++j) {
    const int i = threadIdx.x + j * blockDim.x;
    if (i < packs) kept[j] = LoadPack<T, kCount>(hidden, row + i);
    if (i < packs && added != nullptr) more[j] = LoadPack<T, kCount>(added, row + i);
  }
  float sum = 0;
  const auto take = [&](int i, Pack<T, kCount>* x, const Pack<T, kCount>& y) {
    if (added != nullptr) {
      AddTo(x, y);
      StorePack(hidden, row + i, *x);
    }
#pragma unroll
    for (int k = 0; k < kCount; ++k) sum = fmaf(ToFloat(x->values[k]), ToFloat(x->values[k]), sum);
  };
#pragma unroll
  for (int j = 0; j < kKept; ++j) {
    const int i = threadIdx.x + j * blockDim.x;
    if (i < packs) take(i, &kept[j], more[j]);
  }
  for (int i = threadIdx.x + kKept * blockDim.x; i < packs; i += blockDim.x) {
    Pack<T, kCount> x = LoadPack<T, kCount>(hidden, row + i), y = x;
    if (added != nullptr) y = LoadPack<T, kCount>(added, row + i);
    take(i, &x, y);
  }
  const float mean = __fdiv_rn(BlockSum(sum), static_cast<float>(width));
  const float inverse = __fdiv_rn(1.0f, __fsqrt_rn(__fadd_rn(mean, eps)));
  const auto write = [&](int i, const Pack<T, kCount>& x, const Pack<T, kCount>& w) {
    Pack<T, kCount> y;
#pragma unroll
    for (int k = 0; k < kCount; ++k) {
      const float normed = Rounded<T>(__fmul_rn(ToFloat(x.values[k]), inverse));
      y.values[k] = FromFloat<T>(__fmul_rn(ToFloat(w.values[k]), normed));
    }
    StorePack(out, row + i, y);
  };
#pragma unroll
  for (int j = 0; j < kKept; ++j) {
    const int i = threadIdx.x + j * blockDim.x;
    if (i < packs) write(i, kept[j], weights[j]);
  }
  for (int i = threadIdx.x + kKept * blockDim.x; i < packs; i += blockDim.x) {
    write(i, LoadPack<T, kCount>(hidden, row + i), LoadPack<T, kCount>(weight, i));
  }
}

// period: packs after which `added` begins again; 0 = never.
template <typename T, int kCount>
__global__ void AddKernel(const T* added, int64_t packs, int period, T* x) {
  AllowNextKernel();
  AwaitEarlierKernels();
  const int64_t i = int64_t{blockIdx.x} * blockDim.x + threadIdx.x;
  if (i >= packs) return;
  Pack<T, kCount> pack = LoadPack<T, kCount>(x, i);
  AddTo(&pack, LoadPack<T, kCount>(added, period == 0 ? i : i % period));
  StorePack(x, i, pack);
}

// Its input is as large as half the L2 and is not read again; its output is, at once.
template <typename T, int kCount>
__global__ void SiluMulKernel(const T* gate_up, int packs, T* out) {
  AllowNextKernel();
  AwaitEarlierKernels();
  const int i = blockIdx.x * blockDim.x + threadIdx.x;
  if (i >= packs) return;
  const int64_t row = blockIdx.y;
  const Pack<T, kCount> gate = LoadLastUse<T, kCount>(gate_up, row * 2 * packs + i);
  const Pack<T, kCount> up = LoadLastUse<T, kCount>(gate_up, (row * 2 + 1) * packs + i);
  Pack<T, kCount> y;
#pragma unroll
  for (int k = 0; k < kCount; ++k) {
    const float silu = Rounded<T>(RoundedSilu(ToFloat(gate.values[k]), static_cast<T*>(nullptr)));
    y.values[k] = FromFloat<T>(__fmul_rn(silu, ToFloat(up.values[k])));
  }
  StoreForNext(out, row * packs + i, y);
}

// Threads of a block for so many packs: a function of the width alone, as it orders sums.
int BlockSize(int packs) {
  const int warps = (packs + 31) / 32;
  return 32 * (warps < 1 ? 1 : (warps > 8 ? 8 : warps));
}

// Calls f with the element type and the widest pack that keeps rows of `width` aligned.
template <typename F>
cudaError_t Dispatch(Dtype dtype, int width, F f) {
  if (dtype == Dtype::kBf16) {
    using Bf16 = __nv_bfloat16;
    return width % 8 == 0 ? f.template operator()<Bf16, 8>() : f.template operator()<Bf16, 1>();
  }
  return width % 4 == 0 ? f.template operator()<float, 4>() : f.template operator()<float, 1>();
}

template <typename T>
const T* As(const void* p) {
  return static_cast<const T*>(p);
}
template <typename T>
T* As(void* p) {
  return static_cast<T*>(p);
}

cudaError_t LaunchAddRepeated(Dtype dtype, const void* added, bool repeated, int rows, int width,
                              void* x, cudaStream_t stream) {
  if (rows == 0) return cudaSuccess;
  return Dispatch(dtype, width, [&]<typename T, int kCount>() {
    constexpr int kThreads = 256;
    const int64_t packs = int64_t{rows} * width / kCount;
    const int blocks = static_cast<int>((packs + kThreads - 1) / kThreads);
    return LaunchEarly(AddKernel<T, kCount>, blocks, kThreads, 0, stream, As<T>(added), packs,
                       repeated ? width / kCount : 0, As<T>(x));
  });
}

}  // namespace

cudaError_t LaunchGather(Dtype dtype, const void* hidden, const int32_t* row_of, int rows,
                         int width, void* out, cudaStream_t stream) {
  if (rows == 0) return cudaSuccess;
  return Dispatch(dtype, width, [&]<typename T, int kCount>() {
    const int packs = width / kCount;
    return LaunchEarly(GatherKernel<T, kCount>, rows, BlockSize(packs), 0, stream, As<T>(hidden),
                       row_of, packs, As<T>(out));
  });
}

cudaError_t LaunchEmbed(Dtype dtype, const void* table, const int32_t* tokens, int rows, int width,
                        void* hidden, cudaStream_t stream) {
  return LaunchGather(dtype, table, tokens, rows, width, hidden, stream);
}

cudaError_t LaunchAddNorm(Dtype dtype, const void* added, void* hidden, const void* weight,
                          float eps, int rows, int width, void* out, cudaStream_t stream) {
  if (rows == 0) return cudaSuccess;
  return Dispatch(dtype, width, [&]<typename T, int kCount>() {
    return LaunchEarly(AddNormKernel<T, kCount>, rows, BlockSize(width / kCount), 0, stream,
                       As<T>(added), As<T>(hidden), As<T>(weight), eps, width, As<T>(out));
  });
}

cudaError_t LaunchAdd(Dtype dtype, const void* added, int rows, int width, void* hidden,
                      cudaStream_t stream) {
  return LaunchAddRepeated(dtype, added, false, rows, width, hidden, stream);
}

cudaError_t LaunchAddBias(Dtype dtype, const void* bias, int rows, int width, void* x,
                          cudaStream_t stream) {
  return LaunchAddRepeated(dtype, bias, true, rows, width, x, stream);
}

cudaError_t LaunchSiluMul(Dtype dtype, const void* gate_up, int rows, int inner, void* out,
                          cudaStream_t stream) {
  if (rows == 0) return cudaSuccess;
  return Dispatch(dtype, inner, [&]<typename T, int kCount>() {
    constexpr int kThreads = 256;
    const int packs = inner / kCount;
    const dim3 grid((packs + kThreads - 1) / kThreads, rows);
    return LaunchEarly(SiluMulKernel<T, kCount>, grid, kThreads, 0, stream, As<T>(gate_up), packs,
                       As<T>(out));
  });
}

}  // namespace plumbline::cuda
