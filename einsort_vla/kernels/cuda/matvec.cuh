// Few rows of x times a matrix, by multiply-add in float32.
//
// A block has kStretch outputs and a part of the inputs; its warps take turns at the inputs. A
// lane decodes R outputs of one input and multiplies them by all M rows. One row times 4096 x 4096
// at 2 bits reads 4.2 MB, an eighth of bfloat16, and the compiled loop (d=2, sm_87) has 251
// instructions for 32 weights, 4.1 million of a warp. By these counts, which were not checked on a
// GPU, Orin needs 49 us (16 multiprocessors, 4 instructions each at 1.3 GHz) and 168 us for bfloat16
// (200 GB/s).

#pragma once

#include "decode.cuh"

constexpr int kWarps = 8;
constexpr int kStretch = 256;  // outputs of a block
constexpr int kChunk = 256;    // inputs whose x is in shared memory at once

DEVICE float load_input(const void* x, int type, int64_t place) {
  if (type == 0) return static_cast<const float*>(x)[place];
  if (type == 1) return to_float(static_cast<const Half*>(x)[place]);
  return to_float(static_cast<const BFloat16*>(x)[place]);
}

// x as float32 (kChunk, M) from input `first` on, zeros beyond its rows and `end`.
template <int M>
DEVICE void stage(float* staged, const void* x, int type, int64_t stride, int rows, int first,
                  int end) {
  static_assert(kChunk == kWarps * 32, "an input for each thread");
  const int input = first + threadIdx.x;
#pragma unroll 1
  for (int row = 0; row < M; ++row) {
    const bool inside = row < rows && input < end;
    const float value = inside ? load_input(x, type, row * stride + input) : 0.0f;
    staged[threadIdx.x * M + row] = value;
  }
}

template <int M, int R>
struct Sums {
  float at[M][R];

  DEVICE void add(int output, float weight, const Row<float, M>& x) {
#pragma unroll
    for (int row = 0; row < M; ++row) at[row][output] += weight * x.at[row];
  }
};

// Adds the sums of all lanes that have the same outputs, and stores them: part (rows, n).
template <int M, int R>
DEVICE void store_sums(const Sums<M, R>& sums, float* memory, float* part, int rows, int n) {
  constexpr int kLanes = kStretch / R, kAdders = kWarps * 32 / kLanes;
  // Turned and padded so that lanes of a warp seldom meet in a bank, as they write or as they read.
  constexpr int kStride = kStretch + kLanes;
  const auto place = [](int i, int lane) {
    return i * kLanes + (lane + i / (32 / kLanes)) % kLanes;
  };
  const int adder = threadIdx.x / kLanes, lane = threadIdx.x % kLanes;
  const int output = blockIdx.x * kStretch + threadIdx.x;
  const float* column = memory + place(threadIdx.x % R, threadIdx.x / R);
#pragma unroll
  for (int row = 0; row < M; ++row) {
    __syncthreads();
#pragma unroll
    for (int i = 0; i < R; ++i) memory[adder * kStride + place(i, lane)] = sums.at[row][i];
    __syncthreads();
    float total = 0;
#pragma unroll 8
    for (int i = 0; i < kAdders; ++i) total += column[i * kStride];
    if (row < rows && output < n) part[int64_t(row) * n + output] = total;
  }
}

// parts: (splits, rows, n), part i of the inputs from i * per_split on, without the row scales.
// Grid (stretches, splits), block kWarps * 32.
template <int D, int G, int M>
DEVICE void matvec(const Matrix& matrix, const void* x, int type, float* parts, int rows,
                   int per_split) {
  constexpr int R = M == 1 ? 32 : M <= 4 ? 16 : 8;
  constexpr int kLanes = kStretch / R, kStep = kWarps * 32 / kLanes;
  float* staged = reinterpret_cast<float*>(shared_memory());
  unsigned char* memory = shared_memory() + kChunk * M * sizeof(float);
  fill_table<float, D>(matrix, memory, kWarps * 32);
  const Table<float, D> table(matrix, memory);
  const int begin = blockIdx.y * per_split;
  const int end = begin + per_split < matrix.k ? begin + per_split : matrix.k;
  const int own = threadIdx.x / kLanes;
  const int output = blockIdx.x * kStretch + threadIdx.x % kLanes * R;

  Sums<M, R> sums = {};
  const auto load = [&](Strip<D, G, R>& strip, int input) {
    strip.load(matrix, input < end ? input : end - 1, output);
  };
  Strip<D, G, R> strip;
  load(strip, begin + own);
  for (int first = begin; first < end; first += kChunk) {
    __syncthreads();
    stage<M>(staged, x, type, matrix.k, rows, first, end);
    __syncthreads();
    const int n_inputs = end - first < kChunk ? end - first : kChunk;
    for (int i = own; i - own < n_inputs; i += kStep) {
      Strip<D, G, R> next;
      load(next, first + i + kStep);
      const Row<float, M> inputs = *reinterpret_cast<const Row<float, M>*>(staged + i * M);
      const uint32_t signs = strip.sign_bits();
      strip.decode(matrix, table, output, [&](int slice, const Row<float, D>& row) {
#pragma unroll
        for (int e = 0; e < D; ++e) {
          const uint32_t sign = (signs << (slice * D + e)) & 0x80000000u;
          sums.add(slice * D + e, flip(row.at[e], sign), inputs);
        }
      });
      strip = next;
    }
  }
  store_sums(sums, reinterpret_cast<float*>(shared_memory()),
             parts + int64_t(blockIdx.y) * rows * matrix.n, rows, matrix.n);
}
