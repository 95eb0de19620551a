// The kernels for matrices of the `leader` form, y = x W^T; launch.cpp chooses among them.

#ifndef EINSORT_EMULATED
#include "ptx.cuh"
#endif

#include "decode.cuh"
#include "matmul.cuh"
#include "matvec.cuh"

// y (rows, n) of a type = scale (n,) times the sum of parts (splits, rows, n), always in the same
// order. Grid (blocks of kReduceThreads outputs, rows).
constexpr int kReduceThreads = 256;

template <typename T>
DEVICE void reduce(const float* parts, const Half* scale, T* y, int splits, int n) {
  const int output = blockIdx.x * kReduceThreads + threadIdx.x;
  if (output >= n) return;
  const int64_t rows = gridDim.y, place = int64_t(blockIdx.y) * n + output;
  float total = 0;
  for (int i = 0; i < splits; ++i) total += parts[i * rows * n + place];
  round_to(y[place], total * to_float(scale[output]));
}

KERNEL(kReduceThreads)
reduce_leader(const float* parts, const Half* scale, void* y, int type, int splits, int n) {
  if (type == 0) {
    reduce(parts, scale, static_cast<float*>(y), splits, n);
  } else if (type == 1) {
    reduce(parts, scale, static_cast<Half*>(y), splits, n);
  } else {
    reduce(parts, scale, static_cast<BFloat16*>(y), splits, n);
  }
}

#define MATVEC(D, G, M)                                                                            \
  KERNEL(kWarps * 32)                                                                              \
  matvec_leader_d##D##_g##G##_m##M(Matrix matrix, const void* x, int type, float* parts, int rows, \
                                   int per_split) {                                                \
    matvec<D, G, M>(matrix, x, type, parts, rows, per_split);                                      \
  }

#define MATMUL(D, G, NAME, T)                                                                    \
  KERNEL(kMatmulThreads)                                                                         \
  matmul_leader_d##D##_g##G##_##NAME(Matrix matrix, const T* x, T* y, float* parts,              \
                                     const Half* scale, int64_t rows, int per_split) {           \
    matmul<T, D, G>(matrix, x, y, parts, scale, rows, per_split);                                \
  }

// G slices of d weights have windows that lie in 32 bits together.
#define KERNELS(D, G)        \
  MATVEC(D, G, 1)            \
  MATVEC(D, G, 4)            \
  MATVEC(D, G, 8)            \
  MATVEC(D, G, 16)           \
  MATMUL(D, G, float, float) \
  MATMUL(D, G, half, Half)   \
  MATMUL(D, G, bfloat, BFloat16)

KERNELS(1, 4)
KERNELS(1, 2)
KERNELS(2, 8)
KERNELS(2, 4)
KERNELS(4, 8)
KERNELS(8, 4)
