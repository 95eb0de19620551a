// Few rows of x times a matrix. A block has kStretch outputs and a part of the inputs; its warps
// take turns at the inputs.
//
// float16 and bfloat16 go through tensor cores, which sum in float32, with magnitudes rounded to
// that type; float32 is multiplied and added as float32. docs/performance.md counts instructions.

#pragma once

#include "decode.cuh"
#include "reader.cuh"

constexpr int kWarps = 8;
constexpr int kStretch = 256;  // outputs of a block
constexpr int kChunk = 256;    // inputs whose x is in shared memory at once

// Where kStretch sums lie that are added to others, with gaps so that lanes which write R outputs
// each seldom meet in a bank.
template <int R>
struct Shelf {
  static constexpr int kPadded = R + 4, kStride = kStretch / R * kPadded + 8;
  DEVICE static int place(int output) { return output / R * kPadded + output % R; }
};

// Adds the sums of those that have the same outputs, and stores them: part (rows, n). Memory holds
// (Adders, Rows) shelves, of the rows from `first_row` on.
template <int R, int Adders, int Rows>
DEVICE void store_sums(const float* memory, float* part, int first_row, int rows, int n) {
  const int output = blockIdx.x * kStretch + threadIdx.x;
  const float* column = memory + Shelf<R>::place(threadIdx.x);
#pragma unroll 1
  for (int row = 0; row < Rows && first_row + row < rows; ++row) {
    float total = 0;
#pragma unroll 8
    for (int i = 0; i < Adders; ++i) total += column[(i * Rows + row) * Shelf<R>::kStride];
    if (output < n) part[int64_t(first_row + row) * n + output] = total;
  }
}

// x as float32 (kChunk, M) from input `first` on, zeros beyond its rows and `end`.
template <int M>
DEVICE void stage(float* staged, const float* x, int64_t stride, int rows, int first, int end) {
  static_assert(kChunk == kWarps * 32, "an input for each thread");
  const int input = first + threadIdx.x;
#pragma unroll 1
  for (int row = 0; row < M; ++row)
    staged[threadIdx.x * M + row] = row < rows && input < end ? x[row * stride + input] : 0.0f;
}

// parts: (splits, rows, n), part i of the inputs from i * per_split on, without the row scales.
// Grid (stretches, splits), block kWarps * 32.
template <int D, int G, int M>
DEVICE void matvec(const Matrix& matrix, const float* x, float* parts, int rows, int per_split) {
  constexpr int R = M == 1 ? 32 : M <= 4 ? 16 : 8;
  constexpr int kLanes = kStretch / R, kStep = kWarps * 32 / kLanes;
  float* staged = reinterpret_cast<float*>(shared_memory());
  unsigned char* memory = shared_memory() + kChunk * M * sizeof(float);
  const Table<float, D> table(matrix, Type16(), memory, kWarps * 32);
  const int begin = blockIdx.y * per_split;
  const int end = begin + per_split < matrix.k ? begin + per_split : matrix.k;
  const int own_input = threadIdx.x / kLanes, lane = threadIdx.x % kLanes;
  const Outputs<D, G, R> own(matrix, blockIdx.x * kStretch + lane * R);

  float sums[M][R] = {};
  Strip<D, G, R> strip;
  strip.load(own, begin + own_input);
  let_next_begin();
  wait_for_previous();
  for (int first = begin; first < end; first += kChunk) {
    __syncthreads();
    stage<M>(staged, x, matrix.k, rows, first, end);
    __syncthreads();
    const int n_inputs = end - first < kChunk ? end - first : kChunk;
    for (int i = own_input; i - own_input < n_inputs; i += kStep) {
      Strip<D, G, R> next;
      next.load(own, first + i + kStep);
      const Row<float, M> inputs = *reinterpret_cast<const Row<float, M>*>(staged + i * M);
      const uint32_t signs = strip.sign_bits();
      strip.decode(own, table, [&](int slice, const Row<float, D>& magnitudes) {
#pragma unroll
        for (int e = 0; e < D; ++e) {
          const int output = slice * D + e;
          const float weight = flip(magnitudes.at[e], signs << output & 0x80000000u);
#pragma unroll
          for (int row = 0; row < M; ++row) sums[row][output] += weight * inputs.at[row];
        }
      });
      strip = next;
    }
  }
  float* shelves = reinterpret_cast<float*>(shared_memory());
  float* part = parts + int64_t(blockIdx.y) * rows * matrix.n;
#pragma unroll
  for (int row = 0; row < M; ++row) {
    __syncthreads();
#pragma unroll
    for (int i = 0; i < R; ++i)
      shelves[own_input * Shelf<R>::kStride + Shelf<R>::place(lane * R + i)] = sums[row][i];
    __syncthreads();
    store_sums<R, kStep, 1>(shelves, part, row, rows, matrix.n);
  }
}

// x of 8 inputs as the right factor of the tensor cores' products, the part of a lane: column
// 2 m + e of 8 has x of row m in half e of a word, and 0 in the other, so that a pair of outputs in
// a register of the left factor becomes two sums.
template <int Groups>
struct Columns {
  uint32_t at[Groups][2];

  // The lane's are inputs `input` and `input` + 4; zeros beyond the rows of x and `end`.
  DEVICE void load(const Bits16* x, int64_t stride, int rows, int input, int end) {
    const int column = threadIdx.x % 32 / 4;
#pragma unroll
    for (int group = 0; group < Groups; ++group) {
      const int row = group * 4 + column / 2;
      const Bits16* own = x + row * stride + input;
#pragma unroll
      for (int half = 0; half < 2; ++half) {
        const uint32_t bits = row < rows && input + 4 * half < end ? own[4 * half].at : 0;
        at[group][half] = bits << (column % 2 * 16);
      }
    }
  }
};

// 8 inputs of R outputs, as two strips a lane, times all groups of columns.
template <Type16 type, int Groups, int R>
DEVICE void add_products(float (&sums)[Groups][R / 4][4], const uint32_t (&pairs)[2][R / 2],
                         const Columns<Groups>& columns) {
#pragma unroll
  for (int group = 0; group < Groups; ++group) {
#pragma unroll
    for (int j = 0; j < R / 4; ++j) {
      const uint32_t a[4] = {pairs[0][2 * j], pairs[0][2 * j + 1], pairs[1][2 * j],
                             pairs[1][2 * j + 1]};
      multiply<type>(sums[group][j], a, columns.at[group][0], columns.at[group][1]);
    }
  }
}

// As matvec, for 16 bits and up to M rows. A lane decodes R outputs of two of the 8 inputs that its
// warp multiplies at once: rows of the left factor are pairs of outputs, its columns inputs.
template <typename Reader, int M>
DEVICE void matvec_pairs(const Matrix& matrix, Type16 type, const Bits16* x, float* parts, int rows,
                         int per_split) {
  constexpr int R = Reader::R, kGroups = M / 4;  // of 8 columns: 4 rows, by the 2 outputs of a pair
  constexpr int kBeside = kStretch / (8 * R), kAdders = kWarps / kBeside, kStep = kAdders * 8;
  const int begin = blockIdx.y * per_split;
  const int end = begin + per_split < matrix.k ? begin + per_split : matrix.k;
  const int warp = threadIdx.x / 32, lane = threadIdx.x % 32;
  const int adder = warp / kBeside, output = (warp % kBeside * 8 + lane / 4) * R;

  prefetch_streams<Reader::kSlice>(matrix, blockIdx.x * kStretch, kStretch, begin, end,
                                   kWarps * 32);
  const Reader reader(matrix, type, blockIdx.x * kStretch + output, shared_memory(), kWarps * 32);
  typename Reader::Words words[2];
  Columns<kGroups> columns;
  const auto load_words = [&](int input) {
#pragma unroll
    for (int half = 0; half < 2; ++half) reader.load(words[half], input + 4 * half);
  };
  const int first = begin + adder * 8 + lane % 4;
  load_words(first);
  let_next_begin();
  wait_for_previous();
  columns.load(x, matrix.k, rows, first, end);
  __syncthreads();

  float sums[kGroups][R / 4][4] = {};
  for (int input = first; input - lane % 4 < end; input += kStep) {
    const Columns<kGroups> now = columns;
    uint32_t pairs[2][R / 2];
    typename Reader::Words held[2] = {words[0], words[1]};
    load_words(input + kStep);  // on their way while the ones before are decoded
    columns.load(x, matrix.k, rows, input + kStep, end);
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      const auto keep = [&](int j, uint32_t pair) { pairs[half][j] = pair; };
      reader.decode(held[half],
                    Pairs<Reader::kSlice, decltype(keep)>(reader.signs(held[half]), keep));
    }
    if (type == Type16::kHalf) {
      add_products<Type16::kHalf, kGroups, R>(sums, pairs, now);
    } else {
      add_products<Type16::kBFloat16, kGroups, R>(sums, pairs, now);
    }
  }
  float* shelves = reinterpret_cast<float*>(shared_memory());
  float* part = parts + int64_t(blockIdx.y) * rows * matrix.n;
#pragma unroll
  for (int group = 0; group < kGroups; ++group) {
    __syncthreads();
#pragma unroll
    for (int j = 0; j < R / 4; ++j) {
      float* place = shelves + (adder * 4 + lane % 4) * Shelf<R>::kStride;
      const float* own = sums[group][j];
      *reinterpret_cast<Row<float, 4>*>(place + Shelf<R>::place(output + 4 * j)) = {
          own[0], own[1], own[2], own[3]};
    }
    __syncthreads();
    store_sums<R, kAdders, 4>(shelves, part, group * 4, rows, matrix.n);
  }
}
