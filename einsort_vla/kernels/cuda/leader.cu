// The kernels for matrices of the `leader` form, y = x W^T; launch.cpp chooses among them.

#ifndef EINSORT_EMULATED
#include "ptx.cuh"
#endif

#include "decode.cuh"
#include "dense.cuh"
#include "matmul.cuh"
#include "matvec.cuh"

// y (rows, n) of a type = scale (n,) times the sum of parts (splits, rows, n), always in the same
// order. Grid (blocks of kReduceThreads outputs, rows).
constexpr int kReduceThreads = 128;

template <typename T>
DEVICE void reduce(const float* parts, const Bits16* scale, Type16 type, T* y, int splits, int n) {
  const int output = blockIdx.x * kReduceThreads + threadIdx.x;
  let_next_begin();
  wait_for_previous();
  if (output >= n) return;
  const int64_t rows = gridDim.y, place = int64_t(blockIdx.y) * n + output;
  float total = 0;
#pragma unroll 16
  for (int i = 0; i < splits; ++i) total += parts[i * rows * n + place];
  store(y + place, type, total * half_to_float(scale[output].at));
}

// Kernels for float32 are told no type, but have the place for it.
#define REDUCE(NAME, T)                                                                           \
  KERNEL(kReduceThreads, 1)                                                                       \
  reduce_leader_##NAME(const float* parts, const Bits16* scale, Type16 type, T* y, int splits,    \
                       int n) {                                                                   \
    reduce(parts, scale, type, y, splits, n);                                                     \
  }

#define MATMUL(D, G, NAME, T)                                                                     \
  KERNEL(kMatmulThreads, 1)                                                                       \
  matmul_leader_d##D##_g##G##_##NAME(Matrix matrix, Type16 type, const T* x, T* y, float* parts,  \
                                     const Bits16* scale, int64_t rows, int per_split) {          \
    matmul<T, D, G>(matrix, type, x, y, parts, scale, rows, per_split);                           \
  }

#define DENSE(D, NAME, T, ...)                                                                    \
  KERNEL(kDenseThreads, 1)                                                                        \
  decode_leader_d##D##_##NAME(Matrix matrix, Type16 type, const Bits16* scale, T* weight,         \
                              int per_part) {                                                     \
    decode_matrix<__VA_ARGS__, T>(matrix, type, scale, weight, per_part);                         \
  }

#define MATVEC(D, G, M)                                                                           \
  KERNEL(kWarps * 32, 1)                                                                          \
  matvec_leader_d##D##_g##G##_float_m##M(Matrix matrix, Type16, const float* x, float* parts,     \
                                         int rows, int per_split) {                               \
    matvec<D, G, M>(matrix, x, parts, rows, per_split);                                           \
  }

#define PAIRS(D, NAME, M, ...)                                                                    \
  KERNEL(kWarps * 32, 2)                                                                          \
  matvec_leader_d##D##_##NAME##_16bit_m##M(Matrix matrix, Type16 type, const Bits16* x,           \
                                           float* parts, int rows, int per_split) {               \
    matvec_pairs<__VA_ARGS__, M>(matrix, type, x, parts, rows, per_split);                        \
  }

// G slices of d weights have windows that lie in 32 bits together.
#define ANY(D, G)                                           \
  MATMUL(D, G, float, float)                                \
  MATMUL(D, G, 16bit, Bits16)                               \
  DENSE(D, g##G##_float, float, AnyReader<float, D, G, 8>)  \
  DENSE(D, g##G##_16bit, Bits16, AnyReader<float, D, G, 8>) \
  MATVEC(D, G, 1)                                           \
  MATVEC(D, G, 4)                                           \
  MATVEC(D, G, 16)                                          \
  PAIRS(D, g##G, 4, AnyReader<Bits16, D, G, 32>)            \
  PAIRS(D, g##G, 16, AnyReader<Bits16, D, G, 16>)

#define ALIGNED(D, B)                                           \
  DENSE(D, b##B##_16bit, Bits16, AlignedReader<float, D, B, 8>) \
  PAIRS(D, b##B, 4, AlignedReader<Bits16, D, B, 32>)            \
  PAIRS(D, b##B, 16, AlignedReader<Bits16, D, B, 16>)

#define KERNELS                              \
  REDUCE(float, float) REDUCE(16bit, Bits16) \
  ANY(1, 4) ANY(1, 2)                        \
  ANY(2, 8) ANY(2, 4)                        \
  ANY(4, 8) ANY(8, 4)                        \
  ALIGNED(2, 1) ALIGNED(2, 2) ALIGNED(2, 3)  \
  ALIGNED(2, 4) ALIGNED(2, 5) ALIGNED(2, 6)

KERNELS
