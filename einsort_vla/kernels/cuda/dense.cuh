// The matrix itself, for products with so many rows that decoding once is cheaper.

#pragma once

#include "decode.cuh"
#include "reader.cuh"

constexpr int kDenseThreads = 256, kDenseOutputs = 256;  // of a block

// N neighbouring numbers with their signs, at a place for vectors.
template <int N>
DEVICE void store_row(float* to, Type16, const float (&row)[N], uint32_t signs) {
#pragma unroll
  for (int i = 0; i < N; i += 4) {
    Row<float, 4> quad;
#pragma unroll
    for (int e = 0; e < 4; ++e) quad.at[e] = flip(row[i + e], signs << (i + e) & 0x80000000u);
    *reinterpret_cast<Row<float, 4>*>(to + i) = quad;
  }
}

template <int N>
DEVICE void store_row(Bits16* to, Type16 type, const float (&row)[N], uint32_t signs) {
  const PairSigns flips(signs);
  Row<uint32_t, N / 2> words;
#pragma unroll
  for (int i = 0; i < N / 2; ++i) {
    const float low = row[2 * i], high = row[2 * i + 1];
    words.at[i] = flips.flip(
        i, type == Type16::kHalf ? floats_to_halves(low, high) : floats_to_bfloats(low, high));
  }
  *reinterpret_cast<Row<uint32_t, N / 2>*>(to) = words;
}

// weight (k, n), the transpose of W, with the scales; part i of the inputs from i * per_part on.
// Grid (parts, stretches of kDenseOutputs).
template <typename Reader, typename T>
DEVICE void decode_matrix(const Matrix& matrix, Type16 type, const Bits16* scale, T* weight,
                          int per_part) {
  constexpr int R = Reader::R, D = Reader::kSlice, kStep = kDenseThreads / 32, kAhead = 2;
  static_assert(R == kDenseOutputs / 32, "a warp has all outputs of the block");
  const int begin = blockIdx.x * per_part;
  const int end = begin + per_part < matrix.k ? begin + per_part : matrix.k;
  const int stretch = blockIdx.y * kDenseOutputs, first = stretch + threadIdx.x % 32 * R;
  prefetch_streams<D>(matrix, stretch, kDenseOutputs, begin, end, kDenseThreads);
  const Reader reader(matrix, type, first, shared_memory(), kDenseThreads);
  const int n_outputs = matrix.n - first;  // here and beyond
  float scales[R];
#pragma unroll
  for (int i = 0; i < R; ++i) scales[i] = i < n_outputs ? half_to_float(scale[first + i].at) : 0.0f;
  const int own = begin + threadIdx.x / 32;
  typename Reader::Words next[kAhead];
#pragma unroll
  for (int i = 0; i < kAhead; ++i) reader.load(next[i], own + i * kStep);
  wait_for_previous();
  __syncthreads();
#pragma unroll kAhead
  for (int i = 0; own + i * kStep < end; ++i) {
    const int input = own + i * kStep;
    const typename Reader::Words words = next[i % kAhead];
    reader.load(next[i % kAhead], input + kAhead * kStep);
    float row[R];
    reader.decode(words, [&](int slice, const typename Reader::Row& magnitudes) {
#pragma unroll
      for (int e = 0; e < D; ++e) row[slice * D + e] = magnitudes.at[e] * scales[slice * D + e];
    });
    const uint32_t signs = reader.signs(words);
    T* to = weight + int64_t(input) * matrix.n + first;
    if (Reader::kWhole || matrix.n % R == 0) {
      if (n_outputs > 0) store_row(to, type, row, signs);
    } else {
#pragma unroll
      for (int e = 0; e < R; ++e)
        if (e < n_outputs) store(to + e, type, flip(row[e], signs << e & 0x80000000u));
    }
  }
}
