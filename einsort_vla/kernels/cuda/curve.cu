// The kernels for matrices of the `curve` form, y = x W^T; launch.cpp chooses among them.

#ifndef EINSORT_EMULATED
#include "ptx.cuh"
#endif

#include "decode.cuh"
#include "matmul.cuh"
#include "matvec.cuh"

// float32 goes through tensor cores as a sum of bfloat16, which is exact.
constexpr int kTerms = 3;

// x (rows, k) as `Inputs` has it, where it is not so already; of float32 the first terms of all
// rows, then the second ones, then the third. Grid (blocks of inputs, rows, or some at a time).
DEVICE void prepare(const void* x, Type type, int64_t rows, int k, uint16_t* prepared, int stride) {
  const int input = blockIdx.x * kThreads + threadIdx.x;
  let_next_begin();
  wait_for_previous();
  if (input >= stride) return;
  for (int64_t row = blockIdx.y; row < rows; row += gridDim.y) {
    const int64_t from = row * k + input;
    uint16_t* to = prepared + row * stride + input;
    if (type != Type::kFloat) {
      *to = input < k ? static_cast<const uint16_t*>(x)[from] : 0;
      continue;
    }
    float rest = input < k ? static_cast<const float*>(x)[from] : 0;
#pragma unroll
    for (int term = 0; term < kTerms; ++term) {
      const uint32_t bits = float_to_bits(rest) & 0xFFFF0000;
      to[term * rows * stride] = uint16_t(bits >> 16);
      rest -= bits_to_float(bits);
    }
  }
}

// The words of a matrix, whose inputs may be of any number, as those of one with `k` inputs, the
// next multiple of 4. Grid (tiles, segments).
DEVICE void widen(const Matrix& matrix, int eighths, uint16_t* words, int k) {
  const int left = matrix.n - blockIdx.y * kSegment, tile = blockIdx.x * kTileColumns;
  const int n_words = words_of(left < kSegment ? left : kSegment, eighths);
  const int width = matrix.k - tile < kTileColumns ? matrix.k - tile : kTileColumns;
  const int to_width = k - tile < kTileColumns ? k - tile : kTileColumns;
  const int64_t before = int64_t(blockIdx.y) * words_of(kSegment, eighths);
  const uint16_t* from = matrix.words + before * matrix.k + int64_t(tile) * n_words;
  uint16_t* to = words + before * k + int64_t(tile) * n_words;
  wait_for_previous();
  for (int i = threadIdx.x; i < n_words * to_width; i += kThreads)
    to[i] = i % to_width < width ? from[i / to_width * width + i % to_width] : 0;
}

// y (rows, n) = the row scales times the sum of parts (n_parts, rows, n), always in the same order.
// Grid (blocks of outputs, rows, or some at a time).
DEVICE void reduce(const Matrix& matrix, Type type, const float* parts, void* y, int64_t rows,
                   int n_parts) {
  const int output = blockIdx.x * kThreads + threadIdx.x, n = matrix.n;
  let_next_begin();
  wait_for_previous();
  if (output >= n) return;
  const float scale = row_scale(matrix, output);
  for (int64_t row = blockIdx.y; row < rows; row += gridDim.y) {
    const int64_t place = row * n + output;
    float total = 0;
#pragma unroll 16
    for (int i = 0; i < n_parts; ++i) total += parts[i * rows * n + place];
    store(y, place, type, total * scale);
  }
}

// weight (n, k) with the scales, k at most matrix.k; each warp decodes 16 inputs. Grid (turns of
// inputs, segments).
struct Decoded {
  Vector<4> w[kWarps][kPieces][32];
  float scale[kSegment];
};

template <int E>
DEVICE void decode_matrix(const Matrix& matrix, Type type, void* weight, int k) {
  using Own = Decoder<E, Type::kBFloat16>;
  auto& at = *reinterpret_cast<Decoded*>(shared_memory());
  const int warp = threadIdx.x / 32, lane = threadIdx.x % 32;
  const int first = blockIdx.x * kTurn, output = blockIdx.y * kSegment;
  const int rows = matrix.n - output < kSegment ? matrix.n - output : kSegment;
  wait_for_previous();
  const Own decoder(matrix, blockIdx.y);
  typename Own::Words words;
  decoder.load(words, first + warp * kInputs);
  if (int(threadIdx.x) < rows) at.scale[threadIdx.x] = row_scale(matrix, output + threadIdx.x);
  decoder.decode(decoder.align(words), [&](int i, const uint32_t (&a)[4]) {
    at.w[warp][i][lane] = {a[0], a[1], a[2], a[3]};
  });
  __syncthreads();
  // A thread has four inputs, of every eighth output.
  const int own = threadIdx.x % (kTurn / 4), input = first + own * 4;
#pragma unroll 1
  for (int row = threadIdx.x / (kTurn / 4); row < rows; row += kThreads / (kTurn / 4)) {
    const auto& found = at.w[own / 4][row % 16 / 2][row / 16 * 4 + own % 4];
    float four[4];
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      const uint32_t pair = found.at[row % 2 + i / 2 * 2];
      four[i] = bits_to_float(i % 2 ? pair & 0xFFFF0000 : pair << 16) * at.scale[row];
    }
    const int64_t to = int64_t(output + row) * k + input;
    if (k % 4 == 0) {
      if (input < k) store_four(weight, to, type, four);
    } else {
#pragma unroll
      for (int i = 0; i < 4; ++i)
        if (input + i < k) store(weight, to + i, type, four[i]);
    }
  }
}

#define COMMON()                                                                                 \
  KERNEL(kThreads, 1)                                                                            \
  prepare_curve(const void* x, Type type, int64_t rows, int k, uint16_t* prepared, int stride) { \
    prepare(x, type, rows, k, prepared, stride);                                                 \
  }                                                                                              \
  KERNEL(kThreads, 1)                                                                            \
  widen_curve(Matrix matrix, int eighths, uint16_t* words, int k) {                              \
    widen(matrix, eighths, words, k);                                                            \
  }                                                                                              \
  KERNEL(kThreads, 1)                                                                            \
  reduce_curve(Matrix matrix, Type type, const float* parts, void* y, int64_t rows,              \
               int n_parts) {                                                                    \
    reduce(matrix, type, parts, y, rows, n_parts);                                               \
  }

#define MATVEC(E, NAME, WEIGHTS)                                                                 \
  KERNEL(kThreads, 2)                                                                            \
  matvec_curve_e##E##_##NAME(Matrix matrix, Inputs inputs, float* parts, int per_split) {        \
    matvec<E, WEIGHTS>(matrix, inputs, parts, per_split);                                        \
  }

#define MATMUL(E, NAME, WEIGHTS)                                                                  \
  KERNEL(kThreads, 2)                                                                             \
  matmul_curve_e##E##_##NAME(Matrix matrix, Inputs inputs, Type type, void* y, float* parts,      \
                             int per_split) {                                                     \
    matmul<E, WEIGHTS>(matrix, inputs, type, y, parts, per_split);                                \
  }

#define DECODE(E)                                                                                 \
  KERNEL(kThreads, 1)                                                                             \
  decode_curve_e##E(Matrix matrix, Type type, void* weight, int k) {                              \
    decode_matrix<E>(matrix, type, weight, k);                                                    \
  }

// float32 is multiplied as bfloat16.
#define CODE(E)                                                           \
  MATVEC(E, half, Type::kHalf) MATVEC(E, bfloat, Type::kBFloat16)         \
  MATMUL(E, half, Type::kHalf) MATMUL(E, bfloat, Type::kBFloat16)         \
  DECODE(E)

#ifndef EINSORT_CODES  // all there are
#define EINSORT_CODES                                                     \
  CODE(8) CODE(9) CODE(10) CODE(11) CODE(12) CODE(13) CODE(14) CODE(15)   \
  CODE(16) CODE(17) CODE(18) CODE(19) CODE(20) CODE(21) CODE(22) CODE(23) \
  CODE(24) CODE(25) CODE(26) CODE(27) CODE(28) CODE(29) CODE(30) CODE(31) \
  CODE(32) CODE(33) CODE(34) CODE(35) CODE(36) CODE(37) CODE(38) CODE(39) \
  CODE(40) CODE(48) CODE(56) CODE(64)
#endif

COMMON()
EINSORT_CODES
