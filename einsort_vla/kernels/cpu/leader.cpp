// Decodes matrices of the `leader` form, and multiplies few rows by them without storing them.
// docs/format.md, "Decoding leader", has every bit. A column is one input: its outputs are
// neighbours in the streams. Row scales are the caller's, in the epilogue.

#include <array>
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
  int64_t padded_rows() const { return (slices() * d + 7) / 8 * 8; }
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

using SignMasks = std::array<std::array<uint32_t, 8>, 256>;

const SignMasks kSigns = [] {
  SignMasks masks{};
  for (int byte = 0; byte < 256; ++byte)
    for (int i = 0; i < 8; ++i) masks[byte][i] = (byte >> (7 - i) & 1) ? 0x80000000u : 0u;
  return masks;
}();

void flip(uint8_t byte, float* eight) {
  uint32_t bits[8];
  std::memcpy(bits, eight, sizeof bits);
  for (int i = 0; i < 8; ++i) bits[i] ^= kSigns[byte][i];
  std::memcpy(eight, bits, sizeof bits);
}

void apply_signs(const Matrix& m, int64_t column, float* out) {
  for (int64_t n = 0; n < m.rows; n += 56) {
    uint64_t word = m.signs.from(column * m.rows + n);
    const int64_t end = m.rows - n < 56 ? m.rows - n : 56;
    for (int64_t i = 0; i < end; i += 8, word <<= 8) flip(uint8_t(word >> 56), out + n + i);
  }
}

// One column, (padded_rows,); what lies beyond `rows` is arbitrary.
void decode(const Matrix& m, int64_t column, float* out) {
  switch (m.d) {
    case 1: magnitudes<1>(m, column, out); break;
    case 2: magnitudes<2>(m, column, out); break;
    case 4: magnitudes<4>(m, column, out); break;
    default: magnitudes<8>(m, column, out);
  }
  apply_signs(m, column, out);
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
    decode(m, k, column.data());
    std::memcpy(out + (k - first) * rows, column.data(), rows * sizeof(float));
  }
}

// y: (n_x, rows), zeros at first; x: (n_x, columns). Adds what columns `first` to `last` contribute.
void einsort_matmul_leader(const uint8_t* signs, int64_t n_sign_bytes, const uint8_t* indices,
                           int64_t n_index_bytes, const float* table, int64_t rows, int d, int b,
                           int s, int64_t first, int64_t last, const float* x, int64_t n_x,
                           int64_t columns, float* y) {
  const Matrix m{{signs, n_sign_bytes}, {indices, n_index_bytes}, table, rows, d, b, s};
  std::vector<float> column(m.padded_rows());
  for (int64_t k = first; k < last; ++k) {
    decode(m, k, column.data());
    for (int64_t i = 0; i < n_x; ++i) {
      const float factor = x[i * columns + k];
      float* own = y + i * rows;
      for (int64_t n = 0; n < rows; ++n) own[n] += factor * column[n];
    }
  }
}
}
