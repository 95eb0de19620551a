// Many rows of x times a matrix: tiles of W are decoded into shared memory, once a block.
//
// float16 and bfloat16 go through tensor cores, with magnitudes rounded to that type; float32 is
// multiplied and added as float32. The words of the next tile are on their way meanwhile.

#pragma once

#include "decode.cuh"

constexpr int kTileM = 64, kTileN = 128, kTileK = 32;
constexpr int kMatmulThreads = 128;  // 2 x 2 warps; a thread decodes a strip of 32 outputs a tile
constexpr int kStripR = 32;
constexpr int kStrips = kTileN / kStripR;
static_assert(kTileK * kStrips == kMatmulThreads, "a strip for each thread");

// Tiles of x and W in shared memory, and the sums of one thread. Rows are padded so that those
// which are read together lie in different banks.
template <typename T>
struct Tiles {
  static constexpr int kStrideX = kTileK + 8, kStrideW = kTileN + 8;
  static constexpr int kPart = kTileK / 2;  // of a row of x that a thread loads
  T x[kTileM * kStrideX];                   // (m, k)
  T w[kTileK * kStrideW];                   // (k, n)

  DEVICE void store_x(int m, int k, const T (&part)[kPart]) {
#pragma unroll
    for (int i = 0; i < kPart; i += 8) {
      Row<T, 8>& row = *reinterpret_cast<Row<T, 8>*>(x + m * kStrideX + k + i);
#pragma unroll
      for (int e = 0; e < 8; ++e) row.at[e] = part[i + e];
    }
  }

  // The weights of input k of the tile, from output n of it on.
  template <int D, int G>
  DEVICE void store_w(int k, int n, const Strip<D, G, kStripR>& strip,
                      const Outputs<D, G, kStripR>& own, const Table<T, D>& table) {
    uint32_t* row = reinterpret_cast<uint32_t*>(w + k * kStrideW + n);
    const auto store = [&](int i, uint32_t pair) { row[i] = pair; };
    strip.decode(own, table, Pairs<D, decltype(store)>(strip.sign_bits(), store));
  }

  struct Sums {
    float at[2][8][4] = {};  // a warp has 32 x 64: 2 x 8 products of 16 x 8

    DEVICE void add(Type16 type, const Tiles& tiles) {
      if (type == Type16::kHalf) {
        add_as<Type16::kHalf>(tiles);
      } else {
        add_as<Type16::kBFloat16>(tiles);
      }
    }

    template <Type16 type>
    DEVICE void add_as(const Tiles& tiles) {
      const int lane = threadIdx.x % 32, warp = threadIdx.x / 32;
      const int m = warp / 2 * 32 + lane % 16, n = warp % 2 * 64 + lane / 16 * 8;
#pragma unroll
      for (int k = 0; k < kTileK; k += 16) {
        uint32_t a[2][4];
#pragma unroll
        for (int i = 0; i < 2; ++i)
          load_matrices(a[i], tiles.x + (m + i * 16) * kStrideX + k + lane / 16 * 8);
#pragma unroll
        for (int j = 0; j < 8; j += 2) {
          uint32_t b[4];
          load_matrices_transposed(b, tiles.w + (k + lane % 16) * kStrideW + n + j * 8);
#pragma unroll
          for (int i = 0; i < 2; ++i) {
            multiply<type>(at[i][j], a[i], b[0], b[1]);
            multiply<type>(at[i][j + 1], a[i], b[2], b[3]);
          }
        }
      }
    }

    // Calls use(m, n, sum) for each sum of this thread, by its place in the tile.
    template <typename Use>
    DEVICE void each(Use use) const {
      const int lane = threadIdx.x % 32, warp = threadIdx.x / 32;
      const int m = warp / 2 * 32 + lane / 4, n = warp % 2 * 64 + lane % 4 * 2;
#pragma unroll
      for (int i = 0; i < 2; ++i)
#pragma unroll
        for (int j = 0; j < 8; ++j)
#pragma unroll
          for (int e = 0; e < 4; ++e)
            use(m + i * 16 + e / 2 * 8, n + j * 8 + e % 2, at[i][j][e]);
    }
  };
};

template <>
struct Tiles<float> {
  static constexpr int kStrideX = kTileM + 4, kStrideW = kTileN + 4;
  static constexpr int kPart = kTileK / 2;
  float x[kTileK * kStrideX];  // (k, m)
  float w[kTileK * kStrideW];  // (k, n)

  DEVICE void store_x(int m, int k, const float (&part)[kPart]) {
#pragma unroll
    for (int i = 0; i < kPart; ++i) x[(k + i) * kStrideX + m] = part[i];
  }

  template <int D, int G>
  DEVICE void store_w(int k, int n, const Strip<D, G, kStripR>& strip,
                      const Outputs<D, G, kStripR>& own, const Table<float, D>& table) {
    float* row = w + k * kStrideW + n;
    const uint32_t signs = strip.sign_bits();
    strip.decode(own, table, [&](int slice, const Row<float, D>& magnitudes) {
#pragma unroll
      for (int e = 0; e < D; ++e) {
        const int i = slice * D + e;
        row[i] = flip(magnitudes.at[e], signs << i & 0x80000000u);
      }
    });
  }

  struct Sums {
    float at[8][8] = {};  // a thread has 8 rows and twice 4 outputs

    DEVICE void add(Type16, const Tiles& tiles) {
      const int m = threadIdx.x / 16 * 8, n = threadIdx.x % 16 * 4;
#pragma unroll 4
      for (int k = 0; k < kTileK; ++k) {
        const auto x = *reinterpret_cast<const Row<float, 8>*>(tiles.x + k * kStrideX + m);
        const auto* w = reinterpret_cast<const Row<float, 4>*>(tiles.w + k * kStrideW + n);
        const Row<float, 4> low = w[0], high = w[kTileN / 8];
#pragma unroll
        for (int i = 0; i < 8; ++i)
#pragma unroll
          for (int j = 0; j < 8; ++j) at[i][j] += x.at[i] * (j < 4 ? low.at[j] : high.at[j - 4]);
      }
    }

    template <typename Use>
    DEVICE void each(Use use) const {
      const int m = threadIdx.x / 16 * 8, n = threadIdx.x % 16 * 4;
#pragma unroll
      for (int i = 0; i < 8; ++i)
#pragma unroll
        for (int j = 0; j < 8; ++j) use(m + i, n + j % 4 + j / 4 * (kTileN / 2), at[i][j]);
    }
  };
};

// Inputs `input` to `input` + N of a row of x, zeros from `end` on.
template <typename T, int N>
DEVICE void load_part(T (&part)[N], const T* row, int input, int end, bool aligned) {
  if (aligned && input + N <= end) {
    constexpr int kVector = 16 / sizeof(T);
#pragma unroll
    for (int i = 0; i < N; i += kVector) {
      const auto vector = *reinterpret_cast<const Row<T, kVector>*>(row + input + i);
#pragma unroll
      for (int e = 0; e < kVector; ++e) part[i + e] = vector.at[e];
    }
    return;
  }
#pragma unroll
  for (int i = 0; i < N; ++i) part[i] = input + i < end ? row[input + i] : T{};
}

// y (rows, n), if `scale` (float16, n) is given, else parts (splits, rows, n) in float32 without
// it; part i is of the inputs from i * per_split on, a multiple of kTileK.
// Grid (tiles of M, tiles of N, splits), block kMatmulThreads.
template <typename T, int D, int G>
DEVICE void matmul(const Matrix& matrix, Type16 type, const T* x, T* y, float* parts,
                   const Bits16* scale, int64_t rows, int per_split) {
  Tiles<T>& tiles = *reinterpret_cast<Tiles<T>*>(shared_memory());
  unsigned char* memory = shared_memory() + sizeof(Tiles<T>);
  const Table<T, D> table(matrix, type, memory, kMatmulThreads);
  const int64_t first_m = int64_t(blockIdx.x) * kTileM;
  const int first_n = blockIdx.y * kTileN;
  const int begin = blockIdx.z * per_split;
  const int end = begin + per_split < matrix.k ? begin + per_split : matrix.k;

  constexpr int kPart = Tiles<T>::kPart;
  const int m = threadIdx.x / 2, part_k = threadIdx.x % 2 * kPart;
  const T* row = x + (first_m + m < rows ? first_m + m : rows - 1) * matrix.k;
  const bool aligned = (size_t(x) | matrix.k * sizeof(T)) % 16 == 0;
  const int strip_k = threadIdx.x / kStrips, strip_n = threadIdx.x % kStrips * kStripR;
  const Outputs<D, G, kStripR> own(matrix, first_n + strip_n);

  typename Tiles<T>::Sums sums;
  Strip<D, G, kStripR> strip;
  T part[kPart];
  const auto load = [&](int k) {
    strip.load(own, k + strip_k);
    load_part(part, row, k + part_k, end, aligned);
  };
  wait_for_previous();
  load(begin);
  for (int k = begin; k < end; k += kTileK) {
    __syncthreads();
    tiles.store_x(m, part_k, part);
    tiles.store_w(strip_k, strip_n, strip, own, table);
    __syncthreads();
    if (k + kTileK < end) load(k + kTileK);
    sums.add(type, tiles);
  }
  float* split = parts + int64_t(blockIdx.z) * rows * matrix.n;
  sums.each([&](int tile_m, int tile_n, float sum) {
    const int64_t to_m = first_m + tile_m;
    const int n = first_n + tile_n;
    if (to_m >= rows || n >= matrix.n) return;
    if (scale) {
      store(y + to_m * matrix.n + n, type, sum * half_to_float(scale[n].at));
    } else {
      split[to_m * matrix.n + n] = sum;
    }
  });
}
