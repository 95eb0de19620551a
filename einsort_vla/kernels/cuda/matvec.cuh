// Up to 16 rows of x times a matrix: weights are decoded in registers, for tensor cores, which sum
// in float32. docs/performance.md counts instructions.

#pragma once

#include "decode.cuh"

constexpr int kWarps = 8, kThreads = 32 * kWarps;  // of a block
constexpr int kTurn = kWarps * kInputs;            // inputs that its warps decode at once
constexpr int kMatvecTiles = 2;                    // of 8 rows of x

// A lane's sums of 8 rows and some pieces, from `piece` on, to where they are (8, kSegment).
constexpr int kShelf = kSegment + 4;  // floats of a row; lanes that write meet in few banks

template <int N>
DEVICE void put_sums(float* shelf, int piece, const float (&sums)[N][4]) {
  const int lane = threadIdx.x % 32;
#pragma unroll
  for (int i = 0; i < N; ++i)
#pragma unroll
    for (int e = 0; e < 4; ++e)
      shelf[(lane % 4 * 2 + e % 2) * kShelf + lane / 4 * 16 + 2 * (piece + i) + e / 2] = sums[i][e];
}

// parts (splits, rows, n), part i of the inputs from i * per_split on, without the row scales.
// Grid (segments, splits); the warps of a block take turns at the inputs.
template <int E, Type weights>
DEVICE void matvec(const Matrix& matrix, const Inputs& inputs, float* parts, int per_split) {
  constexpr int kHeld = 4;  // pieces, until their products are made
  const int begin = blockIdx.y * per_split, rows = int(inputs.rows);
  const int end = begin + per_split < matrix.k ? begin + per_split : matrix.k;
  const int warp = threadIdx.x / 32, own = begin + warp * kInputs;
  const bool is_tall = rows > 8;
  const Decoder<E, weights> decoder(matrix, blockIdx.x);
  typename Decoder<E, weights>::Words words;
  decoder.load(words, own);
  let_next_begin();
  const unsigned char* row[kMatvecTiles] = {inputs.row(0), inputs.row(8)};
  wait_for_previous();
  Vector<2> next_x[kMatvecTiles] = {inputs.load(row[0], own), inputs.load(row[1], own)};

  float sums[kMatvecTiles][kPieces][4] = {};
  for (int done = 0; begin + done < end; done += kTurn) {
    const auto bits = decoder.align(words);
    const Vector<2> x[kMatvecTiles] = {next_x[0], next_x[1]};
    const int input = own + done + kTurn;  // on their way while these are decoded
    decoder.load(words, input);
    next_x[0] = inputs.load(row[0], input);
    if (is_tall) next_x[1] = inputs.load(row[1], input);
    uint32_t held[kHeld][4];
    decoder.decode(bits, [&](int i, const uint32_t (&a)[4]) {
#pragma unroll
      for (int e = 0; e < 4; ++e) held[i % kHeld][e] = a[e];
      if (i % kHeld != kHeld - 1) return;
#pragma unroll
      for (int tile = 0; tile < kMatvecTiles; ++tile) {
        if (tile && !is_tall) continue;
#pragma unroll
        for (int j = 0; j < kHeld; ++j)
          multiply<weights == Type::kHalf>(sums[tile][i - i % kHeld + j], held[j], x[tile].at);
      }
    });
  }
  // Sums of the warps, 8 rows at a time.
  float* shelves = reinterpret_cast<float*>(shared_memory());
  float* part = parts + int64_t(blockIdx.y) * rows * matrix.n;
#pragma unroll
  for (int tile = 0; tile < kMatvecTiles; ++tile) {
    if (8 * tile >= rows) break;
    __syncthreads();
    put_sums(shelves + warp * 8 * kShelf, 0, sums[tile]);
    __syncthreads();
    const int output = blockIdx.x * kSegment + threadIdx.x % kSegment;
#pragma unroll 1
    for (int row = threadIdx.x / kSegment; row < 8; row += kThreads / kSegment) {
      if (8 * tile + row >= rows || output >= matrix.n) break;
      float total = 0;
#pragma unroll
      for (int from = 0; from < kWarps; ++from)
        total += shelves[(from * 8 + row) * kShelf + threadIdx.x % kSegment];
      part[int64_t(8 * tile + row) * matrix.n + output] = total;
    }
  }
}
