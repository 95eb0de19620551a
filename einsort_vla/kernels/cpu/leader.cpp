// Decodes matrices of the `leader` form, and multiplies few rows by them without storing them.
// docs/format.md, "Decoding leader", has every bit. A column is one input: its outputs are
// neighbours in the streams. Row scales are the caller's, in the epilogue.

#include <cstdint>
#include <cstring>
#include <vector>

#if defined(__AVX512VBMI__) && defined(__AVX512BITALG__) && defined(__AVX512BW__)
#include <immintrin.h>
#define EINSORT_PAIRS 1
#endif

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

template <class Vector>
inline void add(float* y, Vector other) {
  Vector sum;
  std::memcpy(&sum, y, sizeof sum);
  sum += other;
  std::memcpy(y, &sum, sizeof sum);
}

void column_magnitudes(const Matrix& m, int64_t column, float* out) {
  switch (m.d) {
    case 1: magnitudes<1>(m, column, out); break;
    case 2: magnitudes<2>(m, column, out); break;
    case 4: magnitudes<4>(m, column, out); break;
    default: magnitudes<8>(m, column, out);
  }
}

// y, (rows,), += factor times a column.
void add_column(const Matrix& m, int64_t column, const float* magnitude, float factor,
                float* __restrict__ y) {
  const int64_t rows = m.rows, base = column * rows;
  const Stream signs = m.signs;
  int64_t n = 0;
  for (; n + kPerWord <= rows; n += kPerWord) {
    uint64_t word = signs.from(base + n);
    for (int block = 0; block < kBlocks; ++block, word <<= kLanes)
      add(y + n + block * kLanes, factor * signed_by(word, magnitude + n + block * kLanes));
  }
  for (uint64_t word = signs.from(base + n); n < rows; ++n, word <<= 1)
    y[n] += factor * (word >> 63 ? -magnitude[n] : magnitude[n]);
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

#if EINSORT_PAIRS

// Slices of two weights with windows of 8 bits, 64 slices at once: windows by byte shifts, and the
// table, whose magnitudes are float16 in all but name, in 16 registers, a byte of each to four.
class Pairs {
 public:
  explicit Pairs(const Matrix& matrix) : m(matrix), usable(m.d == 2 && m.s + m.b == 8) {
    if (!usable) return;
    uint8_t bytes[4][256];
    for (int i = 0; i < 512; ++i) {
      const uint16_t half = _cvtss_sh(m.table[i], 0);
      usable = usable && _cvtsh_ss(half) == m.table[i];
      bytes[i % 2 * 2][i / 2] = uint8_t(half);
      bytes[i % 2 * 2 + 1][i / 2] = uint8_t(half >> 8);
    }
    std::memcpy(planes, bytes, sizeof planes);
    uint8_t places[64], steps[64], byte_order[64], sign_order[64], bits[64];
    for (int i = 0; i < 64; ++i) {
      places[i] = i / 8 * m.b + 7 - i % 8;
      steps[i] = i % 8 * m.b;
      byte_order[i] = i / 4 % 4 * 16 + i / 16 * 4 + i % 4;  // undone by the unpacking
      sign_order[i] = i / 8 + 7 - i % 8;
      bits[i] = 63 - i % 8;
    }
    window_bytes = _mm512_loadu_si512(places);
    window_steps = _mm512_loadu_si512(steps);
    order = _mm512_loadu_si512(byte_order);
    sign_bytes = _mm512_loadu_si512(sign_order);
    sign_bits = _mm512_loadu_si512(bits);
  }

  // Calls use(n, weights) with kLanes weights from output n on, until all outputs of a column are
  // there; the last calls may go up to kBlock beyond them, with any weights. False if a read would
  // leave the streams: then nothing was called.
  template <class Use>
  bool column(int64_t k, Use use) const {
    const int64_t base = k * m.slices() * m.b, sign_base = k * m.rows;
    const int64_t padded = (m.rows + kBlock - 1) / kBlock * kBlock;
    if (!usable || base < m.s || ((base + padded / 2 * m.b) >> 3) + 64 > m.indices.n_bytes ||
        ((sign_base + padded) >> 3) + 16 > m.signs.n_bytes || m.slices() * m.b < m.s)
      return false;
    for (int64_t n = 0; n < padded; n += kBlock) {
      const __m512i window = n ? windows(base + n / 2 * m.b - m.s) : first_windows(base);
      const __mmask64 upper = _mm512_movepi8_mask(window);
      __m512i byte[4];
      for (int p = 0; p < 4; ++p)
        byte[p] = _mm512_mask_blend_epi8(
            upper, _mm512_permutex2var_epi8(planes[p][0], window, planes[p][1]),
            _mm512_permutex2var_epi8(planes[p][2], window, planes[p][3]));
      const __m512i first[2] = {_mm512_unpacklo_epi8(byte[0], byte[1]),
                                _mm512_unpackhi_epi8(byte[0], byte[1])};
      const __m512i second[2] = {_mm512_unpacklo_epi8(byte[2], byte[3]),
                                 _mm512_unpackhi_epi8(byte[2], byte[3])};
      for (int i = 0; i < 2; ++i) {
        const __mmask64 negative = signs(sign_base + n + 64 * i);
        put(n + 64 * i, _mm512_unpacklo_epi16(first[i], second[i]), __mmask32(negative), use);
        put(n + 64 * i + 32, _mm512_unpackhi_epi16(first[i], second[i]),
            __mmask32(negative >> 32), use);
      }
    }
    return true;
  }

  static constexpr int kBlock = 128;

 private:
  // 64 windows, the first one from bit `start` on, in the order that the unpacking undoes.
  __m512i windows(int64_t start) const {
    const __m512i bytes = _mm512_loadu_si512(m.indices.bytes + (start >> 3));
    const __m512i shifts = _mm512_sub_epi8(_mm512_set1_epi8(56 - (start & 7)), window_steps);
    const __m512i found =
        _mm512_multishift_epi64_epi8(shifts, _mm512_permutexvar_epi8(window_bytes, bytes));
    return _mm512_permutexvar_epi8(order, found);
  }

  // The stream bites its tail: before its first bit come its last s bits.
  __m512i first_windows(int64_t base) const {
    alignas(64) uint8_t window[64];
    _mm512_store_si512(window, windows(base - m.s));
    uint64_t head = m.s ? m.indices.from(base + m.slices() * m.b - m.s) >> (64 - m.s) : 0;
    for (int j = 0; j * m.b < m.s; ++j) {  // at most seven
      head = head << m.b | m.indices.from(base + j * m.b) >> (64 - m.b);
      window[j / 4 * 16 + j % 4] = uint8_t(head);
    }
    return _mm512_load_si512(window);
  }

  // Bit i: whether weight i after bit `start` of the signs is negative.
  __mmask64 signs(int64_t start) const {
    const __m128i bytes =
        _mm_loadu_si128(reinterpret_cast<const __m128i*>(m.signs.bytes + (start >> 3)));
    return _mm512_bitshuffle_epi64_mask(
        _mm512_permutexvar_epi8(sign_bytes, _mm512_castsi128_si512(bytes)),
        _mm512_sub_epi8(sign_bits, _mm512_set1_epi8(start & 7)));
  }

  template <class Use>
  static void put(int64_t n, __m512i halves, __mmask32 negative, Use use) {
    halves = _mm512_mask_add_epi16(halves, negative, halves, _mm512_set1_epi16(-0x8000));
    use(n, Floats(_mm512_cvtph_ps(_mm512_castsi512_si256(halves))));
    use(n + kLanes, Floats(_mm512_cvtph_ps(_mm512_extracti64x4_epi64(halves, 1))));
  }

  const Matrix& m;
  bool usable;
  __m512i planes[4][4], window_bytes, window_steps, order, sign_bytes, sign_bits;
};

#else

struct Pairs {
  explicit Pairs(const Matrix&) {}
  template <class Use>
  bool column(int64_t, Use) const { return false; }
};

#endif

constexpr int kColumns = 32;  // decoded before they are multiplied: they stay in cache
// Of y, summed in registers, in vectors as wide as they are: 24 of the 32 of AVX-512, 12 of the 16
// of AVX, or 16 of NEON's 32.
#if defined(__AVX512F__)
constexpr int kWidth = 16, kRows = 6, kVectors = 4;
#elif defined(__AVX__)
constexpr int kWidth = 8, kRows = 6, kVectors = 2;
#else
constexpr int kWidth = 4, kRows = 4, kVectors = 4;
#endif
using Native = float __attribute__((vector_size(4 * kWidth)));

// R rows of y, kVectors * kWidth wide, += x, (R, kColumns), times `n` decoded columns.
template <int R>
void multiply_tile(const float* x, const float* weights, int64_t n, float* y, int64_t stride) {
  Native sum[R][kVectors] = {};
  for (int64_t c = 0; c < n; ++c) {
    Native weight[kVectors];
#pragma GCC unroll 4
    for (int v = 0; v < kVectors; ++v)
      std::memcpy(&weight[v], weights + c * stride + v * kWidth, sizeof weight[v]);
#pragma GCC unroll 6
    for (int i = 0; i < R; ++i)
#pragma GCC unroll 4
      for (int v = 0; v < kVectors; ++v) sum[i][v] += x[i * kColumns + c] * weight[v];
  }
#pragma GCC unroll 6
  for (int i = 0; i < R; ++i)
#pragma GCC unroll 4
    for (int v = 0; v < kVectors; ++v) add(y + i * stride + v * kWidth, sum[i][v]);
}

// The same for fewer rows than R.
template <int R>
void multiply_rest(int64_t n_x, const float* x, const float* weights, int64_t n, float* y,
                   int64_t stride) {
  if constexpr (R > 1) {
    if (n_x == R - 1) return multiply_tile<R - 1>(x, weights, n, y, stride);
    multiply_rest<R - 1>(n_x, x, weights, n, y, stride);
  }
}

// y, (n_x, rows), += x, (n_x, kColumns), times `n` decoded columns.
void multiply(const float* x, int64_t n_x, const float* weights, int64_t n, int64_t rows, float* y,
              int64_t stride) {
  for (int64_t first = 0; first < rows; first += kVectors * kWidth) {
    int64_t i = 0;
    for (; i + kRows <= n_x; i += kRows)
      multiply_tile<kRows>(x + i * kColumns, weights + first, n, y + i * stride + first, stride);
    multiply_rest<kRows>(n_x - i, x + i * kColumns, weights + first, n, y + i * stride + first,
                         stride);
  }
}

// Memory of this thread that its next call has again: new pages would cost more than decoding.
float* scratch(int64_t n) {
  static thread_local std::vector<float> memory;
  if (memory.size() < size_t(n)) memory.resize(n);
  return memory.data();
}

void decode_columns(const Matrix& m, const Pairs& pairs, int64_t first, int64_t last, float* out,
                    int64_t stride) {
  std::vector<float> column(m.padded_rows());
  for (int64_t k = first; k < last; ++k, out += stride) {
    const auto store = [out](int64_t n, Floats weights) {
      std::memcpy(out + n, &weights, sizeof weights);
    };
    if (pairs.column(k, store)) continue;
    column_magnitudes(m, k, column.data());
    store_column(m, k, column.data(), out);
  }
}

// For one row of x: nothing is stored.
void add_columns(const Matrix& m, const Pairs& pairs, int64_t first, int64_t last, const float* x,
                 float* y) {
  std::vector<float> column(m.padded_rows());
  for (int64_t k = first; k < last; ++k) {
    const float factor = x[k];
    if (pairs.column(k, [=](int64_t n, Floats weights) { add(y + n, factor * weights); })) continue;
    column_magnitudes(m, k, column.data());
    add_column(m, k, column.data(), factor, y);
  }
}

// y += x, (n_x, columns), times the columns from `first` to before `last`.
void multiply_columns(const Matrix& m, const Pairs& pairs, int64_t first, int64_t last,
                      const float* x, int64_t n_x, int64_t columns, float* y, int64_t stride) {
  if (n_x == 1) return add_columns(m, pairs, first, last, x, y);
  float* const weights = scratch(kColumns * (stride + n_x));
  float* const inputs = weights + kColumns * stride;
  for (int64_t k = first; k < last; k += kColumns) {
    const int64_t n = k + kColumns < last ? kColumns : last - k;
    decode_columns(m, pairs, k, k + n, weights, stride);
    for (int64_t i = 0; i < n_x; ++i)
      std::memcpy(inputs + i * kColumns, x + i * columns + k, n * sizeof(float));
    multiply(inputs, n_x, weights, n, m.rows, y, stride);
  }
}

}  // namespace

extern "C" {

// Whether tables of slices of two weights and windows of 8 bits are best left as they are.
int einsort_has_pairs() {
#if EINSORT_PAIRS
  return 1;
#else
  return 0;
#endif
}

// out: all columns, `stride` floats apart. `stride` and that of y below are whole blocks of 128
// floats or more, and what is beyond `rows` in them is overwritten. Columns are shared out to
// `parts` threads, where OpenMP is there.
void einsort_decode_leader(const uint8_t* signs, int64_t n_sign_bytes, const uint8_t* indices,
                           int64_t n_index_bytes, const float* table, int64_t rows, int d, int b,
                           int s, int64_t columns, int parts, float* out, int64_t stride) {
  const Matrix m{{signs, n_sign_bytes}, {indices, n_index_bytes}, table, rows, d, b, s};
  const Pairs pairs(m);
#pragma omp parallel for num_threads(parts) schedule(static, 1)
  for (int part = 0; part < parts; ++part) {
    const int64_t first = columns * part / parts, last = columns * (part + 1) / parts;
    decode_columns(m, pairs, first, last, out + first * stride, stride);
  }
}

// y: (parts, n_x, rows), rows `stride` apart, zeros at first; x: (n_x, columns). Adds to each part
// what its share of the columns contributes, each by a thread where OpenMP is there.
void einsort_matmul_leader(const uint8_t* signs, int64_t n_sign_bytes, const uint8_t* indices,
                           int64_t n_index_bytes, const float* table, int64_t rows, int d, int b,
                           int s, int64_t columns, int parts, const float* x, int64_t n_x,
                           float* y, int64_t stride) {
  const Matrix m{{signs, n_sign_bytes}, {indices, n_index_bytes}, table, rows, d, b, s};
  const Pairs pairs(m);
#pragma omp parallel for num_threads(parts) schedule(static, 1)
  for (int part = 0; part < parts; ++part) {
    const int64_t first = columns * part / parts, last = columns * (part + 1) / parts;
    multiply_columns(m, pairs, first, last, x, n_x, columns, y + part * n_x * stride, stride);
  }
}
}
