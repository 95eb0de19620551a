// Decodes matrices of the `leader` form, and multiplies few rows by them without storing them.
// docs/format.md, "Decoding leader", has every bit. A column is one input: its outputs are
// neighbours in the streams. Row scales are the caller's, in the epilogue.

#include <cstdint>
#include <cstring>
#include <vector>

namespace {

constexpr int kUsableBits = 57;  // of a 64-bit word that may begin at any bit of its first byte

struct Stream {
  const uint8_t* bytes;
  int64_t n_bytes;

  // The bits from `start` on, the first one on top; at least kUsableBits, zeros after the end.
  uint64_t from(int64_t start) const {
    const uint8_t* first = bytes + (start >> 3);
    const int64_t left = n_bytes - (start >> 3);
    uint64_t word = 0;
    if (left >= 8) {
      std::memcpy(&word, first, 8);
#if __BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__
      word = __builtin_bswap64(word);
#endif
    } else {
      for (int64_t i = 0; i < left; ++i) word |= uint64_t(first[i]) << (56 - 8 * i);
    }
    return word << (start & 7);
  }
};

struct Matrix {
  Stream signs, indices;
  const float* table;  // (2^(s+b), d)
  int64_t rows;        // out_features
  int d, b, s;

  int64_t slices() const { return (rows + d - 1) / d; }
  int64_t padded_rows() const { return slices() * d; }
};

template <int D>
void magnitudes(const Matrix& m, int64_t column, float* __restrict__ out) {
  // Copies, which the stores below cannot change.
  const Stream indices = m.indices;
  const float* const table = m.table;
  const int b = m.b, s = m.s, width = s + b;
  const int64_t n = m.slices(), length = n * b, base = column * length;
  const uint64_t mask = (uint64_t(1) << width) - 1;
  const auto put = [table](uint64_t window, float* slice) {
    std::memcpy(slice, table + window * D, D * sizeof(float));
  };
  // The stream bites its tail: before its first bit come its last s bits.
  uint64_t window = 0;
  if (s && length >= s) window = indices.from(base + length - s) >> (64 - s);
  int64_t j = 0;
  for (; j < n && j * b < s; ++j) {
    window = (window << b | indices.from(base + j * b) >> (64 - b)) & mask;
    put(window, out + j * D);
  }
  const int per_word = (kUsableBits - width) / b + 1;
  for (; j < n; j += per_word) {
    const uint64_t word = indices.from(base + j * b - s);
    const int own = n - j < per_word ? int(n - j) : per_word;
    int shift = 64 - width;
    for (int i = 0; i < own; ++i, shift -= b) put(word >> shift & mask, out + (j + i) * D);
  }
}

// Vectors of GCC and Clang: one of AVX-512, two of AVX, or four of NEON.
constexpr int kLanes = 16;
using Floats = float __attribute__((vector_size(4 * kLanes)));
using Bits = uint32_t __attribute__((vector_size(4 * kLanes)));
constexpr Bits kToTop = {16, 17, 18, 19, 20, 21, 22, 23, 24, 25, 26, 27, 28, 29, 30, 31};
constexpr int kBlocks = kUsableBits / kLanes, kPerWord = kBlocks * kLanes;  // signs of one word

// kLanes magnitudes with the signs that are on top of `word`.
inline Floats signed_by(uint64_t word, const float* magnitude) {
  Bits bits;
  std::memcpy(&bits, magnitude, sizeof bits);
  const Bits spread = Bits{} + uint32_t(word >> (64 - kLanes));
  return (Floats)(bits ^ ((spread << kToTop) & 0x80000000u));
}

void column_magnitudes(const Matrix& m, int64_t column, float* out) {
  switch (m.d) {
    case 1: magnitudes<1>(m, column, out); break;
    case 2: magnitudes<2>(m, column, out); break;
    case 4: magnitudes<4>(m, column, out); break;
    default: magnitudes<8>(m, column, out);
  }
}

// y, N rows `stride` apart, += factors, (N,), times a column.
template <int N>
void add_column(const Matrix& m, int64_t column, const float* magnitude, const float* factors,
                float* __restrict__ y, int64_t stride) {
  const int64_t rows = m.rows, base = column * rows;
  const Stream signs = m.signs;
  int64_t n = 0;
  for (; n + kPerWord <= rows; n += kPerWord) {
    uint64_t word = signs.from(base + n);
    for (int block = 0; block < kBlocks; ++block, word <<= kLanes) {
      const int64_t at = n + block * kLanes;
      const Floats weights = signed_by(word, magnitude + at);
      for (int i = 0; i < N; ++i) {
        Floats sum;
        std::memcpy(&sum, y + i * stride + at, sizeof sum);
        sum += factors[i] * weights;
        std::memcpy(y + i * stride + at, &sum, sizeof sum);
      }
    }
  }
  for (uint64_t word = signs.from(base + n); n < rows; ++n, word <<= 1) {
    const float weight = word >> 63 ? -magnitude[n] : magnitude[n];
    for (int i = 0; i < N; ++i) y[i * stride + n] += factors[i] * weight;
  }
}

void store_column(const Matrix& m, int64_t column, const float* magnitude, float* out) {
  const int64_t rows = m.rows, base = column * rows;
  int64_t n = 0;
  for (; n + kPerWord <= rows; n += kPerWord) {
    uint64_t word = m.signs.from(base + n);
    for (int block = 0; block < kBlocks; ++block, word <<= kLanes) {
      const Floats weights = signed_by(word, magnitude + n + block * kLanes);
      std::memcpy(out + n + block * kLanes, &weights, sizeof weights);
    }
  }
  for (uint64_t word = m.signs.from(base + n); n < rows; ++n, word <<= 1)
    out[n] = word >> 63 ? -magnitude[n] : magnitude[n];
}

// As many rows of x at once as are left, up to four.
void add_columns(const Matrix& m, int64_t column, const float* magnitude, const float* factors,
                 int64_t n_x, float* y, int64_t stride) {
  switch (n_x) {
    case 0: return;
    case 1: return add_column<1>(m, column, magnitude, factors, y, stride);
    case 2: return add_column<2>(m, column, magnitude, factors, y, stride);
    case 3: return add_column<3>(m, column, magnitude, factors, y, stride);
    default:
      add_column<4>(m, column, magnitude, factors, y, stride);
      add_columns(m, column, magnitude, factors + 4, n_x - 4, y + 4 * stride, stride);
  }
}

}  // namespace

extern "C" {

// out: (last - first, rows), the columns from `first` to before `last`.
void einsort_decode_leader(const uint8_t* signs, int64_t n_sign_bytes, const uint8_t* indices,
                           int64_t n_index_bytes, const float* table, int64_t rows, int d, int b,
                           int s, int64_t first, int64_t last, float* out) {
  const Matrix m{{signs, n_sign_bytes}, {indices, n_index_bytes}, table, rows, d, b, s};
  std::vector<float> column(m.padded_rows());
  for (int64_t k = first; k < last; ++k) {
    column_magnitudes(m, k, column.data());
    store_column(m, k, column.data(), out + (k - first) * rows);
  }
}

// y: (n_x, rows), rows `stride` apart, zeros at first; x: (n_x, columns). Adds what columns `first` to `last` contribute.
void einsort_matmul_leader(const uint8_t* signs, int64_t n_sign_bytes, const uint8_t* indices,
                           int64_t n_index_bytes, const float* table, int64_t rows, int d, int b,
                           int s, int64_t first, int64_t last, const float* x, int64_t n_x,
                           int64_t columns, float* y, int64_t stride) {
  const Matrix m{{signs, n_sign_bytes}, {indices, n_index_bytes}, table, rows, d, b, s};
  std::vector<float> column(m.padded_rows()), factors(n_x);
  for (int64_t k = first; k < last; ++k) {
    for (int64_t i = 0; i < n_x; ++i) factors[i] = x[i * columns + k];
    column_magnitudes(m, k, column.data());
    add_columns(m, k, column.data(), factors.data(), n_x, y, stride);
  }
}
}
