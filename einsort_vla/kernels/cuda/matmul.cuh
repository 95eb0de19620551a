// Many rows of x times a matrix: each warp of a block decodes other inputs into shared memory, as
// fragments, and multiplies those of all warps by other rows.

#pragma once

#include "decode.cuh"
#include "matvec.cuh"

constexpr int kTileRows = 64, kTiles = kTileRows / 8;

// Of the inputs of one turn: 16 of each warp.
struct Fragments {
  Vector<4> w[kWarps][kPieces][32];
  Vector<2> x[kWarps][kTiles][32];
};

// y (rows, n), if it is given, else parts (splits, rows, n) in float32 without the row scales; part
// i is of the inputs from i * per_split on. Grid (tiles of rows, segments, splits).
template <int E, Type weights>
DEVICE void matmul(const Matrix& matrix, const Inputs& inputs, Type type, void* y, float* parts,
                   int per_split) {
  constexpr int kOwnPieces = kPieces / 2, kOwnTiles = kTiles / (kWarps / 2);
  using Own = Decoder<E, weights>;
  auto& at = *reinterpret_cast<Fragments*>(shared_memory());
  const int begin = blockIdx.z * per_split;
  const int end = begin + per_split < matrix.k ? begin + per_split : matrix.k;
  const int warp = threadIdx.x / 32, lane = threadIdx.x % 32;
  const int64_t rows = inputs.rows, first_row = int64_t(blockIdx.x) * kTileRows;
  const int n_tiles = rows - first_row < kTileRows ? int(rows - first_row + 7) / 8 : kTiles;
  const int piece = warp % 2 * kOwnPieces, tile = warp / 2 * kOwnTiles;  // that it multiplies
  const Own decoder(matrix, blockIdx.y);
  typename Own::Words words;
  decoder.load(words, begin + warp * kInputs);
  const unsigned char* row[kTiles];
#pragma unroll
  for (int t = 0; t < kTiles; ++t) row[t] = inputs.row(first_row + 8 * t);
  wait_for_previous();

  float sums[kOwnTiles][kOwnPieces][4] = {};
  for (int first = begin; first < end; first += kTurn) {
    const int own = first + warp * kInputs;
    Vector<2> x[kTiles];
#pragma unroll
    for (int t = 0; t < kTiles; ++t) x[t] = inputs.load(row[t], own);
    __syncthreads();  // the products before have been summed
#pragma unroll
    for (int t = 0; t < kTiles; ++t) at.x[warp][t][lane] = x[t];
    const auto bits = decoder.align(words);
    decoder.load(words, own + kTurn);
    decoder.decode(bits, [&](int i, const uint32_t (&a)[4]) {
      at.w[warp][i][lane] = {a[0], a[1], a[2], a[3]};
    });
    __syncthreads();
    if (tile >= n_tiles) continue;
#pragma unroll 1
    for (int from = 0; from < kWarps; ++from) {
      Vector<4> a[kOwnPieces];
#pragma unroll
      for (int i = 0; i < kOwnPieces; ++i) a[i] = at.w[from][piece + i][lane];
#pragma unroll
      for (int t = 0; t < kOwnTiles; ++t)
#pragma unroll
        for (int i = 0; i < kOwnPieces; ++i)
          multiply<weights == Type::kHalf>(sums[t][i], a[i].at, at.x[from][tile + t][lane].at);
    }
  }
  // By way of shared memory, so that neighbouring threads store neighbouring outputs.
  __syncthreads();
  float* shelves = reinterpret_cast<float*>(shared_memory());
#pragma unroll
  for (int t = 0; t < kOwnTiles; ++t)
    put_sums(shelves + 8 * (tile + t) * kShelf, piece, sums[t]);
  __syncthreads();
  const int output = blockIdx.y * kSegment + threadIdx.x % kSegment;
  if (output >= matrix.n) return;
  const float scale = y ? row_scale(matrix, output) : 1;
  float* part = parts + int64_t(blockIdx.z) * rows * matrix.n;
#pragma unroll 1
  for (int row = threadIdx.x / kSegment; row < kTileRows; row += kThreads / kSegment) {
    if (first_row + row >= rows) break;
    const float sum = shelves[row * kShelf + threadIdx.x % kSegment];
    const int64_t to = (first_row + row) * matrix.n + output;
    if (y) {
      store(y, to, type, sum * scale);
    } else {
      part[to] = sum;
    }
  }
}
